"""The static page gives the predictions of the Python package in a browser."""

import base64
import io
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import skimage.data
from browser import hosts_asked
from commands import fails_here
from PIL import Image

from deep_emotion_jax import Predictor
from deep_emotion_jax.data.crop import Box, crop
from deep_emotion_jax.data.detectors import FoundFace

CARDS = """
    return [...document.querySelectorAll('.card')].map(card => [
        card.querySelector('.expression').lastChild.textContent,
        [...card.querySelectorAll('.bar')].map(bar => +bar.dataset.probability)])
"""
# Crops the base64 RGB picture of the arguments with the page's code.
CUT = """
    const [text, width, height, box, roll, size, grey, done] = arguments;
    const data = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    import('./crop.js').then(({ crop }) => {
        const [left, top, side] = box;
        const picture = { data, width, height, channels: 3 };
        done(Array.from(crop(picture, { left, top, side }, roll, size, grey).data));
    });
"""
# Returns a frame of the camera as PNG, and the faces that the page's code finds in it.
LOOK = """
    const done = arguments[0];
    (async () => {
        const { Camera } = await import('./source.js');
        const { Analysis } = await import('./analysis.js');
        const camera = new Camera();
        await camera.start();
        const frame = camera.frame();
        camera.stop();
        const faces = await (await Analysis.load()).faces(frame, { quick: true });
        const bytes = new Uint8Array(await (await frame.canvas.convertToBlob()).arrayBuffer());
        const png = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
        done([png, faces.map(({ probabilities }) => probabilities)]);
    })().catch((error) => done(String(error)));
"""


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained()


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(condition)


def status(browser):
    return browser.find_element("id", "status").text


def shares(face):
    return list(face.probabilities.values())


def upload(browser, page, path):
    """Open the page, choose a file, and wait for the faces' expressions and probabilities."""
    browser.get(page)
    browser.find_element("id", "file").send_keys(str(path))
    wait(browser, lambda b: b.find_element("id", "picture").is_displayed())
    return browser.execute_script(CARDS)


def two_faces():
    """A face, and a smaller one tilted by 25 degrees."""
    face = Image.fromarray(skimage.data.astronaut()[20:220, 120:320])
    picture = Image.new("RGB", (620, 400), "gray")
    picture.paste(face.resize((300, 300)), (290, 30))
    picture.paste(face.rotate(-25, Image.Resampling.BICUBIC), (40, 100))
    return np.asarray(picture)


def test_uploads_get_the_predictions_of_the_python_package(page, browser, predictor, tmp_path):
    astronaut = skimage.data.astronaut()
    alpha = np.full((512, 512, 1), 255, np.uint8)
    alpha[:, :90] = 0
    for name, pixels in {
        "whole": astronaut,
        "large": np.asarray(Image.fromarray(astronaut).resize((1500, 1500))),
        "face": astronaut[66:170, 172:276],  # found with a border
        "two": two_faces(),
        "transparent": np.concatenate([astronaut, alpha], -1),
    }.items():
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(path)
        expected = predictor.predict(pixels).faces
        found = upload(browser, page, path)
        assert len(found) == len(expected) == (2 if name == "two" else 1)
        for (label, probabilities), face in zip(found, expected, strict=True):
            assert label == face.expression == "happy"
            np.testing.assert_allclose(probabilities, shares(face), atol=0.01, err_msg=name)
        if name == "two":
            assert abs(expected[1].roll) > 15
            browser.save_screenshot(str(tmp_path / "page.png"))
    assert "An expression is not a feeling" in browser.find_element("tag name", "body").text
    assert hosts_asked(browser) == {urlsplit(page).netloc}
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


