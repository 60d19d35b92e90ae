"""The command line of training: overrides of settings, and messages for user errors."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

from configs.command_line import SETTINGS_HELP, read_config
from deep_emotion_jax.errors import UserError


def test_overrides_are_converted_to_the_types_of_the_settings():
    config, name = read_config(
        str(ROOT / "configs/fer2013.py"),
        [
            *("--config.num_epochs=3", "--config.recipe.learning_rate", "1e-2"),
            *("--config.model.batch_norm", "--config.augmentation.flip=False"),
            *("--config.manual_dir", "a=b", "--config.seed=7", "--config.dataset_config="),
        ],
    )
    assert name == "fer2013"
    assert (config.num_epochs, config.recipe.learning_rate, config.seed) == (3, 0.01, 7)
    assert config.model.batch_norm is True
    assert config.augmentation.flip is False
    assert (config.manual_dir, config.dataset_config, config.data_dir) == ("a=b", "", "data")


def test_a_length_replaces_the_length_in_the_other_unit():
    small = str(ROOT / "configs/small_data.py")
    assert read_config(small)[0].num_steps > 0
    config, _ = read_config(small, ["--config.num_epochs=3"])
    assert (config.num_epochs, config.num_steps) == (3, 0)
    config, _ = read_config(None, ["--config.num_steps", "5"])
    assert (config.num_epochs, config.num_steps) == (0, 5)
    with pytest.raises(UserError, match="both set the length"):
        read_config(None, ["--config.num_steps=5", "--config.num_epochs=3"])


def test_the_default_config():
    config, name = read_config(None)
    assert (config.dataset, name) == ("synthetic_faces", "synthetic_faces")


def test_a_tilde_is_expanded_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.py").write_text("from configs.default import get_config\n")
    names = ("manual_dir", "data_dir", "init_from", "teacher")
    arguments = [f"--config.{name}=~/x.safetensors" for name in names]
    config, name = read_config("~/own.py", arguments)
    assert name == "own"
    assert {config[each] for each in names} == {str(tmp_path / "x.safetensors")}
    assert read_config(None)[0].manual_dir == ""


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.recipe.batch_size=many", r"config\.recipe\.batch_size='many' must be a whole"),
        ("--config.recipe.batch_size=1.5", r"config\.recipe\.batch_size='1\.5' must be a whole"),
        ("--config.recipe.batch_size", r"config\.recipe\.batch_size without a value must be"),
        ("--config.model.batch_norm=maybe", r"config\.model\.batch_norm='maybe' must be True or"),
        ("--config.model.dropout=nan", r"config\.model\.dropout=nan must be at least 0"),
        ("--config.recipe.learning_rat=1", r'learning_rat\. Did you mean "recipe\.learning_rate"'),
        ("--config.recipe=1", r"unknown setting config\.recipe"),
        ("--config.x.y.z=1", r"unknown setting config\.x\.y\.z"),
        ("--wordkir=x", "unexpected option '--wordkir=x'"),
        ("runs/x", "unexpected argument 'runs/x'"),
    ],
)
def test_an_invalid_argument_gives_one_sentence(argument, words):
    with pytest.raises(UserError, match=words):
        read_config(None, [argument])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:", "SyntaxError"),
        ("x = 1", "get_config"),
        ("def get_config():\n    return {}['a']", "KeyError: 'a'"),
        (
            "from configs import default\ndef get_config():\n"
            "    config = default.get_config()\n    config.sead = 1\n    return config",
            "sead",
        ),
    ],
)
def test_a_config_that_fails_gives_one_sentence(tmp_path, text, words):
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"own\.py cannot be read: .*{words}|config\.{words}"):
        read_config(str(file))


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_quick_and_shows_all_options(flag):
    code = (
        f"import sys, main\ntry: main.main([{flag!r}])\nexcept SystemExit as end: print(end.code)\n"
        "print(sorted({'jax', 'flax', 'tensorflow_datasets', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\n0\n[]\n")
    for words in ("--workdir", "--accept-changes", "--distributed", "--config.NAME=VALUE"):
        assert words in done.stdout
    assert "accept_changes" not in done.stdout


def test_the_file_named_by_the_help_exists():
    (named,) = (word for word in SETTINGS_HELP.split() if word.endswith(".py"))
    assert Path(ROOT, named).is_file()
