"""Pictures of every kind are decoded to the colours that a viewer shows."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from deep_emotion_jax.data import pictures
from deep_emotion_jax.data.decoding import Unreadable, as_pixels, decode, read_picture
from deep_emotion_jax.errors import UserError

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey_palette():
    image = Image.new("P", (30, 20))
    # In reverse order, as some scanners write it: index i is grey 255 - i.
    image.putpalette(bytes(np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3)))
    image.putdata((255 - GREY).ravel().tolist())
    return image


def with_alpha():
    return Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (30, 20), 255)])


SIXTEEN = Image.fromarray(GREY.astype(np.uint16) * 257)
GREY_FORMS = {
    "PNG": encoded(Image.fromarray(GREY)),
    "palette TIFF": encoded(grey_palette(), "TIFF"),
    "palette PNG": encoded(grey_palette()),
    "palette GIF": encoded(grey_palette(), "GIF"),
    "16-bit PNG": encoded(SIXTEEN),
    "16-bit TIFF": encoded(SIXTEEN, "TIFF"),
    "big-endian PGM": b"P5 30 20 65535\n" + (GREY.astype(">u2") * 257).tobytes(),
    "WebP": encoded(Image.fromarray(GREY).convert("RGB"), "WEBP", lossless=True),
    "LA": encoded(with_alpha()),
    "RGBA": encoded(with_alpha().convert("RGBA")),
}


@pytest.mark.parametrize("form", GREY_FORMS)
def test_grey_is_the_same_in_every_format(form):
    image = decode(GREY_FORMS[form])
    expected = {"WebP": "RGB", "LA": "RGBA", "RGBA": "RGBA"}
    assert image.mode == expected.get(form, "L")
    np.testing.assert_array_equal(np.asarray(image.convert("L")), GREY)


def test_a_palette_of_colours_is_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 9, 9, 10, 7, 8, 9])  # The third colour is not used.
    image.putdata([0, 0])
    assert decode(encoded(image)).mode == "L"
    image.putdata([0, 1])
    np.testing.assert_array_equal(decode(encoded(image)), [[[9, 9, 9], [9, 9, 10]]])


ORANGE = (255, 128, 0)


@pytest.mark.parametrize(
    ("mode", "value", "colour"),
    [
        ("1", 1, (255, 255, 255)),
        ("CMYK", (0, 127, 255, 0), ORANGE),
        ("YCbCr", (151, 43, 202), ORANGE),
        ("LAB", (171, 171, 203), ORANGE),  # L* 67, a* 43, b* 75
        ("I;16", 40_000, (156, 156, 156)),
        ("RGBX", (*ORANGE, 7), ORANGE),
        ("HSV", (21, 255, 255), ORANGE),
    ],
)
def test_other_modes_of_pillow_images(mode, value, colour):
    pixels = as_pixels(Image.new(mode, (5, 4), value))
    assert pixels.shape == (4, 5, 3)
    assert pixels.dtype == np.uint8
    assert abs(pixels.astype(int) - colour).max() <= 8


def test_a_palette_with_transparency_lies_on_white():
    image = Image.new("PA", (2, 1))
    image.putpalette([*ORANGE, 0, 0, 0])
    image.putdata([(0, 255), (1, 0)])
    np.testing.assert_array_equal(as_pixels(image), [[ORANGE, (255, 255, 255)]])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF", "BMP"])
def test_the_suffix_is_ignored(tmp_path, kind):
    path = tmp_path / "face.jpg"
    path.write_bytes(encoded(Image.new("RGB", (64, 64), (200, 100, 50)), kind))
    assert abs(read_picture(path).astype(int) - (200, 100, 50)).max() <= 4


def test_sixteen_bit_pictures_are_rotated_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    assert decode(encoded(wide, exif=exif)).size == (20, 30)


def test_the_first_frame_of_an_animation_is_read():
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encoded(first, kind, save_all=True, append_images=[second])
        assert as_pixels(content)[0, 0, 0] > 200


def test_content_and_open_files():
    content = GREY_FORMS["PNG"]
    file = io.BytesIO(content)
    file.read()  # the position is at the end, as after writing
    for given in (content, bytearray(content), file):
        np.testing.assert_array_equal(as_pixels(given)[..., 0], GREY)


CLOSED = Image.open(io.BytesIO(GREY_FORMS["PNG"]))
CLOSED.close()
SHUT = io.BytesIO(b"x")
SHUT.close()
NOISE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8)))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Image.open(io.BytesIO(NOISE[: len(NOISE) // 2])), "truncated"),
        (CLOSED, "cannot read the picture"),
        (SHUT, "closed file"),
        (io.StringIO("text"), "for reading bytes"),
        (b"", "not a picture"),
        ([GREY, GREY[:5]], "one array, not several"),
        ([GREY] * 7, "give one picture at a time"),
    ],
)
def test_unreadable_input_raises_user_error(given, reason):
    with pytest.raises(UserError, match=reason):
        as_pixels(given)


def test_urls_are_not_opened():
    for url in ("https://example.org/a.jpg", "file:///a.jpg"):
        with pytest.raises(UserError, match=r"is a URL.*download it first"):
            read_picture(url)
        errors = []
        assert not list(pictures.read([url], errors.append))
        assert url in str(errors[0])


def test_picture_on_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(GREY_FORMS["PNG"])))
    (picture,) = pictures.read(["-"], lambda error: pytest.fail(str(error)))
    np.testing.assert_array_equal(picture.pixels[..., 0], GREY)


def test_large_jpegs_are_shrunk_while_decoding(monkeypatch):
    ramp = np.broadcast_to(np.linspace(0, 255, 160).astype(np.uint8), (120, 160))
    content = encoded(Image.fromarray(ramp), "JPEG", quality=95)
    for limit, size in [(19_200, (160, 120)), (19_199, (80, 60)), (4_000, (40, 30)), (9, (20, 15))]:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        image = decode(content)
        assert image.size == size
        np.testing.assert_allclose(
            np.asarray(image)[5, :: size[0] // 10], ramp[0, 8::16], atol=16 * 160 / size[0]
        )
    with pytest.raises(Unreadable, match="far too many"):
        decode(content, max_pixels=299)


HEIC = (24).to_bytes(4) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(500)


def test_heic_errors_name_the_file_and_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("IMG_1.HEIC", "IMG_2.heif", "IMG_3.jpg"):
        (tmp_path / name).write_bytes(HEIC)
    errors = []
    assert not list(pictures.read([str(tmp_path)], errors.append))
    for error, name in zip(errors, ("IMG_1.HEIC", "IMG_2.heif", "IMG_3.jpg"), strict=True):
        assert name in str(error)
        assert 'pip install ".[heic]"' in str(error)


def test_heic_is_opened_if_the_package_is_installed():
    pytest.importorskip("pi_heif")
    with pytest.raises(Unreadable) as caught:
        decode(HEIC)
    assert "pip install" not in str(caught.value)
