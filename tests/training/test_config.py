"""Settings reject values that would fail, hang or have no effect, with one sentence."""

import dataclasses
import importlib
import inspect
import math

import jax
import pytest
from commands import ROOT, fails
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import default
from datasets.load import load_dataset
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.config import (
    RULES,
    Experiment,
    ModelSettings,
    check_settings,
    flat,
    read_settings,
)
from deep_emotion_jax.training.optimizer import make_optimizer

WILD = [
    *(None, "", "nonsense", "../x", "a\0b", "\x1b[31m", (), [1], {}, b"x", 1j, "1"),
    *(-1, 0, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.5, 1e-300, 1e308),
    *(math.nan, math.inf, -math.inf, True, False),
]


def changed(name, value):
    config = default.get_config()
    with config.unlocked(), config.ignore_type():
        *folders, leaf = name.split(".")
        place = config
        for folder in folders:
            place = place[folder]
        place[leaf] = value
    return config


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem
)
def test_our_own_configs_are_valid(path):
    if path.stem not in ("__init__", "command_line"):
        check_settings(importlib.import_module(f"configs.{path.stem}").get_config())


def test_the_default_config_has_a_rule_for_every_setting():
    assert flat(default.get_config()).keys() == RULES.keys()
    assert read_settings(default.get_config()) == Experiment()


def test_the_model_settings_are_the_arguments_of_the_network():
    arguments = inspect.signature(DeepEmotion.__init__).parameters.values()
    expected = {each.name: each.default for each in arguments if each.kind is each.KEYWORD_ONLY}
    del expected["rngs"]
    assert dataclasses.asdict(ModelSettings()) == expected


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", -1, "whole number from 0"),
        ("recipe.batch_size", 0, "from 1 to"),
        ("recipe.batch_size", 12.0, "whole number"),
        ("recipe.batch_size", 10**9, "from 1 to 65536"),
        ("recipe.learning_rate", math.nan, "more than 0"),
        ("recipe.learning_rate", 0.0, "more than 0"),
        ("recipe.learning_rate", math.inf, "at most"),
        ("recipe.warmup_steps", -1, "from 0"),
        ("recipe.weight_decay", -0.1, "from 0"),
        ("recipe.fc_l2", math.nan, "from 0"),
        ("recipe.label_smoothing", 1.0, "less than 1"),
        ("recipe.ema_decay", 1.0, "less than 1"),
        ("recipe.optimizer", "rmsprop", "'adam', 'sgd', 'muon'"),
        ("recipe.schedule", "linear", "'constant', 'cosine'"),
        ("num_epochs", 0, "from 1"),
        ("num_epochs", -1, "from 0"),
        ("num_steps", 3000, "num_epochs=60 and"),
        ("seconds_between_checkpoints", math.nan, "from 0"),
        ("model.width", 0.0, "from 0.1"),
        ("model.width", math.nan, "from 0.1"),
        ("model.width", 1e9, "to 32"),
        ("model.dropout", 1.0, "less than 1"),
        ("model.dropout", -0.1, "at least 0"),
        ("model.batch_norm", "yes", "True or False"),
        ("model.attention", "feature", "'features', 'middle', 'image', 'none'"),
        ("augmentation.flip", 1, "True or False"),
        ("augmentation.rotate", 400.0, "degrees"),
        ("augmentation.scale", 1.0, "less than 1"),
        ("augmentation.erase", math.nan, "from 0 to 1"),
        ("dataset", "../fer2013", "folder of datasets/"),
        ("data_dir", "", "path of a folder"),
        ("manual_dir", "a\0b", "text"),
        ("protocol", "subject", "'subjects'"),
    ],
)
def test_a_bad_value_gives_one_sentence(name, value, words):
    with pytest.raises(UserError) as error:
        check_settings(changed(name, value))
    assert f"config.{name}=" in str(error.value)
    assert words in str(error.value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(RULES)),
    value=st.sampled_from(WILD) | st.floats() | st.integers() | st.text(),
)
def test_valid_values_can_be_used(name, value):
    """A value is rejected in one sentence, or works in recipe, network and schedule."""
    config = changed(name, value)
    try:
        experiment = read_settings(config)
    except UserError:
        return
    assert flat(dataclasses.asdict(experiment)) == flat(config)
    _, rate = make_optimizer(experiment.recipe, experiment.epochs(7), steps=7)
    assert all(math.isfinite(rate(step)) for step in (0, 1, 20))
    nnx.eval_shape(
        lambda: DeepEmotion(7, **dataclasses.asdict(experiment.model), rngs=nnx.Rngs(config.seed))
    )
    jax.random.key(config.seed)


def test_the_length_is_set_in_epochs_or_in_steps():
    assert Experiment(num_epochs=9).epochs(4) == 9
    in_steps = Experiment(num_epochs=0, num_steps=3000)
    assert [in_steps.epochs(steps) for steps in (4, 7, 5000)] == [750, 429, 1]
    config = changed("num_epochs", 0)
    config.num_steps = 3000
    assert read_settings(config) == in_steps


def test_missing_and_unknown_settings():
    config = default.get_config()
    with config.unlocked():
        del config.recipe.fc_l2
    with pytest.raises(UserError, match=r"config\.recipe\.fc_l2 is missing"):
        check_settings(config)
    config = default.get_config()
    with config.unlocked():
        config.recipe.learning_rat = 1.0
    with pytest.raises(UserError, match=r"unknown setting config\.recipe\.learning_rat;"):
        check_settings(config)


def test_settings_are_checked_before_anything_is_read_or_written(tmp_path):
    fails(
        *("main.py", "--config=configs/fer2013.py", "--config.recipe.batch_size=0"),
        *(f"--workdir={tmp_path / 'run'}", f"--config.data_dir={tmp_path / 'data'}"),
        words=("config.recipe.batch_size=0 must be",),
    )
    assert not any(tmp_path.iterdir())


def test_an_unknown_dataset_config(tmp_path):
    config = changed("dataset", "fer2013")
    config.dataset_config = "ferplusplus"
    with pytest.raises(UserError, match=r"'ferplusplus' is none of \['default', 'ferplus'\]"):
        load_dataset(config)
    config.dataset = "synthetic_faces"
    with pytest.raises(UserError, match="'ferplusplus' is none of"):
        load_dataset(config)


def test_an_unknown_split_lists_the_splits(prepared):
    config = default.get_config()
    config.data_dir = str(prepared)
    with pytest.raises(UserError, match=r"no split 'tset'.*--split: train, validation, test"):
        load_dataset(config, ["tset"])
    _, splits, class_names, _ = load_dataset(config, ["validation"])
    assert {name: len(split.labels) for name, split in splits.items()} == {"validation": 35}
    assert len(class_names) == 7


def test_an_unknown_dataset_lists_the_datasets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'fer2031' is none of \['ck_plus', .*'synthetic_faces'\]"):
        load_dataset(changed("dataset", "fer2031"))
