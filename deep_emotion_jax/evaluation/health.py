"""Checks a trained network for dead units and for a sampling grid outside the feature map.

A network of 47,657 weights trained on little data can collapse: its ReLUs die, or theta moves the
grid off the map. The loss then stays at that of always predicting the most frequent class.

    health = check_health(model, images)
    print(health.problem or "sound")
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deep_emotion_jax.nn.layers import ConvStage, standardize
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.spatial_transformer import affine_grid, grid_sample

# On 300 generated faces, the shipped network, which works, has half of the units of one layer dead
# and 32 % of its grid off the map.
MOST_DEAD = 0.9
MOST_OUTSIDE = 0.7
LEAST_SCALE = 0.05


class Theta(NamedTuple):
    """Statistics of theta over all images.

    Attributes:
      scale: side of the attended region relative to the map (root of the area ratio); median.
      shift: distance of its centre from the map's centre, in half sides of the map; median.
      outside: share of grid points off the map, where the sampler reads zeros; mean.
    """

    scale: float
    shift: float
    outside: float


@dataclass(frozen=True)
class Health:
    """The result of `check_health`.

    Attributes:
      dead: layer -> share of its units (channels of a convolution) that are zero on all images.
      theta: statistics of theta; None if the network has no localization network.
      problem: the problem and its remedy in one sentence; None if there is none.
    """

    dead: dict[str, float]
    theta: Theta | None
    problem: str | None


def check_health(model: DeepEmotion, images: np.ndarray) -> Health:
    """Runs images through a network and checks the logits, every ReLU and theta.

    Args:
      model: the network.
      images: [N, 48, 48, 1], uint8 or floats in [0, 1]; a few hundred training images.
    """
    scale = 255 if images.dtype == np.uint8 else 1
    finite, alive, theta = jax.device_get(
        _measure(*nnx.split(model), jnp.asarray(images, jnp.float32) / scale)
    )
    dead = {name: float(1 - fires.mean()) for name, fires in alive.items()}
    statistics = None if theta is None else Theta(*map(float, theta))
    return Health(dead, statistics, _problem(bool(finite), dead, statistics))


@partial(jax.jit, static_argnums=0)  # one program for all networks of one structure
def _measure(graph: nnx.GraphDef, state: nnx.State, images: jax.Array):
    """Returns whether the logits are finite; layer -> whether each unit fires; `Theta`."""
    # Repeats the forward pass of `DeepEmotion`: its stages fuse convolutions, pooling and ReLU, so
    # they do not expose the outputs of single convolutions, which are checked here.
    model = nnx.merge(graph, state)
    alive: dict[str, jax.Array] = {}

    def through(x: jax.Array, stage: ConvStage, name: str) -> jax.Array:
        for j in range(len(stage.convs)):
            part = _part(stage, j + 1)(x)
            alive[f"{name}.convs.{j}"] = (part > 0).any((0, 1, 2))
        return stage(x)

    def linear(x: jax.Array, layer: nnx.Linear, name: str) -> jax.Array:
        x = jax.nn.relu(layer(x.reshape(len(x), -1)))
        alive[name] = (x > 0).any(0)
        return x

    x = standardize(images)
    statistics = None
    if model.localization is not None:
        looked = x
        for i, stage in enumerate(model.localization.stages):
            looked = through(looked, stage, f"localization.stages.{i}")
        linear(looked, model.localization.hidden, "localization.hidden")
        theta = model.theta(images)
        sides = jnp.sqrt(jnp.abs(jnp.linalg.det(theta[:, :, :2])))
        centres = jnp.linalg.norm(theta[:, :, 2], axis=1)

    def attend(x: jax.Array) -> jax.Array:
        nonlocal statistics
        grid = affine_grid(theta, (x.shape[1], x.shape[2]))
        outside = (jnp.abs(grid) > 1).any(-1).mean()
        statistics = (jnp.median(sides), jnp.median(centres), outside)
        return grid_sample(x, grid)

    if model.attended == 0:
        x = attend(x)
    for i, stage in enumerate(model.stages, 1):
        x = through(x, stage, f"stages.{i - 1}")
        if i == model.attended:
            x = attend(x)
    linear(x, model.fc1, "fc1")
    return jnp.isfinite(model(images)).all(), alive, statistics


def _part(stage: ConvStage, layers: int) -> ConvStage:
    """Returns the first convolutions of a stage, each with its ReLU, without the pooling."""
    part = nnx.clone(stage)
    part.residual = stage.residual and layers == len(stage.convs)
    part.convs, part.norms = nnx.List(stage.convs[:layers]), nnx.List(stage.norms[:layers])
    part.pool = 1
    return part


def _problem(finite: bool, dead: dict[str, float], theta: Theta | None) -> str | None:
    if not finite:
        return "its logits are not finite; lower recipe.learning_rate"
    # Checked first: if the sampler reads nothing, the layers after it are dead as well.
    if theta and (theta.outside > MOST_OUTSIDE or theta.scale < LEAST_SCALE):
        return (
            f"theta has diverged: {theta.outside:.0%} of the grid is off the map and the attended "
            f"region has {theta.scale:.2g} of its side; lower recipe.learning_rate or change the "
            "seed"
        )
    worst = max(dead, key=dead.__getitem__)
    if dead[worst] >= MOST_DEAD:
        return (
            f"{dead[worst]:.0%} of the units of {worst} are dead (zero on all images); lower "
            "recipe.learning_rate, increase recipe.warmup_steps or change the seed"
        )
    return None
