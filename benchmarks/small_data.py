r"""Failure rate of the recipe for small data, over many trainings on a few hundred faces each.

    python -m benchmarks.small_data                                   # generated faces
    python -m benchmarks.small_data --fer2013 FILE_OR_FOLDER          # and subsets of FER-2013
    python -m benchmarks.small_data --set recipe.learning_rate=1e-3   # another recipe

Every training samples its own faces, from a few generated people or from FER-2013's training split,
with original or balanced classes. It uses the settings of configs/small_data.py or another config,
and is scored on its own training faces without augmentation and on those of other people (FER-2013:
other training faces). A run has failed if its training accuracy is below 95 %. Trainings of one
size run as one program; dead runs are not restarted, so that failures are counted.
"""

import dataclasses
import importlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import common
from datasets.load import load_dataset
from datasets.synthetic_faces import face
from deep_emotion_jax.constants import LABELS
from deep_emotion_jax.evaluation.health import check_health
from deep_emotion_jax.nn.logits import assemble, predict_logits
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.weights import start_from
from deep_emotion_jax.pretrained import load_pretrained
from deep_emotion_jax.training.batching import steps_per_epoch
from deep_emotion_jax.training.config import Experiment, read_settings
from deep_emotion_jax.training.epoch import TrainState, for_each_run, init_state, make_epoch
from deep_emotion_jax.training.optimizer import make_optimizer

FAILED = 0.95
TEST_FACES = 700
FIRST_PERSON = 1000  # not among the people of datasets/synthetic_faces
PEOPLE = 40


class Draw(NamedTuple):
    """One training: the source of its faces, and indices of training and test faces."""

    source: str
    seed: int
    train: np.ndarray
    test: np.ndarray


def generated_faces() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images, labels and people of 1,400 faces that are not in the dataset."""
    first = FIRST_PERSON * face.FACES_PER_SUBJECT
    some = range(first, first + PEOPLE * face.FACES_PER_SUBJECT)
    examples = [face.draw_example(0, index) for index in some]
    return (
        np.stack([example.image for example in examples])[..., None],
        np.array([example.label for example in examples], np.int32),
        np.array([example.subject for example in examples]),
    )


def fer2013_faces(manual_dir: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels of FER-2013's training split."""
    config = importlib.import_module("configs.fer2013").get_config()
    config.manual_dir = manual_dir
    splits = load_dataset(config, ["train"]).splits
    return splits["train"].images, splits["train"].labels


