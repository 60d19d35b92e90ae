"""Damaged and hostile files are read or refused with one line; tests/fuzz has a longer form."""

import re
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT
from fuzz.hostile import cases
from fuzz.targets import TARGETS, DefectError, check, damaged, valid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deep_emotion_jax.errors import LONGEST, UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of odd tags


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "predict, array"])
def test_undamaged_files_are_read(name, tmp_path):
    """The test of damaged files needs valid ones. (Any bytes are a valid array.)"""
    ends = [check(TARGETS[name].lay(tmp_path, seed), tmp_path) for seed in valid(name)]
    assert "read" in ends


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=30,
    derandomize=True,  # the longer form explores
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rng=st.randoms(use_true_random=True))
def test_damaged_files(name, tmp_path, rng):
    check(damaged(name, tmp_path, rng), tmp_path)


@pytest.mark.parametrize("lay", [pytest.param(lay, id=name) for name, lay in cases()])
def test_attacks(lay, tmp_path):
    check(lay(tmp_path), tmp_path)


def test_the_check_detects_defects(tmp_path):
    def fails():
        raise KeyError("x")

    def refuses():
        raise UserError("")

    for case, words in (
        (fails, "KeyError"),
        (refuses, "no clear message"),
        (lambda: (tmp_path / "a").touch(), "wrote"),
    ):
        with pytest.raises(DefectError, match=words):
            check(case, tmp_path)


def test_messages_are_short_and_escaped():
    text = str(UserError(f"a\x1b[31mb\nc{'d' * 9999}\udcffe"))
    assert text.startswith(r"a\x1b[31mb" + "\nc")
    assert text.endswith(r"d\udcffe")
    assert len(text) < LONGEST + 50
    assert len(str(UserError("\0" * 999))) < LONGEST + 50


def test_the_code_has_no_pickle_or_eval():
    """No pickle or similar format, in this package or in NumPy's loading."""
    sources = [
        path
        for folder in ("deep_emotion_jax", "datasets", "configs", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]
    kin = r"\b(pickle|cloudpickle|dill|joblib|shelve|marshal|yaml)\b|(?<!\.)\b(eval|exec)\("
    for path in [*sources, ROOT / "main.py", ROOT / "eval.py"]:
        code = re.sub(r'#.*|"""[\s\S]*?"""', "", path.read_text())
        assert not re.search(kin, code), path
        assert not re.search(r"np\.(load|save)\(", code), f"{path}: NumPy's files can hold pickles"
    assert len(sources) > 40


def test_loading_weights_never_imports_pickled_objects(tmp_path):
    """Loads the shipped weights in a process in which every unpickler fails."""
    program = """
import pickle, _pickle
def refuse(*_, **__): raise SystemExit("unpickled")
import deep_emotion_jax
from deep_emotion_jax.nn.weights import load_model
pickle.load = pickle.loads = _pickle.load = _pickle.loads = refuse
pickle.Unpickler = _pickle.Unpickler = pickle._Unpickler = refuse
deep_emotion_jax.load_pretrained("deep_emotion.fer2013")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for path in (ROOT / "tests" / "golden").glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            for name in file:
                assert file[name].dtype != object
