"""The wheel holds only the package and works; the pins of CI fit the requirements."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import setuptools
from commands import ROOT
from packaging.requirements import Requirement
from PIL import Image

import deep_emotion_jax

FOLDERS = ("deep_emotion_jax", "datasets", "configs", "tests", "benchmarks")
FILES = ("pyproject.toml", "README.md", "LICENSE", "requirements.txt", "main.py", "eval.py")


def requirements(file):
    """Returns the lines of a requirements file that name a package."""
    lines = (ROOT / file).read_text().splitlines()
    return [line for line in lines if not line.startswith(("#", "-r"))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the repository, without pip and network."""
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("needs setuptools 77: pip install -r requirements-dev.txt")
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, copy)
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def test_contents_of_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    # Other projects have top-level packages `datasets`, `configs` and `tests`, too.
    tops = {name.split("/")[0] for name in names}
    assert tops == {"deep_emotion_jax", metadata.split("/")[0]}
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "deep_emotion_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("deep_emotion_jax/")} == ours
    assert any(name.endswith(".safetensors") for name in ours)
    assert "deep_emotion_jax/py.typed" in ours
    assert "License-Expression: Apache-2.0" in text
    assert any(name.endswith("licenses/LICENSE") for name in names)
    required = {line.split(": ")[1] for line in text.splitlines() if line.startswith("Requires-Di")}
    for line in requirements("requirements.txt"):
        wanted = Requirement(line)
        assert any(
            (wanted.name, wanted.specifier) == (found.name, found.specifier)
            and (found.marker is None or found.marker.evaluate({"extra": "train"}))
            for found in map(Requirement, required)
        ), line


def test_nothing_in_the_wheel_is_pickled_or_executable(wheel):
    kinds = {".py", ".typed", ".md", ".html", ".js", ".css", ".safetensors"}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if ".dist-info/" in entry.filename:
                continue
            assert os.path.splitext(entry.filename)[1] in kinds, entry.filename
            assert not entry.external_attr >> 16 & 0o111, f"{entry.filename} is executable"
            start = archive.read(entry)[:4]
            assert start[:2] not in (b"\x80\x04", b"\x80\x05", b"MZ", b"PK"), entry.filename
            assert start not in (b"\x7fELF", b"\xcf\xfa\xed\xfe"), entry.filename


def test_the_lock_holds_the_pins_with_hashes():
    """`pip install --require-hashes -r requirements.lock` installs what CI tests."""
    text = (ROOT / "requirements.lock").read_text()
    entries = [entry for entry in text.replace("\\\n", "").splitlines() if "==" in entry]
    pins = [entry.split(" --hash")[0].strip() for entry in entries]
    assert pins == requirements("constraints.txt")
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_wheel_predicts_without_the_repository(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    Image.new("L", (48, 48), 90).save(tmp_path / "face.png")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "deep_emotion_jax",
            "predict",
            "face.png",
            "--detector=none",
            "--json",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["faces"]) == 1


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_pins_fit_the_requirements(python, platform):
    """Each requirement has a pin within its range on every Python and system."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform,
    }
    pins = [Requirement(line) for line in requirements("constraints.txt")]
    chosen = {
        pin.name.lower(): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(environment)
    }
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in requirements(file):
            wanted = Requirement(line)
            name = wanted.name.lower().replace("_", "-")
            assert wanted.specifier.contains(chosen[name]), line


def test_requirements_files_repeat_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    base, train, dev = project["dependencies"], extras["train"], extras["dev"]
    assert requirements("requirements.txt") == sorted([*base, *train], key=str.lower)
    own, *rest = dev
    assert own == "deep-emotion-jax[train,demo,export,video]"
    tested = [*rest, *extras["demo"], *extras["export"], *extras["video"]]
    assert requirements("requirements-dev.txt") == sorted(tested, key=str.lower)


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {deep_emotion_jax.__version__}\n" in citation
    assert f"\n## {deep_emotion_jax.__version__} " in (ROOT / "CHANGELOG.md").read_text()
