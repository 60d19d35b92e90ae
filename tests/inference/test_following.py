"""Tracking two generated faces that cross: rows, film, timeline, summary and errors."""

import csv
import io
import os
import types

import av
import films
import numpy as np
import pytest
from PIL import Image, ImageColor

from deep_emotion_jax import Predictor
from deep_emotion_jax.__main__ import main
from deep_emotion_jax.cli import follow as command
from deep_emotion_jax.data import video as reading
from deep_emotion_jax.data.crop import Box
from deep_emotion_jax.data.pictures import Picture
from deep_emotion_jax.data.video import Every, Video
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference import drawing, summary, timeline, video
from deep_emotion_jax.inference.predictor import Face, Prediction

CLASSES = ("angry", "happy", "neutral")
SECONDS = 4
# 10 frames a second, then 5, then 10.
TIMES = np.concatenate([np.arange(0, 1, 0.1), np.arange(1, 3, 0.2), np.arange(3, 4, 0.1)])


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained("deep_emotion.fer2013", mirror=False)


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    """The film, and the positions of the two faces in each frame."""
    path = tmp_path_factory.mktemp("film") / "crossing.mp4"
    scenes = list(films.crossing(TIMES, SECONDS))
    films.write(path, ((time, pixels) for time, pixels, _ in scenes))
    return path, [centres for _, _, centres in scenes]


@pytest.fixture(scope="module")
def done(crossing, tmp_path_factory):
    """The rows of the command and the folder of its files."""
    out = tmp_path_factory.mktemp("out")
    path, _ = crossing
    text, patch = io.StringIO(), pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr("sys.stdout", text)
        patched.chdir(path.parent)
        arguments = ["crossing.mp4", "--csv", "--model=deep_emotion.fer2013", f"--save={out}"]
        assert main(["predict", *arguments]) == 0
    return list(csv.DictReader(io.StringIO(text.getvalue()))), out


def test_tracks_keep_their_faces_through_the_crossing(crossing, done):
    """Each row has the track of the face at its position; one face is hidden for a while."""
    _, centres = crossing
    rows, _ = done
    owners = {}
    for row in rows:
        left, top, side = (float(row[key]) for key in ("left", "top", "side"))
        x, y = left + side / 2, top + side / 2
        distances = [np.hypot(x - cx, y - cy) for cx, cy in centres[int(row["frame"])]]
        assert min(distances) < 30
        # If both are at the same position, only the front face is visible.
        if abs(np.subtract(*distances)) > 20:
            owners.setdefault(row["track"], set()).add(int(np.argmin(distances)))
    assert owners == {"1": {0}, "2": {1}}
    seen = [sum(row["track"] == track for row in rows) for track in "12"]
    assert seen[0] == len(TIMES)
    assert 0.6 * len(TIMES) < seen[1] < len(TIMES)


def test_rows_have_the_times_of_the_frames(done):
    rows, _ = done
    times = {int(row["frame"]): float(row["seconds"]) for row in rows}
    np.testing.assert_allclose([times[i] for i in range(len(TIMES))], TIMES, atol=1e-3)


def test_the_film_has_the_frames_at_their_times(done):
    _, out = done
    names = sorted(path.name for path in out.iterdir())
    start = "crossing.mp4"
    assert names == [f"{start}.faces.mp4", f"{start}.timeline.png", f"{start}.tracks.csv"]
    with av.open(str(out / f"{start}.faces.mp4")) as film:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]
    np.testing.assert_allclose([time for time, _ in frames], TIMES, atol=1e-3)
    # The box of the first face is drawn in the first colour.
    _, pixels = frames[0]
    assert pixels.shape == (360, 640, 3)
    colour = np.array(ImageColor.getrgb(drawing.COLOURS[0]))
    beside = pixels[150:190, 60:180]
    assert (np.abs(beside.astype(int) - colour).max(axis=-1) < 60).any()


def test_the_summary_and_the_timeline(done):
    rows, out = done
    table = list(csv.DictReader((out / "crossing.mp4.tracks.csv").open()))
    assert [row["track"] for row in table] == ["1", "2"]
    for row in table:
        assert row["expression"] == "happy"
        own = [line for line in rows if line["track"] == row["track"]]
        assert int(row["frames"]) == len(own)
        assert float(row["happy"]) == pytest.approx(
            np.mean([float(line["happy"]) for line in own]), abs=0.1
        )
    assert float(table[0]["seconds"]) == pytest.approx(SECONDS)
    with Image.open(out / "crossing.mp4.timeline.png") as image:
        picture = np.asarray(image)
    yellow = np.array(ImageColor.getrgb(timeline.EXPRESSIONS["happy"]))
    lanes = [
        (np.abs(picture[timeline.PAD + row * timeline.LANE + 40] - yellow).max(axis=-1) == 0).sum()
        for row in (0, 1)
    ]
    assert lanes[0] == pytest.approx(timeline.CHART, rel=0.02)
    hidden = SECONDS - float(table[1]["seconds"])
    assert lanes[1] == pytest.approx(timeline.CHART * (1 - hidden / SECONDS), rel=0.02)


