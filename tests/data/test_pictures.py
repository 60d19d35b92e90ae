"""Pictures are read upright, as RGB, with eight bits; unreadable ones are reported."""

import sys

import films
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from deep_emotion_jax.data import pictures
from deep_emotion_jax.data.video import Video
from deep_emotion_jax.errors import UserError


def noise(height=20, width=30, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def saved(tmp_path, image, name="picture.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def read_all(*paths):
    errors: list[str] = []
    found = list(pictures.read([str(path) for path in paths], lambda e: errors.append(str(e))))
    return found, errors


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_formats(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path, Image.fromarray(noise()), f"picture.{suffix}", **options)
    np.testing.assert_array_equal(pictures.read_picture(path), noise())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    # Bright in the upper left and right corners, as a viewer shows it.
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:8, :8], upright[:8, -8:] = 255, 128
    # The stored pixels, by the definition of the tag.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    for name in ("picture.png", "picture.jpg"):
        path = saved(tmp_path, image, name, exif=exif)
        assert abs(pictures.read_picture(path).astype(int) - upright).max() < 12


def test_transparency_is_white(tmp_path):
    rgba = noise(channels=4)
    rgba[:10, :, 3], rgba[10:, :, 3] = 0, 255
    expected = np.where(rgba[..., 3:] == 0, 255, rgba[..., :3])
    path = saved(tmp_path, Image.fromarray(rgba))
    np.testing.assert_array_equal(pictures.read_picture(path), expected)
    np.testing.assert_array_equal(pictures.as_pixels(rgba), expected)


def test_transparent_palette_colour(tmp_path):
    image = Image.new("P", (4, 2))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1, 0, 1, 1, 1, 1, 1])
    path = saved(tmp_path, image, transparency=0)
    pixels = pictures.read_picture(path)
    assert pixels[0].tolist() == [[255] * 3, [200, 100, 50]] * 2


def test_other_modes(tmp_path):
    grey = noise(channels=1)[..., 0]
    path = saved(tmp_path, Image.fromarray(grey))
    np.testing.assert_array_equal(pictures.read_picture(path), np.stack([grey] * 3, -1))
    path = saved(tmp_path, Image.new("CMYK", (5, 4), (0, 255, 255, 0)), "picture.tiff")
    assert (pictures.read_picture(path) == (255, 0, 0)).all()
    path = saved(tmp_path, Image.new("1", (5, 4), 1))
    assert (pictures.read_picture(path) == 255).all()
    path = saved(tmp_path, Image.new("LA", (5, 4), (7, 0)))
    assert (pictures.read_picture(path) == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits(tmp_path, suffix):
    values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    path = saved(tmp_path, Image.fromarray(values), f"picture.{suffix}")
    expected = np.stack([np.rint(values / 257).astype(np.uint8)] * 3, -1)
    np.testing.assert_array_equal(pictures.read_picture(path), expected)
    np.testing.assert_array_equal(pictures.as_pixels(values), expected)


def test_floats_have_no_fixed_range(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "picture.tiff")
    with pytest.raises(UserError, match=r"cannot read .*picture\.tiff.*no fixed range"):
        pictures.read_picture(path)


def test_tiny_and_huge(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("RGB", (1, 1), "red"))
    assert pictures.read_picture(path).tolist() == [[[255, 0, 0]]]
    path = saved(tmp_path, Image.new("RGB", (60, 60)))
    for limit in (3000, 1000):  # Pillow warns, then raises.
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UserError, match="too many pixels"):
            pictures.read_picture(path)


def test_eps_is_refused(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (9, 9)), "picture.eps")
    path = path.rename(tmp_path / "picture.png")
    with pytest.raises(UserError, match="not a picture"):
        pictures.read_picture(path)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), suffix=st.sampled_from(["png", "jpg", "gif", "tiff", "webp", "bmp"]))
def test_damaged_files_are_read_or_reported(tmp_path, data, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if suffix in ("png", "jpg", "tiff", "webp") else {}
    path = saved(tmp_path, Image.fromarray(noise()), f"picture.{suffix}", **options)
    content = bytearray(path.read_bytes())
    places = st.integers(0, 200) | st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=5)):
        content[place % len(content)] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(places | st.none())])
    found, errors = read_all(path)
    assert len(found) + len(errors) == 1
    for picture in found:
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.ndim == 3


