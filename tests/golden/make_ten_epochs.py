"""Writes ten_epochs.npy: ten epochs of the FER-2013 recipe on a few faces, by this project.

    PYTHONPATH=. python tests/golden/make_ten_epochs.py   # made with jax 0.10.2 on a CPU

tests/training/test_versions.py compares a training with the installed version of JAX with them.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from configs import fer2013
from datasets.synthetic_faces import face
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.runtime.devices import data_mesh
from deep_emotion_jax.training.config import read_settings
from deep_emotion_jax.training.epoch import init_state, make_epoch
from deep_emotion_jax.training.optimizer import make_optimizer

EPOCHS, FACES = 10, 105


def train() -> np.ndarray:
    """The mean training loss of each of ten epochs of configs/fer2013.py without its teacher."""
    config = fer2013.get_config()
    config.recipe.teacher_share, config.recipe.batch_size, config.recipe.warmup_steps = 0.0, 16, 7
    experiment = read_settings(config)
    examples = [face.draw_example(0, index) for index in range(FACES)]
    images = np.stack([example.image for example in examples])[..., None]
    labels = np.array([example.label for example in examples], np.int32)
    model = DeepEmotion(**dataclasses.asdict(experiment.model), rngs=nnx.Rngs(0))
    # At the identity, where training starts, the grid lies on the kinks of bilinear sampling, and
    # rounding chooses the side of the gradient.
    model.localization.theta.bias[...] = jax.numpy.array([0.93, 0.05, 0.02, -0.04, 0.91, 0.03])
    steps = -(-FACES // experiment.recipe.batch_size)
    optimizer, _ = make_optimizer(experiment.recipe, EPOCHS, steps)
    mesh = data_mesh(jax.devices()[:1])
    epoch = jax.jit(make_epoch(model, optimizer, experiment.recipe, experiment.augmentation, mesh))
    state, losses = init_state(model, optimizer), []
    for number in range(1, EPOCHS + 1):
        key = jax.random.fold_in(jax.random.key(0), number)
        state, sums = epoch(state, key, np.arange(FACES), FACES, images, labels)
        losses.append(float(sums["loss"].mean()))
    return np.array(losses)


if __name__ == "__main__":
    np.save(Path(__file__).with_name("ten_epochs.npy"), train())
