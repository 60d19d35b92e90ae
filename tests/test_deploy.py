"""The programs of docs/deploy.md, which run the exported files without JAX."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
from commands import ROOT
from PIL import Image

from deep_emotion_jax import Predictor
from deep_emotion_jax.__main__ import main

for name in ("onnx", "onnxruntime"):
    pytest.importorskip(name, reason="the export extra is not installed")

NETWORK = "deep_emotion.fer2013"
WITHOUT_JAX = """
import json, sys
sys.path.insert(0, sys.argv[1])
from PIL import Image
from without_jax import Faces
print(json.dumps(list(Faces(sys.argv[2])(Image.open(sys.argv[3])))))
assert not {name.split(".")[0] for name in sys.modules} & {"jax", "flax", "deep_emotion_jax"}
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "fer.onnx"
    assert main(["export", f"--model={NETWORK}", "--onnx", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def picture():
    """A face, and a smaller one tilted by 25 degrees."""
    face = Image.fromarray(skimage.data.astronaut()[20:220, 120:320])
    picture = Image.new("RGB", (1400, 800), "gray")
    picture.paste(face.resize((600, 600)), (650, 60))
    picture.paste(face.resize((400, 400)).rotate(-25, Image.Resampling.BICUBIC), (80, 200))
    return picture


@pytest.fixture(scope="module")
def expected(picture):
    faces = Predictor.from_pretrained(NETWORK).predict(np.asarray(picture)).faces
    assert [face.expression for face in faces] == ["happy", "happy"]
    return faces


def check(found, expected):
    """The script uses other filters to shrink and rotate, so the values differ slightly."""
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got["box"], want.box, atol=0.01 * want.box.side)
        assert got["roll"] == pytest.approx(want.roll, abs=2)
        shares = list(got["probabilities"].values())
        assert list(got["probabilities"]) == list(want.probabilities)
        np.testing.assert_allclose(shares, list(want.probabilities.values()), atol=0.02)


def test_the_script_gives_the_same_predictions_without_jax(network, picture, expected, tmp_path):
    picture.save(tmp_path / "faces.png")
    paths = (ROOT / "examples", network, tmp_path / "faces.png")
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_JAX, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout), expected)


@pytest.fixture(scope="module")
def client(network):
    pytest.importorskip("fastapi", reason="the demo's extra is not installed")
    testclient = pytest.importorskip("fastapi.testclient")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples"))
        from service import create_app

        with testclient.TestClient(create_app(network)) as client:
            yield client


def encoded(picture, kind="JPEG", **options):
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def post(client, data, kind="image/jpeg"):
    return client.post("/faces", content=data, headers={"content-type": kind})


def test_the_service_gives_the_same_predictions(client, picture, expected):
    answer = post(client, encoded(picture, quality=95))
    assert answer.status_code == 200
    check(answer.json()["faces"], expected)
    assert post(client, encoded(picture, "PNG"), "image/png; x=1").status_code == 200
    empty = post(client, encoded(Image.new("RGB", (90, 60))))
    assert empty.json() == {"faces": []}


@pytest.mark.parametrize(
    ("data", "kind", "code", "word"),
    [
        (b"hello", "text/plain", 415, "image/jpeg, image/png, image/webp"),
        (b"hello", "image/jpeg", 400, "not a valid JPEG picture"),
        (b"", "image/png", 400, "not a valid PNG picture"),
        (encoded(Image.new("RGB", (64, 64)), "PNG"), "image/jpeg", 400, "not a valid JPEG picture"),
        (encoded(Image.new("RGB", (64, 64)))[:300], "image/jpeg", 400, "not a valid JPEG picture"),
        (bytes(11 << 20), "image/jpeg", 413, "10 MB"),
        (encoded(Image.new("1", (9000, 9000)), "PNG"), "image/png", 413, "50 million pixels"),
    ],
    ids=["type", "text", "empty", "other kind", "cut off", "too large", "unpacks to a lot"],
)
def test_the_service_refuses_other_content(client, data, kind, code, word):
    answer = post(client, data, kind)
    assert answer.status_code == code
    assert word in answer.json()["detail"]
    assert post(client, encoded(Image.new("RGB", (64, 64)))).status_code == 200  # it still answers