def draw_people(people: np.ndarray, count: int, seed: int) -> Draw:
    """Samples `count` training faces of few people, and test faces of the others."""
    random = np.random.default_rng(seed)
    known = random.permutation(np.unique(people))[: min(28, max(9, count // 20))]
    inside = np.isin(people, known)
    train = random.permutation(np.flatnonzero(inside))[:count]
    return Draw("generated", seed, train, random.permutation(np.flatnonzero(~inside))[:TEST_FACES])


def draw_subset(labels: np.ndarray, count: int, seed: int, *, balanced: bool) -> Draw:
    """Samples `count` training faces, with equal classes if `balanced`, and other test faces."""
    order = np.random.default_rng(seed).permutation(len(labels))
    train = order[:count]
    if balanced:
        classes = np.unique(labels)
        share = -(-count // len(classes))
        of_class = [order[labels[order] == label][:share] for label in classes]
        train = np.concatenate(of_class)[:count]
    test = order[~np.isin(order, train)][:TEST_FACES]
    return Draw("FER-2013, balanced" if balanced else "FER-2013", seed, train, test)


def train_all(
    experiment: Experiment, images: np.ndarray, labels: np.ndarray, draws: Sequence[Draw]
) -> tuple[list[DeepEmotion], np.ndarray]:
    """Trains on each draw without validation; all draws have the same size.

    Returns:
      The networks with their final averaged weights, and the mean training loss [draws, epochs].
    """
    models = [
        DeepEmotion(**dataclasses.asdict(experiment.model), rngs=nnx.Rngs(draw.seed))
        for draw in draws
    ]
    if experiment.init_from:
        for model in models:
            start_from(model, LABELS, load_pretrained(experiment.init_from))
    count = len(draws[0].train)
    steps = steps_per_epoch(count, experiment.recipe.batch_size)
    epochs = experiment.epochs(steps)
    optimizer, _ = make_optimizer(experiment.recipe, epochs, steps)
    mesh = common.make_mesh()
    program = for_each_run(
        make_epoch(models[0], optimizer, experiment.recipe, experiment.augmentation, mesh)
    )
    starts = [init_state(model, optimizer) for model in models]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    roots = jax.vmap(jax.random.key)(np.array([draw.seed for draw in draws]))
    index = np.stack([draw.train for draw in draws])

    # All epochs are one program, because there can be a thousand of four steps each.
    @jax.jit
    def train(state: TrainState, *shared: jax.Array) -> tuple[TrainState, jax.Array]:
        def epoch(state: TrainState, number: jax.Array) -> tuple[TrainState, jax.Array]:
            keys = jax.vmap(jax.random.fold_in, (0, None))(roots, number)
            own = (state, keys, index, np.full(len(draws), count))
            state, sums = program(own, shared)
            return state, sums["loss"].mean(1)

        return jax.lax.scan(epoch, state, jnp.arange(1, epochs + 1))

    state, losses = jax.device_get(train(state, images, labels))
    weights = [
        jax.tree.map(lambda leaf, i=i: leaf[i], (state.ema, state.stats)) for i in range(len(draws))
    ]
    return [assemble(model, *own) for model, own in zip(models, weights, strict=True)], losses.T


def score(model: DeepEmotion, images: np.ndarray, labels: np.ndarray, draw: Draw) -> dict[str, Any]:
    """Returns a network's accuracies on its training faces and on others, and its health."""
    right = {
        part: float(np.mean(predict_logits(model, images[some]).argmax(1) == labels[some]))
        for part, some in (("train", draw.train), ("test", draw.test))
    }
    health = check_health(model, images[draw.train[:300]])
    return (
        {"faces": draw.source, "count": len(draw.train), "seed": draw.seed}
        | right
        | {"problem": health.problem}
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Formats a Markdown table with one row per source and number of faces, and the sum."""
    cells = defaultdict(list)
    for row in rows:
        cells[row["faces"], row["count"]].append(row)
    lines = [
        "| faces | trained on | runs | failed | own faces %, lowest | mean "
        "| other faces %, lowest | mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (source, count), some in cells.items():
        own, other = (np.array([row[part] for row in some]) * 100 for part in ("train", "test"))
        failed = sum(row["train"] < FAILED for row in some)
        lines.append(
            f"| {source} | {count} | {len(some)} | {failed} | {own.min():.1f} | {own.mean():.1f} "
            f"| {other.min():.1f} | {other.mean():.1f} |"
        )
    failed = sum(row["train"] < FAILED for row in rows)
    return "\n".join([*lines, f"| **all** | | {len(rows)} | **{failed}** | | | | |"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains on all draws, prints the table and writes small_data.json."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("--fer2013", help="the download; see datasets/fer2013/README.md")
    parser.add_argument("--config", default="small_data", help="a file of configs/")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings")
    parser.add_argument("--sizes", nargs="+", type=int, default=[120, 300, 800])
    parser.add_argument("--seeds", type=int, default=6, help="trainings of each source and size")
    options = parser.parse_args(arguments)
    config = importlib.import_module(f"configs.{options.config}").get_config()
    config.update_from_flattened_dict(
        {
            name: json.loads(value)
            for name, _, value in (each.partition("=") for each in options.set)
        }
    )
    if options.quick:
        config.num_steps, options.sizes, options.seeds = 8, [30], 2
    experiment = read_settings(config)

    images, labels, people = generated_faces()
    generated = len(labels)
    if options.fer2013:
        more = fer2013_faces(options.fer2013)
        images, labels = np.concatenate([images, more[0]]), np.concatenate([labels, more[1]])
    rows = []
    for count in options.sizes:
        draws = [draw_people(people, count, seed) for seed in range(options.seeds)]
        if options.fer2013:
            for balanced in (False, True):
                for seed in range(options.seeds):
                    draw = draw_subset(labels[generated:], count, seed, balanced=balanced)
                    shifted = draw.train + generated, draw.test + generated
                    draws.append(Draw(draw.source, seed, *shifted))
        models, losses = train_all(experiment, images, labels, draws)
        for model, loss, draw in zip(models, losses, draws, strict=True):
            row = score(model, images, labels, draw)
            rows.append(
                row | {"loss": [float(value) for value in loss[:: max(1, len(loss) // 50)]]}
            )
        print(table(rows), flush=True)
        common.write_json(options.results, "small_data", config.to_dict(), rows)


if __name__ == "__main__":
    main()
