"""The web page of the demo command, in a browser."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import skimage.data
from browser import chromium, hosts_asked
from commands import ROOT, fails_here
from PIL import Image

pytest.importorskip("gradio", reason="the demo's extra is not installed")
httpx = pytest.importorskip("httpx")

from deep_emotion_jax.__main__ import main  # noqa: E402 (needs gradio)

SECONDS = 120


@contextlib.contextmanager
def served(*program):
    """Yields the address of a page served by `python PROGRAM PORT`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *program, str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stdout.close()


@pytest.fixture(scope="module")
def server():
    """The page's address, and the folder of its uploads."""
    with served("-m", "deep_emotion_jax", "demo", "--port") as url:
        sample = re.search(r'gradio_api/file=([^"]+?)/[0-9a-f]+/astronaut.png', httpx.get(url).text)
        folder = Path(sample[1])
        assert folder.is_dir()
        yield url, folder
    assert not folder.exists()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser with a camera that shows the astronaut."""
    camera = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    frame = Image.fromarray(skimage.data.astronaut()).resize((640, 480))
    frame.save(camera, "JPEG", quality=95)
    flags = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream")
    with chromium(1280, 1400, *flags, f"use-file-for-fake-video-capture={camera}") as driver:
        yield driver


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, SECONDS).until(condition)


def heading(browser):
    return [found.text for found in browser.find_elements("css selector", "h2.output-class")]


def loaded_images(browser):
    """Natural widths of the images of the panel with each label."""
    return browser.execute_script(
        """
        const found = {};
        for (const label of document.querySelectorAll('[data-testid="block-label"]')) {
            const image = label.closest('.block').querySelector('img');
            if (image && image.complete) found[label.innerText.trim()] = image.naturalWidth;
        }
        return found;
        """
    )


def test_a_visitor_uploads_a_picture(server, browser, tmp_path):
    url, _ = server
    path = tmp_path / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    browser.get(url)
    wait(browser, lambda b: b.find_elements("css selector", "input[type=file]"))[0].send_keys(
        str(path)
    )
    wait(browser, lambda b: heading(b) == ["happy"])
    panels = ("Regions that matter", "Attended region", "Faces found")
    wait(browser, lambda b: all(loaded_images(b).get(name) for name in panels))
    widths = loaded_images(browser)
    assert [widths[name] for name in panels] == [320, 320, 512]
    text = browser.find_element("tag name", "body").text
    assert "An expression is not a feeling" in text
    for name in ("angry", "disgust", "fear", "neutral", "sad", "surprise", "deep_emotion.fer2013"):
        assert name in text or name in browser.page_source
    browser.save_screenshot(str(tmp_path / "page.png"))
    assert hosts_asked(browser) == {urlsplit(url).netloc}


def test_a_picture_without_a_face(server, browser):
    url, _ = server
    browser.get(url)
    cat = wait(browser, lambda b: b.find_elements("css selector", ".gallery-item"))[1]
    cat.click()

    def no_face(b):
        return "No face found" in b.find_element("tag name", "body").text

    wait(browser, no_face)
    assert heading(browser) == []
    browser.find_element("css selector", "button[aria-label='Remove Image']").click()
    wait(browser, lambda b: not no_face(b))
    time.sleep(1)  # for the events that follow
    assert not no_face(browser)


def open_tab(browser, url, name):
    browser.get(url)
    tab = "button[role=tab]"
    wait(browser, lambda b: name in [found.text for found in b.find_elements("css selector", tab)])
    next(t for t in browser.find_elements("css selector", tab) if t.text == name).click()


def test_every_face_can_be_explained(server, browser, tmp_path):
    """The larger of two faces is explained first, the other after a click on it or its button."""
    url, _ = server
    face = Image.fromarray(skimage.data.astronaut()[20:220, 120:320])
    picture = Image.new("RGB", (600, 300), "gray")
    picture.paste(face, (350, 40))
    picture.paste(face.resize((150, 150)), (50, 70))
    picture.save(tmp_path / "two.png")
    browser.get(url)
    wait(browser, lambda b: b.find_elements("css selector", "input[type=file]"))[0].send_keys(
        str(tmp_path / "two.png")
    )
    chosen = "return [...document.querySelectorAll('input[type=radio]')].map(i => i.checked)"
    wait(browser, lambda b: b.execute_script(chosen) == [True, False])
    drawn = "img[alt='The picture with numbered boxes on its faces']"
    seen = "img[alt='The face with the attended region']"
    wait(browser, lambda b: b.find_elements("css selector", seen))
    image = browser.find_element("css selector", drawn)

    def source():
        return browser.find_element("css selector", seen).get_attribute("src")

    before = source()
    from selenium.webdriver import ActionChains

    left = -image.size["width"] * (300 - 125) / 600  # from its middle to the smaller face
    ActionChains(browser).move_to_element_with_offset(image, int(left), 0).click().perform()
    wait(browser, lambda b: b.execute_script(chosen) == [False, True])
    wait(browser, lambda _: source() != before)
    browser.find_elements("css selector", "input[type=radio]")[0].click()
    wait(browser, lambda _: source() == before)


def test_the_camera_is_followed(server, browser):
    url, folder = server
    before = set(folder.rglob("*"))
    open_tab(browser, url, "Live camera")
    selector = "[title='grant webcam access']"
    found = wait(
        browser,
        lambda b: [e for e in b.find_elements("css selector", selector) if e.is_displayed()],
    )
    found[0].click()
    wait(
        browser,
        lambda b: [
            e
            for e in b.find_elements("css selector", "[aria-label='capture photo']")
            if e.is_displayed() and e.is_enabled()
        ],
    )[0].click()
    wait(browser, lambda b: heading(b) == ["happy"])
    frame = browser.find_element("css selector", "img.frame")
    assert frame.get_attribute("src").startswith("data:image/jpeg")
    assert set(folder.rglob("*")) <= before  # frames are not kept


def test_a_video_is_followed(server, tmp_path):
    av = pytest.importorskip("av", reason="the video extra is not installed")
    face = Image.fromarray(skimage.data.astronaut()[20:220, 120:320])
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for x in range(0, 60, 10):
            picture = Image.new("RGB", (320, 240), "gray")
            picture.paste(face, (x, 20))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    data = (tmp_path / "clip.mp4").read_bytes()
    event, answer = analyse(server[0], data, "clip.mp4", "video")
    assert event == "complete"
    film, timeline, table = json.loads(answer)
    assert re.search(r"1 +0\.0 s +0\.6 s +0\.6 s +happy", table)
    assert timeline["path"]
    content = httpx.get(film["url"]).content
    assert content[4:8] == b"ftyp"
    event, _ = analyse(server[0], data[:300], "clip.mp4", "video")
    assert event == "error"


def analyse(url, data, name="picture.png", function="analyse"):
    """Uploads a file, calls a function of the page and returns the last event and its data."""
    files = {"files": (name, data)}
    (path,) = httpx.post(f"{url}/gradio_api/upload", files=files).raise_for_status().json()
    call = f"{url}/gradio_api/call/{function}"
    given = {"path": path, "meta": {"_type": "gradio.FileData"}}
    event = (
        httpx.post(call, json={"data": [given, "deep_emotion.fer2013"]}).raise_for_status().json()
    )
    answer = httpx.get(f"{call}/{event['event_id']}", timeout=SECONDS).text
    return re.findall(r"event: (\w+)\ndata: (.*)", answer)[-1]


def test_an_invalid_picture_gives_an_error_and_the_page_keeps_working(server):
    url, _ = server
    assert analyse(url, b"no picture")[0] == "error"
    assert analyse(url, b"GIF89a" + bytes(20), "broken.gif")[0] == "error"
    event, data = analyse(url, (Path(skimage.data_dir) / "astronaut.png").read_bytes())
    assert event == "complete"
    assert json.loads(data)[2]["label"] == "happy"


def test_large_uploads_are_refused_unread(server):
    url, folder = server
    before = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    large = bytes(11 * 1024**2)
    refused = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", large)})
    assert refused.status_code == 413
    assert "10 MB" in refused.text
    assert httpx.post(f"{url}/gradio_api/call/analyse", content=large).status_code == 413
    unstated = httpx.post(f"{url}/gradio_api/upload", content=iter([b"x"]))
    assert unstated.status_code == 411
    after = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert after == before


def test_slow_clients_do_not_delay_others(server):
    """Half of them never end their headers, half never end their upload."""
    url, _ = server
    address = (urlsplit(url).hostname, urlsplit(url).port)
    upload = b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    slow = [socket.create_connection(address) for _ in range(100)]
    try:
        for i, client in enumerate(slow):
            client.sendall(upload if i % 2 else b"GET / HTTP/1.1\r\nHost: ")
        astronaut = (Path(skimage.data_dir) / "astronaut.png").read_bytes()
        for _ in range(2):
            for client in slow:
                client.sendall(b"a")
            assert analyse(url, astronaut)[0] == "complete"
    finally:
        for client in slow:
            client.close()


def test_file_names_cannot_leave_the_folder_or_hold_markup(server):
    url, folder = server
    astronaut = (Path(skimage.data_dir) / "astronaut.png").read_bytes()
    for name in (
        *("../../evil.png", "/tmp/evil.png", "..\\..\\evil.png", "..%2f..%2fevil.png"),
        *('<img src=x onerror="alert(1)">.png', "a\r\nSet-Cookie: b=c.png", "x" * 300 + ".png"),
    ):
        reply = httpx.post(f"{url}/gradio_api/upload", files={"files": (name, astronaut)})
        (path,) = reply.raise_for_status().json()
        assert folder.resolve() in Path(path).resolve().parents, name
        assert not set('<>"\r\n\\') & set(Path(path).name), name
        assert "set-cookie" not in reply.headers
        event, answer = analyse(url, astronaut, name)
        assert event == "complete"
        assert "onerror" not in answer.replace(Path(path).name, "")


def test_uploaded_pages_are_not_shown(server):
    """A page or drawing of a visitor could run scripts: browsers only save it."""
    url, _ = server
    script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    for name in ("a.html", "a.svg", "a.xhtml", "a.js"):
        files = {"files": (name, script)}
        (path,) = httpx.post(f"{url}/gradio_api/upload", files=files).json()
        served = httpx.get(f"{url}/gradio_api/file={path}")
        assert served.headers["content-disposition"].startswith("attachment"), name
        assert analyse(url, script, name)[0] == "error"


def test_other_files_of_the_server_are_not_served(server):
    url, _ = server
    for path in (ROOT / "pyproject.toml", "/etc/hostname"):
        assert httpx.get(f"{url}/gradio_api/file={path}").status_code == 403
        call = f"{url}/gradio_api/call/analyse"
        given = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        event = httpx.post(call, json={"data": [given, "deep_emotion.fer2013"]}).json()["event_id"]
        assert "event: error" in httpx.get(f"{call}/{event}", timeout=SECONDS).text


def test_the_content_security_policy_allows_only_the_own_server(server):
    policy = httpx.get(server[0]).headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy


# Without the page's content, which takes long to start.
WITH_TOKEN = """
import sys
from deep_emotion_jax.inference import demo, demo_server
with demo.gr.Blocks() as page:
    pass
