"""Videos: times, rotation, sampling of frames, damaged files, memory."""

import itertools
import re
import socket
import sys
import tracemalloc

import av
import films
import numpy as np
import pytest

from deep_emotion_jax.data import video
from deep_emotion_jax.data.video import Every, Video
from deep_emotion_jax.errors import UserError

# Times as from a phone, whose frame rate drops in the dark.
TIMES = np.cumsum([0, 0.04, 0.04, 0.1, 0.3, 0.04, 0.02, 0.5, 0.04, 0.04, 0.04, 1.0, 0.04])


def read(path, every=video.ALL):
    """The frames, and the message of the error after them."""
    frames = []
    try:
        with Video(path) as opened:
            for frame in opened.frames(every):
                frames.append(frame)
    except UserError as error:
        return frames, str(error)
    return frames, ""


@pytest.mark.parametrize("start", [0.0, 5.0])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.mp4", "libx264", {"bf": "2"}), ("a.mkv", "libx264", {}), ("a.webm", "libvpx", {})],
)
def test_times_of_a_variable_frame_rate(tmp_path, name, codec, options, start):
    path = films.write(tmp_path / name, films.plain(TIMES + start), codec, **options)
    frames, error = read(path)
    assert not error
    assert [frame.number for frame in frames] == list(range(len(TIMES)))
    np.testing.assert_allclose([frame.seconds for frame in frames], TIMES, atol=1e-3)
    levels = [frame.pixels.mean() for frame in frames]
    np.testing.assert_allclose(levels, 10 * np.arange(len(TIMES)), atol=4)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, degrees):
    """The red corner is in the place where a player shows it."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32, 0] = 255
    path = films.write(tmp_path / "a.mp4", [(0, picture), (0.1, picture)])
    if degrees:
        path = films.rotate(path, tmp_path / "b.mp4", degrees)
    frames, error = read(path)
    assert not error
    expected = np.rot90(picture, -degrees // 90)
    assert frames[0].pixels.shape == expected.shape
    assert np.abs(frames[0].pixels.astype(int) - expected).mean() < 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", range(0, 31)),
        ("7", (0, 7, 14, 21, 28)),
        ("0.1s", range(0, 31, 3)),  # exact at 29.97 frames per second
        (".5s", (0, 15, 30)),
        ("2s", (0,)),
        ("0.001s", range(0, 31)),
    ],
)
def test_every(tmp_path, text, expected):
    times = np.arange(31) * 1001 / 30000
    path = films.write(tmp_path / "a.mkv", films.plain(times))
    frames, error = read(path, Every.parse(text))
    assert not error
    assert [frame.number for frame in frames] == list(expected)


def test_every_uses_times_if_the_rate_varies(tmp_path):
    path = films.write(tmp_path / "a.mkv", films.plain(TIMES))
    frames, _ = read(path, Every(seconds=0.5))
    # The first frame at or after each multiple of 0.5 s; a gap is not made up for afterwards.
    np.testing.assert_allclose([frame.seconds for frame in frames], [0, 0.52, 1.04, 2.16])


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "0s", "s", "1.5", "1e3s", "nan", "infs", "2 s", "1m"]
)
def test_every_refuses_other_text(text):
    with pytest.raises(ValueError, match=r"0\.2s"):
        Every.parse(text)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_truncated_video_is_read_to_its_end(tmp_path, name):
    rng = np.random.default_rng(0)
    noise = ((i / 10, rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)) for i in range(60))
    options = {"g": "5", "bf": "0"}
    path = films.write(tmp_path / name, noise, **options)
    if name == "a.mp4":  # with its index at the start, as for the web
        path = faststart(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    frames, error = read(path)
    assert 20 <= len(frames) <= 40
    assert str(path) in error
    assert "cut off" in error
    assert "copy the file again" in error


def faststart(path):
    target = path.with_name(f"fast.{path.name}")
    with (
        av.open(str(path)) as source,
        av.open(str(target), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return target


def test_damage_in_the_middle_is_reported_after_the_rest(tmp_path):
    rng = np.random.default_rng(0)
    noise = [(i / 10, rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)) for i in range(30)]
    path = films.write(tmp_path / "a.avi", noise, "mjpeg")
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xd8", len(content) // 2)
    content[start + 2 : start + 702] = bytes(700)
    path.write_bytes(content)
    frames, error = read(path)
    assert len(frames) == 29
    assert frames[-1].seconds > 2.8
    assert "damaged" in error


def sound(path):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), "cannot read"),
        (lambda path: path.write_bytes(b"no video" * 999), "cannot read"),
        (lambda path: path.write_bytes(films_start(path)), "cannot read"),
        (lambda path: path.mkdir(), "no file"),
        (lambda path: None, "no file"),
        (sound, "no video stream"),
    ],
)
def test_other_files_are_refused(tmp_path, make, words):
    path = tmp_path / "a.mp4"
    make(path)
    frames, error = read(path)
    assert not frames
    assert words in error
    assert str(path) in error
    assert len(error.splitlines()) == 1


def films_start(path):
    """An MP4 without the index at its end."""
    films.write(path, films.plain(TIMES))
    content = path.read_bytes()
    return content[: content.index(b"moov") - 4]


def test_a_video_without_frames(tmp_path):
    path = tmp_path / "a.mkv"
    whole = films.write(tmp_path / "b.mkv", films.plain(TIMES)).read_bytes()
    path.write_bytes(whole[: whole.index(b"\x1f\x43\xb6\x75")])  # up to the first cluster
    frames, error = read(path)
    assert not frames
    assert "cannot read" in error


def test_absurd_sizes_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = films.write(tmp_path / "a.mp4", films.plain(TIMES))
    monkeypatch.setattr(video, "MAX_PIXELS", 64 * 48 - 1)
    frames, error = read(path)
    assert not frames
    assert "64 x 48" in error
    assert "scale" in error


def three_frames(path, rate, **metadata):
    with av.open(str(path), "w") as out:
        out.metadata.update(metadata)
        stream = out.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _, pixels in films.plain(range(3)):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())
    return path


def test_absurd_rates(tmp_path):
    frames, error = read(three_frames(tmp_path / "a.avi", rate=1_000_000))
    assert not error
    times = [frame.seconds for frame in frames]
    assert len(times) == 3
    assert np.isfinite(times).all()
    assert times == sorted(times)


def test_frames_are_decoded_one_at_a_time(tmp_path):
    size = (320, 240)
    path = films.write(tmp_path / "a.mp4", films.plain(np.arange(25) / 25, size))
    frame = size[0] * size[1] * 3
    with Video(path) as opened:
        tracemalloc.start()
        for _ in opened.frames():
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * frame


@pytest.mark.parametrize("name", ["a:b.mp4", "-.mp4", "ü\U0001f600.mp4", "a%03d.mp4", "\udcff.mp4"])
def test_odd_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    films.write(tmp_path / "plain.mp4", films.plain(TIMES)).rename(name)
    frames, error = read(name)
    assert not error
    assert len(frames) == len(TIMES)


def test_metadata_that_is_not_utf8_is_ignored(tmp_path):
    content = three_frames(tmp_path / "a.mkv", rate=10, title="Zürich").read_bytes()
    assert "Zürich".encode() in content
    (tmp_path / "a.mkv").write_bytes(content.replace("ü".encode(), b"\xfcx"))
    frames, error = read(tmp_path / "a.mkv")
    assert not error
    assert len(frames) == 3


def test_a_playlist_opens_no_connection(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", url, "#EXT-X-ENDLIST", ""]
        (tmp_path / "a.mp4").write_text("\n".join(lines))
        frames, error = read(tmp_path / "a.mp4")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert not frames
    assert "cannot read" in error


@pytest.mark.parametrize("end", [b"00:00:00.1.", b"99999:00:00"])
def test_a_malformed_duration_is_ignored(tmp_path, end):
    path = films.write(tmp_path / "a.mkv", films.plain(TIMES))
    with Video(path) as opened:
        assert opened.duration == pytest.approx(TIMES[-1], abs=0.1)
    content, count = re.subn(rb"00:00:\d\d\.\d\d", end, path.read_bytes())
    assert count
    path.write_bytes(content)
    with Video(path) as opened:
        assert len(list(opened.frames())) == len(TIMES)


def test_a_camera_is_read_frame_by_frame(tmp_path, monkeypatch):
    path = films.write(tmp_path / "a.mkv", films.plain(TIMES))
    monkeypatch.setattr(video, "camera_input", lambda: (str(path), "matroska", {}))
    with Video(None) as opened:
        assert opened.source == "webcam"
        assert opened.duration is None
        first, second = itertools.islice(opened.frames(), 2)
    assert (first.seconds, second.seconds) == (0, pytest.approx(0.04))
    monkeypatch.setattr(video, "camera_input", lambda: (str(tmp_path / "gone"), None, {}))
    with pytest.raises(UserError, match=r"webcam .*deep-emotion demo"):
        Video(None)


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for path in (tmp_path / "a.mp4", None):
        with pytest.raises(UserError, match=r'pip install "\.\[video\]"'):
            Video(path)
