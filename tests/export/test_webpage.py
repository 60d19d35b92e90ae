"""The static page in a visitor's browser gives the numbers of the Python package."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import skimage.data
from browser import chromium, hosts_asked
from commands import fails_here, run
from PIL import Image

from deep_emotion_jax import Predictor
from deep_emotion_jax.data.crop import Box
from deep_emotion_jax.data.detectors import FoundFace, whole_picture

for name in ("onnx", "onnxruntime"):
    pytest.importorskip(name, reason="the export extra is not installed")


@pytest.fixture(scope="module")
def browser():
    with chromium(1100, 900) as driver:
        yield driver


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """The address of the page that the command wrote, on a plain static server."""
    if not shutil.which("npm"):
        pytest.skip("no npm, which fetches ONNX Runtime for the page")
    folder = tmp_path_factory.mktemp("page")
    done = run("-m", "deep_emotion_jax", "export", "--web", folder)
    if "npm cannot fetch" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(condition)


def probabilities(browser):
    script = "return [...document.querySelectorAll('.bar')].map(b => +b.dataset.probability)"
    return browser.execute_script(script)


def expected(pixels, detector=whole_picture):
    (face,) = (
        Predictor.from_pretrained("deep_emotion.fer2013", detector, mirror=False)
        .predict(pixels)
        .faces
    )
    return face.expression, list(face.probabilities.values())


def upload(browser, path):
    browser.find_element("id", "file").send_keys(str(path))
    return wait(browser, lambda b: b.find_element("id", "expression").text.lower())


def test_a_visitor_gets_the_prediction_of_the_python_package(page, browser, tmp_path):
    astronaut = skimage.data.astronaut()
    framed = astronaut[50:191, 150:300]  # odd sides: the square begins at half a pixel
    alpha = np.full((512, 512, 1), 255, np.uint8)
    alpha[:, :90] = 0
    for name, pixels in {
        "framed": framed,
        "tall": astronaut[:, 100:351],
        "tiny": framed[40:71, 30:60],
        "transparent": np.concatenate([astronaut, alpha], -1),
    }.items():
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(path)
        browser.get(page)
        label, shares = expected(pixels)
        assert upload(browser, path) == label
        np.testing.assert_allclose(probabilities(browser), shares, atol=1e-4, err_msg=name)
        if name == "framed":
            assert label == "happy"
            assert "An expression is not a feeling" in browser.find_element("tag name", "body").text
            browser.save_screenshot(str(tmp_path / "page.png"))
    assert hosts_asked(browser) == {urlsplit(page).netloc}
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def test_the_square_can_be_moved(page, browser):
    browser.get(page)
    upload(browser, Path(skimage.data_dir) / "astronaut.png")
    before = probabilities(browser)
    browser.execute_script("""
        const size = document.getElementById('size'), picture = document.getElementById('picture');
        size.value = 25;
        size.dispatchEvent(new Event('input'));
        const box = picture.getBoundingClientRect();
        picture.setPointerCapture = () => {};
        picture.dispatchEvent(new PointerEvent('pointerdown', {
            buttons: 1, clientX: box.left + box.width * 224 / 512,
            clientY: box.top + box.height * 116 / 512}));
    """)
    wait(browser, lambda b: probabilities(b) != before)
    box = lambda _: [FoundFace(Box(160, 52, 128))]  # noqa: E731
    label, shares = expected(skimage.data.astronaut(), box)
    wait(browser, lambda b: abs(np.subtract(probabilities(b), shares)).max() < 0.01)
    assert label == "happy"


def test_a_file_that_is_no_picture_is_one_message(page, browser, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    browser.get(page)
    wait(browser, lambda b: "Loading" not in b.find_element("id", "status").text)
    browser.find_element("id", "file").send_keys(str(tmp_path / "notes.txt"))
    wait(browser, lambda b: "notes.txt is not a picture" in b.find_element("id", "status").text)
    assert not browser.find_element("id", "answer").is_displayed()


def test_without_npm_the_message_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    fails_here(capsys, "export", "--web", tmp_path / "page", words=("npm", "Node.js"))