demo_server.serve(page, "127.0.0.1", int(sys.argv[1]), "open sesame")
"""
IMPATIENT = WITH_TOKEN.replace(', "open sesame"', "").replace(
    "with", "demo_server.UPLOAD_SECONDS = 1\nwith"
)


# A page that counts how often the same visitor has asked; it remembers one visitor.
FORGETFUL = """
import sys
from deep_emotion_jax.inference import demo, demo_server
demo_server.VISITORS = 1
with demo.gr.Blocks() as page:
    count, shown = demo.gr.State(0), demo.gr.Number()
    demo.gr.Button().click(lambda n: [n + 1, n + 1], count, [count, shown])
demo_server.serve(page, "127.0.0.1", int(sys.argv[1]))
"""


def test_memory_holds_a_limited_number_of_visitors():
    with served("-c", FORGETFUL) as url:

        def count(visitor):
            event = {"data": [None], "fn_index": 0, "session_hash": visitor}
            httpx.post(f"{url}/gradio_api/queue/join", json=event).raise_for_status()
            answer = f"{url}/gradio_api/queue/data?session_hash={visitor}"
            with httpx.stream("GET", answer, timeout=SECONDS) as lines:
                done = next(line for line in lines.iter_lines() if "process_completed" in line)
            return json.loads(done.removeprefix("data: "))["output"]["data"][1]

        assert [count(visitor) for visitor in "aabba"] == [1, 2, 1, 2, 1]


def test_another_face_of_a_deleted_picture():
    from deep_emotion_jax.inference.demo_answers import Answers

    note, importance = Answers({}).explain(1, None)
    assert "deleted" in note
    assert importance is None


def test_an_upload_that_takes_too_long_is_dropped():
    with served("-c", IMPATIENT) as url:
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as client:
            form = b"multipart/form-data; boundary=x"
            client.sendall(
                b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n"
                b"Content-Type: " + form + b"\r\n\r\n--x"
            )
            client.settimeout(20)
            assert client.recv(100).startswith(b"HTTP/1.1 408 ")
        files = {"files": ("a.png", b"x")}
        assert httpx.post(f"{url}/gradio_api/upload", files=files).status_code == 200


def test_a_token_is_required_if_set(server, monkeypatch):
    with served("-c", WITH_TOKEN) as url:
        picture = {"files": ("a.png", b"x")}
        assert httpx.get(f"{url}/config").status_code == 401
        assert httpx.post(f"{url}/gradio_api/upload", files=picture).status_code == 401
        with httpx.Client(base_url=url) as visitor:
            login = {"username": "anyone", "password": "open"}
            assert visitor.post("/login", data=login).status_code == 400
            assert visitor.get("/config").status_code == 401
            login["password"] = "open sesame"
            assert visitor.post("/login", data=login).status_code == 200
            assert visitor.get("/config").status_code == 200
    given = []
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # the command sets it: put back afterwards
    from deep_emotion_jax.inference import demo_server

    monkeypatch.setattr(demo_server, "serve", lambda *values, **_: given.append(values))
    assert main(["demo", "--token=open sesame"]) == 0
    assert given[0][1:] == ("127.0.0.1", None, "open sesame")


def test_user_errors_are_one_message(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # the command sets it: put back afterwards
    port = urlsplit(server[0]).port
    before = signal.getsignal(signal.SIGTERM)
    try:
        fails_here(capsys, "demo", f"--port={port}", words=(port, "cannot listen"))
    finally:
        signal.signal(signal.SIGTERM, before)
    fails_here(capsys, "demo", "--port=0", words=("--port 0",))
    none = tmp_path / "none.safetensors"
    fails_here(capsys, "demo", f"--model={none}", words=(none,))
