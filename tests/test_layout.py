"""Imports between the parts of the package go in one direction; the base install is enough.

Imports are read from the source, so those inside functions count as well.
"""

import ast
import subprocess
import sys

import pytest
from commands import ROOT

PACKAGE = ROOT / "deep_emotion_jax"
# A part may import the parts of lower ranks and itself.
RANKS = {
    "errors": 0,
    "constants": 0,
    "files": 0,
    "nn": 1,
    "data": 1,
    "attribution": 2,
    "pretrained": 2,
    "runtime": 2,
    "inference": 3,
    "evaluation": 4,
    "training": 5,
    "export": 5,
    "cli": 6,
    "__main__": 7,
    "__init__": 7,
}
BASE_PARTS = ("errors", "constants", "files", "nn", "data", "attribution", "pretrained")
BASE_PARTS += ("inference", "cli", "__main__", "__init__")
TRAIN_ONLY = {
    *("absl", "array_record", "etils", "grain", "importlib_resources", "jinja2"),
    *("matplotlib", "ml_collections", "optax", "orbax", "sklearn", "tabulate", "tensorboardX"),
    "tensorflow_datasets",
}
# Flax itself imports optax.
BLOCKED = TRAIN_ONLY - {"absl", "etils", "optax"} | {"av", "cv2", "gradio", "onnx", "onnxruntime"}

PREDICT_AND_SAMPLE = f"""
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())

import numpy as np
from deep_emotion_jax import DeepEmotion, Predictor, affine_grid, grid_sample, load_pretrained

prediction = Predictor.from_pretrained("deep_emotion.fer2013").predict(np.zeros((60, 60), np.uint8))
grid = affine_grid(np.eye(2, 3, dtype=np.float32)[None], (4, 4))
assert grid_sample(np.ones((1, 4, 4, 1), np.float32), grid).shape == (1, 4, 4, 1)

from deep_emotion_jax.__main__ import main

sys.exit(main(["predict", sys.argv[1], "--detector=none", "--save", sys.argv[2]]))
"""


def modules(part):
    path = PACKAGE / part
    files = path.rglob("*.py") if path.is_dir() else [PACKAGE / f"{part}.py"]
    return sorted(file for file in files if file.exists())


def imports(path, everywhere=True):
    """Full names that a file imports: anywhere in it, or only at its top level."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_part_has_a_rank():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__pycache__", "py"} <= RANKS.keys()


@pytest.mark.parametrize("part", RANKS)
def test_no_part_imports_a_higher_one(part):
    for path in modules(part):
        for name in imports(path):
            top, _, rest = name.partition(".")
            assert top not in ("datasets", "configs", "main", "eval", "benchmarks", "tests"), path
            if top == "deep_emotion_jax":
                other = rest.partition(".")[0]
                if other in RANKS:  # else a name of the package itself
                    allowed = other == part or RANKS[other] < RANKS[part]
                    assert allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("part", BASE_PARTS)
def test_the_base_parts_import_nothing_of_the_extra_train(part):
    for path in modules(part):
        found = {name.partition(".")[0] for name in imports(path, everywhere=False)}
        assert not found & TRAIN_ONLY, f"{path.relative_to(ROOT)}: {found & TRAIN_ONLY}"


def test_the_base_install_predicts_and_samples(tmp_path):
    from PIL import Image

    Image.new("L", (48, 48), 90).save(tmp_path / "face.png")
    done = subprocess.run(
        [sys.executable, "-c", PREDICT_AND_SAMPLE, tmp_path / "face.png", tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").rglob("*.png"))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import deep_emotion_jax", ("jax", "numpy", "flax")),
        ("from deep_emotion_jax import affine_grid, grid_sample", ("flax", "optax", "PIL")),
        ("import deep_emotion_jax.nn.spatial_transformer", ("flax", "optax", "PIL")),
        ("import deep_emotion_jax.__main__", ("jax", "numpy", "flax")),
    ],
)
def test_imports_do_not_load_other_parts(statement, absent):
    code = f"{statement}; import sys; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_public_names_exist():
    import deep_emotion_jax

    for name in deep_emotion_jax.__all__:
        assert getattr(deep_emotion_jax, name).__name__ == name
    assert set(deep_emotion_jax.__all__) <= set(dir(deep_emotion_jax))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = deep_emotion_jax.no_such_name


def test_functions_have_fewer_than_sixty_lines():
    paths = [ROOT / "main.py", ROOT / "eval.py"]
    for folder in ("deep_emotion_jax", "datasets", "configs", "benchmarks", "examples"):
        paths += [path for path in (ROOT / folder).rglob("*.py") if "_test" not in path.name]
    long = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= 60
    ]
    assert long == []