def test_arrays():
    rgb = noise()
    np.testing.assert_array_equal(pictures.as_pixels(rgb), rgb)
    for dtype in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(pictures.as_pixels((rgb / 255).astype(dtype)), rgb)
    for grey in (rgb[..., 0], rgb[..., :1]):
        np.testing.assert_array_equal(pictures.as_pixels(grey), np.stack([rgb[..., 0]] * 3, -1))
    palette = Image.fromarray(rgb).quantize(256)
    np.testing.assert_array_equal(pictures.as_pixels(palette), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4), np.nan), r"\[0, 1\], got nan"),
        (np.full((4, 4), 1.5), "got 1.5 to 1.5"),
        (np.full((4, 4), -0.1), "got -0.1"),
        (np.zeros((4, 4), np.int64), "got int64"),
        (np.zeros((4, 4, 2), np.uint8), r"\[4, 4, 2\]"),
        (np.zeros((0, 4), np.uint8), r"\[0, 4, 1\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\[1, 4, 4, 3\]"),
        ([["a"]], "got <U1"),
    ],
)
def test_arrays_of_other_shapes_types_and_ranges(array, message):
    with pytest.raises(UserError, match=message):
        pictures.as_pixels(array)


def test_folders_patterns_and_missing_files(tmp_path):
    image = Image.new("RGB", (4, 4))
    for name in ("b.PNG", "a.jpg", "sub/c.png", "sub/.hidden.png", "past/d.png", "z[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "empty").mkdir()

    def names(*paths):
        found, errors = read_all(*paths)
        return [picture.source.removeprefix(f"{tmp_path}/") for picture in found], errors

    found, errors = names(tmp_path)
    assert found == ["a.jpg", "b.PNG", "z[1].png", "past/d.png", "sub/c.png"]
    assert len(errors) == 1
    assert "broken.png" in errors[0]
    assert set(names(tmp_path / "**" / "*.png")[0]) == {"z[1].png", "past/d.png", "sub/c.png"}
    assert names(tmp_path / "z[1].png") == (["z[1].png"], [])
    for path in ("notes.txt", "missing.png", "missing*.png", "empty", "missing.mp4"):
        found, errors = names(tmp_path / path, tmp_path / "a.jpg")
        assert found == ["a.jpg"]  # Reading continues after a bad path.
        assert len(errors) == 1
        assert path in errors[0]


def test_pictures_are_read_one_at_a_time(tmp_path):
    for name in "abc":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    found = pictures.read([str(tmp_path)], lambda error: pytest.fail(str(error)))
    assert next(found).source.endswith("a.png")
    (tmp_path / "b.png").unlink()
    with pytest.raises(pytest.fail.Exception, match=r"b\.png"):
        next(found)


def test_video(tmp_path):
    path = tmp_path / "video.avi"
    colours = [(255, 0, level) for level in (0, 100, 200)]
    films.write(
        path,
        ((i / 10, np.full((48, 64, 3), colour, np.uint8)) for i, colour in enumerate(colours)),
        "mjpeg",
    )
    found, errors = read_all(path)
    assert not errors
    assert [picture.frame for picture in found] == [0, 1, 2]
    np.testing.assert_allclose([picture.seconds for picture in found], [0, 0.1, 0.2], atol=1e-6)
    for picture, level in zip(found, (0, 100, 200), strict=True):
        assert picture.source == str(path)
        assert picture.pixels.shape == (48, 64, 3)
        assert abs(picture.pixels.mean((0, 1)) - (255, 0, level)).max() < 6


def test_a_damaged_video_is_reported(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"no video")
    _, errors = read_all(tmp_path / "video.mp4")
    assert "cannot read" in errors[0]


def test_video_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "video.mp4").touch()
    _, errors = read_all(tmp_path / "video.mp4")
    assert 'pip install ".[video]"' in errors[0]
    with pytest.raises(UserError, match=r"\[video\]"):
        Video(None)