def test_every_smooth_and_the_python_interface(crossing, predictor):
    path, _ = crossing
    with Video(path) as opened:
        raw = list(video.follow(predictor, opened, Every(seconds=0.5), smooth=0))
    with Video(path) as opened:
        smooth = list(video.follow(predictor, opened, Every(seconds=0.5), smooth=1, live=True))
    assert [prediction.picture.seconds for prediction in raw] == pytest.approx(
        [0, 0.6, 1, 1.6, 2, 2.6, 3, 3.5], abs=0.11
    )
    ours, mean = (
        [
            next(face for face in found.faces if face.track == 1).probabilities["happy"]
            for found in run
        ]
        for run in (raw, smooth)
    )
    assert mean[0] == pytest.approx(ours[0], abs=1e-5)
    weights = np.exp([raw[i].picture.seconds - raw[3].picture.seconds for i in range(4)])
    assert mean[3] == pytest.approx(np.average(ours[:4], weights=weights), abs=1e-4)


class Fake:
    """A fast predictor that finds one face in each frame."""

    classes = CLASSES

    def stream(self, pictures):
        for picture in pictures:
            yield prediction(picture, (answer("happy"),))


def answer(expression, track=None, left=10.0):
    shares = {name: 0.8 if name == expression else 0.1 for name in CLASSES}
    pixels = np.full((48, 48), 99, np.uint8)
    return Face(Box(left, 10, 30), expression, shares, None, pixels, track=track)


def prediction(picture, faces):
    return Prediction(picture, tuple(faces))


def frame(seconds, faces=(), size=(48, 64)):
    return prediction(Picture("a.mp4", np.zeros((*size, 3), np.uint8), 0, seconds), faces)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(Predictor, "from_pretrained", lambda *_: Fake())


@pytest.fixture
def film(tmp_path):
    return films.write(tmp_path / "a.mkv", films.plain(np.arange(20) / 10))


def endings(folder):

    return sorted(path.suffix[1:] for path in folder.iterdir())


def test_ctrl_c_keeps_the_frames_so_far(fake, film, tmp_path, monkeypatch, capsys):
    printed = []

    def interrupted(self, prediction):
        if len(printed) == 7:
            raise KeyboardInterrupt
        printed.append(prediction)

    monkeypatch.setattr("deep_emotion_jax.cli.predict.Printer.__call__", interrupted)
    assert main(["predict", str(film), "--save", str(tmp_path / "out")]) == 130
    err = capsys.readouterr().err
    assert "stopped after 0.6 s" in err
    (written,) = (tmp_path / "out").glob("*.faces.mp4")
    assert str(written) in err
    frames = list(Video(written).frames())
    assert [frame.seconds for frame in frames] == pytest.approx(np.arange(7) / 10, abs=1e-3)
    assert endings(tmp_path / "out") == ["csv", "mp4", "png"]


