"""Decodes pictures to 8 bits, upright; of an animation, the first frame."""

import io
import os
import warnings
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from deep_emotion_jax.errors import UserError

# Raster formats only: Pillow passes EPS to Ghostscript, which runs programs.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
PICTURE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", *HEIF_SUFFIXES, ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# Bounds the memory for a damaged or hostile JPEG, at three bytes per pixel.
_MAX_JPEG_PIXELS = 1 << 28


class Unreadable(ValueError):  # noqa: N818
    """The reason why a picture cannot be decoded."""


def decode(source: str | bytes | BinaryIO, max_pixels: int | None = None) -> Image.Image:
    """Decodes the first frame of a picture and rotates it upright by its EXIF tag.

    The suffix is ignored. 16-bit grey is scaled to 8 bits; a palette of greys becomes grey. A JPEG
    of more than Pillow's 89 megapixels is decoded at 1/2, 1/4 or 1/8 of its size.

    Args:
      source: a path, a file's content, or a binary file object.
      max_pixels: the largest number of pixels to accept.

    Returns:
      A loaded Pillow image of mode "L", "RGB" or, where parts are transparent, "RGBA".

    Raises:
      Unreadable: if it cannot be decoded, with the reason.
    """
    if not isinstance(source, str):
        source = source if isinstance(source, bytes) else _whole(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF data and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _open(source) as image:
                if max_pixels is not None and image.width * image.height > max_pixels:
                    raise Unreadable(f"{image.width} x {image.height} pixels are far too many")
                return convert(image)
    except Unreadable:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unreadable(f"too many pixels; scale it down: {error}") from error
    except UnidentifiedImageError as error:
        raise Unreadable(f"not a picture, or not in {FORMATS}") from error
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise Unreadable(str(error) or type(error).__name__) from error


def convert(image: Image.Image) -> Image.Image:
    """Converts any Pillow image to mode "L", "RGB" or "RGBA", upright; see `decode`.

    Raises:
      Unreadable: for pixels without a fixed range.
      Exception: Pillow's errors for truncated and closed images.
    """
    image.load()
    if image.mode[0] in "IF":  # 16 and 32 bits, which Pillow's own conversion would clip
        array = np.asarray(image)
        if image.mode == "F" or array.min() < 0 or array.max() > 65535:
            raise Unreadable(
                f"its {image.mode} pixels have no fixed range; save it with 8 or 16 bits"
            )
        exif = image.getexif()
        image = Image.fromarray(to_bytes(array))
        image.getexif().update(exif)
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if _is_grey(image) else "RGB")


def to_bytes(array: np.ndarray) -> np.ndarray:
    """Scales 0..65535 to uint8 0..255."""
    return np.rint(array / 257).astype(np.uint8)


def on_background(image: Image.Image, grey: int) -> Image.Image:
    """Composites an image on a grey background, in [0, 255]: mode "L" or "RGB"."""
    if image.mode != "RGBA":
        return image
    background = Image.new("RGBA", image.size, (grey, grey, grey, 255))
    return Image.alpha_composite(background, image).convert("RGB")


def rgb(image: Image.Image) -> np.ndarray:
    """Returns the pixels of a `decode`d image on white: uint8 [H, W, 3]."""
    return np.asarray(on_background(image, 255).convert("RGB"))


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a picture file with `decode`, on a white background.

    Returns:
      uint8 [H, W, 3] RGB.

    Raises:
      UserError: if it is missing, damaged, not a picture, or too large.
    """
    path = os.fspath(path)
    if "://" in path and not os.path.exists(path):
        raise UserError(f"{path} is a URL: download it first and give the path of the file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"cannot read {path}: it is not a file")  # a pipe would block
    try:
        return rgb(decode(path))
    except Unreadable as error:
        raise UserError(f"cannot read {path}: {error}") from error


def as_pixels(picture: Any) -> np.ndarray:
    """Converts an array, a Pillow image or a file's content to uint8 [H, W, 3] RGB.

    Args:
      picture: [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA) of uint8, uint16, or floats in
        [0, 1]; a Pillow image; the bytes of a picture file; or a binary file object.

    Raises:
      UserError: for another shape, type or range, for NaN, and if it cannot be decoded.
    """
    try:
        if isinstance(picture, Image.Image):
            return rgb(convert(picture))
        if isinstance(picture, bytes | bytearray) or hasattr(picture, "read"):
            return rgb(decode(bytes(picture) if isinstance(picture, bytearray) else picture))
    except Exception as error:  # Pillow raises many kinds for truncated and closed images
        raise UserError(f"cannot read the picture: {error}") from error
    return _array_as_pixels(picture)


def _array_as_pixels(picture: Any) -> np.ndarray:
    try:
        array = np.asarray(picture)
    except ValueError as error:
        raise UserError(f"a picture must be one array, not several: {error}") from error
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(
            f"a picture must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], got {list(array.shape)}"
            + ("; give one picture at a time" if isinstance(picture, list | tuple) else "")
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # so that NaN fails as well
            raise UserError(
                "a picture of floats must lie in [0, 1], got "
                f"{array.min():.3g} to {array.max():.3g}"
            )
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = to_bytes(array)
    elif array.dtype != np.uint8:
        raise UserError(f"a picture must be uint8, uint16 or floats in [0, 1], got {array.dtype}")
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return array if array.shape[2] == 3 else rgb(Image.fromarray(array))


def _whole(file: BinaryIO) -> bytes:
    try:
        if file.seekable():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise Unreadable(str(error)) from error
    if not isinstance(content, bytes):
        raise Unreadable("the file must be opened for reading bytes")
    return content


def _file(source: str | bytes) -> Any:
    return source if isinstance(source, str) else io.BytesIO(source)


def _open(source: str | bytes) -> Image.Image:
    try:
        return Image.open(_file(source), formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        if _head(source)[:2] != b"\xff\xd8":
            raise
        return _shrunk_jpeg(source)
    except UnidentifiedImageError:
        head = _head(source)
        if head[4:8] != b"ftyp" or head[8:12] not in _HEIF_BRANDS:
            raise
        _register_heif()
        return Image.open(_file(source), formats=("HEIF",))


def _head(source: str | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:12]
    with open(source, "rb") as file:
        return file.read(12)


def _shrunk_jpeg(source: str | bytes) -> Image.Image:
    """Opens a JPEG that is larger than Pillow's limit, to be decoded at a reduced size."""
    image = JpegImagePlugin.JpegImageFile(_file(source))
    pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS or _MAX_JPEG_PIXELS
    if pixels > _MAX_JPEG_PIXELS:
        raise Unreadable(f"{pixels} pixels are too many; scale it down")
    factor = next(factor for factor in (2, 4, 8) if pixels <= limit * factor**2 or factor == 8)
    image.draft(None, (image.width // factor, image.height // factor))
    return image


def _register_heif() -> None:
    try:
        import pi_heif as heif
    except ImportError:
        try:
            import pillow_heif as heif
        except ImportError as error:
            raise Unreadable(
                'it is a HEIC picture, which needs the package pi-heif: pip install ".[heic]"'
            ) from error
    heif.register_heif_opener()


def _is_grey(image: Image.Image) -> bool:
    if image.mode != "P":
        return image.mode in ("1", "L")
    colours = image.getpalette() or []
    used = np.unique(np.asarray(image))
    return all(len(set(colours[3 * index : 3 * index + 3])) == 1 for index in used.tolist())
