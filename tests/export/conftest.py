"""The static page on a plain server, and a browser with a camera that shows a file."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import skimage.data
from browser import chromium
from commands import run
from PIL import Image


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """The video of the browser's camera: a motion JPEG of one frame, 640 x 480."""
    frame = Image.new("RGB", (640, 480), "gray")
    frame.paste(Image.fromarray(skimage.data.astronaut()).resize((480, 480)), (80, 0))
    path = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    frame.save(path, "JPEG", quality=95)
    return path


@pytest.fixture(scope="module")
def browser(camera):
    flags = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream")
    with chromium(1100, 900, *flags, f"use-file-for-fake-video-capture={camera}") as driver:
        driver.set_script_timeout(60)
        yield driver


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page that the command wrote."""
    pytest.importorskip("onnx", reason="the export extra is not installed")
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    if not shutil.which("npm"):
        pytest.skip("no npm, which fetches ONNX Runtime for the page")
    folder = tmp_path_factory.mktemp("page")
    done = run("-m", "deep_emotion_jax", "export", "--web", folder)
    if "npm cannot fetch" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def page(browser, folder):
    """The page's address."""
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