def test_a_truncated_video_keeps_its_readable_frames(fake, tmp_path, capsys):
    rng = np.random.default_rng(0)
    noise = ((i / 10, rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)) for i in range(60))
    film = films.write(tmp_path / "a.mkv", noise, g="5")
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    assert main(["predict", str(film), "--json", "--save", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert 20 < len(out.splitlines()) < 40
    assert "cut off" in err
    assert "1 could not be read" in err
    (written,) = (tmp_path / "out").glob("*.faces.mp4")
    with Video(written) as opened:
        assert len(list(opened.frames())) == len(out.splitlines())


def test_an_unreadable_video_leaves_no_files_and_others_are_processed(fake, film, tmp_path, capsys):
    (tmp_path / "b.mp4").write_bytes(b"no video")
    code = main(["predict", str(tmp_path / "b.mp4"), str(film), "--save", str(tmp_path / "out")])
    assert code == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 21
    assert "track 1" in out
    assert "skipped" in err
    assert endings(tmp_path / "out") == ["csv", "mp4", "png"]


def test_a_second_run_does_not_read_the_output_of_the_first(fake, film, capsys, monkeypatch):
    monkeypatch.chdir(film.parent)
    for _ in range(2):
        assert main(["predict", ".", "--csv", "--save", "."]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert {row["picture"] for row in rows} == {"a.mkv"}
    assert len(list(film.parent.iterdir())) == 4


def test_a_folder_that_cannot_be_written(fake, film, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["predict", str(film), "--save", str(tmp_path / "file")]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: cannot write")
    assert len(err.splitlines()) == 1


def test_a_full_disk_leaves_no_partial_film(fake, tmp_path, small_disk, capsys):
    disk, _ = small_disk
    rng = np.random.default_rng(0)
    noise = ((i / 25, rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)) for i in range(40))
    film = films.write(tmp_path / "a.mkv", noise, preset="ultrafast")
    assert main(["predict", str(film), "--save", str(disk / "out")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert list((disk / "out").iterdir()) == []


def test_the_film_does_not_replace_its_source(film):
    with pytest.raises(UserError, match="is the input video"):
        video.Film(film, str(film))


def test_a_film_of_frames_with_different_sizes_or_equal_times(tmp_path):
    film = video.Film(tmp_path / "new" / "b.mp4", "a.mp4")
    for seconds, size in ((0, (501, 301)), (0.1, (301, 501)), (0.1, (501, 301))):
        film.add(frame(seconds, [answer("happy", 1)], size))
    assert film.finish()
    film.discard()
    with Video(film.path) as opened:
        frames = list(opened.frames())
    assert {frame.pixels.shape for frame in frames} == {(502, 302, 3)}
    times = [frame.seconds for frame in frames]
    assert times == pytest.approx([0, 0.1, 0.1], abs=1e-3)
    assert times == sorted(set(times))
    assert film.path.stat().st_mode & 0o777 == 0o666 & ~video._umask()


def test_a_film_without_frames_leaves_no_file(tmp_path):
    film = video.Film(tmp_path / "b.mp4", "a.mp4")
    assert not film.finish()
    assert list(tmp_path.iterdir()) == []


def test_the_summary_weights_frames_by_their_duration():
    found = summary.Summary()
    found.add(frame(0.0, [answer("happy", 1)]))
    found.add(frame(1.0, [answer("angry", 1), answer("neutral", 2)]))
    found.add(frame(4.0))
    found.add(frame(5.0, [answer("angry", 1)]))
    one, two = found.finish()
    assert (one.frames, one.seconds, one.expression) == (3, 5.0, "angry")
    assert one.probabilities == pytest.approx({"happy": 0.24, "angry": 0.66, "neutral": 0.1})
    assert one.runs == [(0.0, 1.0, "happy"), (1.0, 4.0, "angry"), (5.0, 6.0, "angry")]
    assert two.seconds == 3.0
    rows = list(csv.DictReader(io.StringIO(summary.as_csv([one, two], CLASSES))))
    assert rows[0]["first"] == "0.000"
    assert rows[0]["last"] == "6.000"
    assert rows[1]["neutral"] == "0.8000"
    assert found.seconds == 6.0
    assert "angry 66%" in summary.as_text([one, two])


def test_timelines_of_different_lengths_and_numbers_of_persons():
    for seconds in (0.0, 0.04, 7.0, 3600 * 30.0):
        for people in (0, 1, 40):
            found = summary.Summary()
            for i in range(3):
                faces = [answer(CLASSES[i], track) for track in range(1, people + 1)]
                found.add(frame(seconds * i / 2, faces))
            image = timeline.draw(found.finish(), found.seconds, CLASSES)
            assert image.height < 2000
    unknown = timeline.colours_of(("happy", "bored", "keen"))
    assert len(set(unknown.values())) == 3


class FakeWindow:
    """A window that is closed after three frames."""

    def __init__(self, title):
        self.shown = []
        FakeWindow.last = self

    def show(self, image):
        self.shown.append(image.size)
        return len(self.shown) < 3

    def close(self):
        self.closed = True


def test_the_window_shows_the_webcam_until_it_is_closed(fake, film, monkeypatch, capsys):
    monkeypatch.setattr(reading, "camera_input", lambda: (str(film), None, {}))
    monkeypatch.setattr(command, "Window", FakeWindow)
    assert main(["predict", "--webcam", "--show", "--csv"]) == 0
    out, _ = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["track"] for row in rows] == ["1"] * 3
    assert [float(row["seconds"]) for row in rows] == pytest.approx([0, 0.1, 0.2], abs=1e-3)
    assert FakeWindow.last.closed
    assert FakeWindow.last.shown == [(640, 480)] * 3 or len(set(FakeWindow.last.shown)) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows always has a display")
def test_without_a_display(fake, film, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    assert main(["predict", str(film), "--show"]) == 2
    _, err = capsys.readouterr()
    assert "deep-emotion demo" in err
    assert len(err.splitlines()) == 1


def test_the_progress_bar_shows_the_remaining_time(film, monkeypatch):
    shown = io.StringIO()
    terminal = types.SimpleNamespace(
        write=shown.write, flush=shown.flush, isatty=lambda: True, encoding="utf-8"
    )
    monkeypatch.setattr("sys.stderr", terminal)
    with Video(film) as opened, command._bar(opened) as bar:
        bar.update(1.0)
        bar.refresh()
    assert "1.0/1.9 s [00:00<" in shown.getvalue()
    assert "a.mkv" in shown.getvalue()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--every=0", "0.2s"),
        ("--every=fast", "0.2s"),
        ("--smooth=-1", "not a time"),
        ("--smooth=x", "x"),
    ],
)
def test_invalid_options_give_an_error(option, words, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "a.mp4", option])
    assert words in capsys.readouterr().err
