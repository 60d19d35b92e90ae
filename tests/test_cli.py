"""The commands of `deep-emotion`: help, consistent options, and messages."""

import argparse
import re
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT, fails_here
from PIL import Image

import deep_emotion_jax
from deep_emotion_jax.__main__ import COMMANDS, main, make_parser
from deep_emotion_jax.cli import options


def subparsers():
    parser = make_parser()
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    assert set(action.choices) == set(COMMANDS)
    return action.choices


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_every_option_with_its_default_and_an_example(command):
    parser = subparsers()[command]
    assert f"deep-emotion {command}" in parser.description
    for action in parser._actions:
        assert action.help, action.dest
        switch = action.nargs == 0
        positional = not action.option_strings
        depends = action.dest == "detector_model"
        assert "default" in action.help or switch or positional or depends, action.dest
        assert all("_" not in name for name in action.option_strings)


def test_options_of_the_same_name_are_the_same_in_all_commands():
    found: dict = {}
    for command in subparsers().values():
        for action in command._actions:
            for name in action.option_strings:
                found.setdefault(name, set()).add((action.type, str(action.choices)))
    assert {name for name, kinds in found.items() if len(kinds) > 1} == set()


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["--version"]])
def test_help_and_version_are_fast(arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "deep_emotion_jax", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(re.findall(r"\| +([a-z_]+)$", done.stderr, re.MULTILINE))
    assert "argparse" in imported
    assert not imported & {"jax", "numpy", "flax", "PIL", "scipy"}
    if arguments == ["--version"]:
        assert done.stdout == f"deep-emotion {deep_emotion_jax.__version__}\n"


def test_paths_expand_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = make_parser().parse_args(
        ["predict", "a.jpg", "--save=~/out", "--model=~/a.safetensors"]
    )
    assert given.save == tmp_path / "out"
    assert given.model == str(tmp_path / "a.safetensors")
    assert options.network("deep_emotion.fer2013") == "deep_emotion.fer2013"
    with pytest.raises(argparse.ArgumentTypeError, match="no-such-user"):
        options.path("~no-such-user/out")


def test_a_url_gives_a_specific_message(capsys):
    url = "https://example.org/a.jpg"
    fails_here(capsys, "predict", url, words=(url, "download"))


def test_no_header_if_nothing_was_read(capsys, tmp_path):
    assert main(["predict", str(tmp_path / "absent.jpg"), "--csv"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "absent.jpg" in err


def test_an_unavailable_device_is_one_message(capsys, tmp_path):
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(tmp_path / "a.png")
    arguments = ("predict", tmp_path / "a.png", "--detector=none", "--device=tpu")
    fails_here(capsys, *arguments, words=("tpu", "cpu"))


def test_output_of_a_picture_outside_the_working_directory(capsys, monkeypatch, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "work").mkdir()
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(tmp_path / "pictures" / "a.jpg")
    monkeypatch.chdir(tmp_path / "work")
    picture = str(tmp_path / "pictures" / "a.jpg")
    assert main(["predict", picture, "--save=out", "--detector=none"]) == 0
    (made,) = (tmp_path / "work").rglob("*.faces.*")
    assert made.parent == tmp_path / "work" / "out"
    with Image.open(made) as image:
        assert image.format == "JPEG"
    assert str(made.relative_to(tmp_path / "work")) in capsys.readouterr().err