@pytest.mark.parametrize("roll", [0.0, 17.0, -160.0])
@pytest.mark.parametrize("size", [48, 320])
def test_the_page_crops_as_python_does(page, browser, roll, size):
    """Fractional, large, tiny and overlapping boxes give the integers of Pillow."""
    if browser.current_url != page:
        browser.get(page)
    picture = np.ascontiguousarray(skimage.data.astronaut()[:300, 100:420])
    text = base64.b64encode(picture.tobytes()).decode()
    for box in (Box(72.5, 66.25, 103.7), Box(-40, 200, 180), Box(3, 4, 7.5), Box(-100, -90, 500)):
        grey = size == 48
        arguments = (text, 320, 300, list(box), roll, size, grey)
        cut = np.array(browser.execute_async_script(CUT, *arguments))
        expected = crop(picture, box, roll, size=size, grey=grey).ravel()
        difference = np.abs(cut - expected)
        assert difference.max() <= (1 if roll else 0), box
        assert (difference > 0).mean() < 0.1


def test_camera_frames_get_the_predictions_of_the_python_package(page, browser, predictor):
    browser.get(page)
    wait(browser, lambda b: b.find_element("id", "camera").is_enabled())
    found = browser.execute_async_script(LOOK)
    assert isinstance(found, list), found
    png, (probabilities,) = found
    with Image.open(io.BytesIO(base64.b64decode(png))) as frame:
        assert frame.size == (640, 480)
        (face,) = predictor.predict(np.asarray(frame.convert("RGB"))).faces
    assert face.expression == "happy"
    np.testing.assert_allclose(probabilities, shares(face), atol=0.01)


def test_the_camera_starts_and_stops(page, browser):
    browser.get(page)
    wait(browser, lambda b: b.find_element("id", "camera").is_enabled())
    browser.find_element("id", "camera").click()
    wait(browser, lambda b: [name for name, _ in b.execute_script(CARDS)] == ["happy"])
    speed = "return document.getElementById('speed').dataset.milliseconds"
    first = browser.execute_script(speed)
    wait(browser, lambda b: b.execute_script(speed) != first)  # another frame
    browser.find_element("id", "camera").click()
    assert browser.find_element("id", "camera").text == "Use the camera"
    wait(browser, lambda b: b.find_element("id", "hand").is_displayed())


def test_a_face_can_be_framed_by_hand(page, browser, predictor):
    upload(browser, page, Path(skimage.data_dir) / "coffee.png")
    assert "No face found" in status(browser)
    upload(browser, page, Path(skimage.data_dir) / "astronaut.png")
    before = browser.execute_script(CARDS)
    browser.find_element("id", "hand").click()
    wait(browser, lambda b: b.execute_script(CARDS) != before)
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
    by_hand = Predictor.from_pretrained(detector=lambda _: [FoundFace(Box(160, 52, 128))])
    (face,) = by_hand.predict(skimage.data.astronaut()).faces
    assert face.expression == "happy"

    def agrees(driver):
        ((_, probabilities),) = driver.execute_script(CARDS)
        return abs(np.subtract(probabilities, shares(face))).max() < 0.01

    wait(browser, agrees)


def test_a_file_that_is_not_a_picture_is_one_message(page, browser, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    browser.get(page)
    wait(browser, lambda b: "Loading" not in status(b))
    browser.find_element("id", "file").send_keys(str(tmp_path / "notes.txt"))
    wait(browser, lambda b: "notes.txt is not a picture" in status(b))
    assert not browser.find_element("id", "answer").is_displayed()


def test_the_content_security_policy_allows_only_the_own_server(page, browser):
    asked = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.handle_request, daemon=True).start()
        browser.get(page)
        script = """
            const [address, done] = arguments;
            const image = new Image();
            image.src = address;
            fetch(address, { mode: 'no-cors' }).then(() => done('sent'), () => done('refused'));
        """
        address = f"http://127.0.0.1:{other.server_port}/secret"
        assert browser.execute_async_script(script, address) == "refused"
        assert asked == []


def test_the_networks_fit_into_two_megabytes(folder):
    assert sum(path.stat().st_size for path in folder.glob("*.onnx")) < 2_000_000


def test_without_npm_the_message_says_what_to_install(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    monkeypatch.setenv("PATH", "")
    model = "--model=deep_emotion.fer2013"
    fails_here(capsys, "export", model, "--web", tmp_path / "page", words=("npm", "Node.js"))
