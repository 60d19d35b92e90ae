"""Annotated pictures: boxes around the faces, and a card per face that explains the prediction."""

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deep_emotion_jax.data.pictures import Picture
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference.predictor import Face, Prediction

# Limits of the picture's longer side in pixels.
SMALLEST, LARGEST = 480, 1600
FACE = 160
BARS = 230
PAD = 12
CARD = (3 * PAD + 2 * FACE + BARS, FACE + 40 + 2 * PAD)
FONT_SIZE = 14
# Height of the labels in the picture, as a share of its longer side.
LABEL = 1 / 45
# Largest aspect ratio of an annotated picture, if its faces allow it.
WIDEST = 4
# Drop in probability that is drawn in full orange, unless a place has a larger one.
FULL_HEAT = 0.2
# Okabe & Ito's colours, distinguishable with all common forms of colour blindness.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7")
REGION = "#56B4E9"
HEAT = (213, 94, 0)
INK, PAPER, FAINT = "#222222", "#FFFFFF", "#D9D9D9"


def draw(prediction: Prediction, maps: list[np.ndarray]) -> Image.Image:
    """Draw a picture with numbered boxes and, beside or below it, one card per face.

    A card shows the network's input with the attended region, the same under the importance map,
    and the probabilities.

    Args:
      prediction: the picture and its faces.
      maps: the importance map of each face, [48, 48], not negative.
    """
    picture = with_boxes(prediction)
    size, corner, columns = _layout(picture.size, len(prediction.faces))
    canvas = Image.new("RGB", size, PAPER)
    canvas.paste(picture)
    for i, (face, importance) in enumerate(zip(prediction.faces, maps, strict=True)):
        place = (corner[0] + i % columns * CARD[0], corner[1] + i // columns * CARD[1])
        canvas.paste(_card(f"{i + 1} {answer(face)}", face, importance, i), place)
    return canvas


def _layout(picture: tuple[int, int], faces: int) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Choose the smallest layout of the cards that is not a strip.

    Returns:
      The size of the canvas, the corner of the first card, and the number of columns of cards.
    """
    width, height = picture
    found = []
    for columns in range(1, max(1, faces) + 1):
        cards = (columns * CARD[0], -(-faces // columns) * CARD[1]) if faces else (0, 0)
        beside = (width + cards[0], max(height, cards[1]))
        below = (max(width, cards[0]), height + cards[1])
        for (wide, high), corner, cost in ((beside, (width, 0), 1.0), (below, (0, height), 1.3)):
            strip = max(0.0, max(wide / high, high / wide) - WIDEST)
            # Prefers cards beside the picture, unless that is much larger.
            found.append(((strip, cost * wide * high), ((wide, high), corner, columns)))
    return min(found)[1]


def with_boxes(prediction: Prediction, largest: int = LARGEST) -> Image.Image:
    """Draw the picture with numbered boxes, scaled to a longer side of `SMALLEST` to `largest`.

    Faces are numbered by their tracks, or from 1.
    """
    picture = Image.fromarray(prediction.picture.pixels)
    longest = float(np.clip(max(picture.size), SMALLEST, largest))
    scale = longest / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    if scale < 1:
        # At most two thirds of the bicubic filter's time, which matters for videos.
        picture = picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    elif scale > 1:
        picture = picture.resize((width, height))
    pen = ImageDraw.Draw(picture)
    font_size = max(FONT_SIZE, longest * LABEL)
    font = load_font(font_size)
    for i, face in enumerate(prediction.faces, start=1):
        number = i if face.track is None else face.track
        left, top, _ = (value * scale for value in face.box)
        colour = COLOURS[(number - 1) % len(COLOURS)]
        square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
        corners = [tuple(corner) for corner in face.box.to_picture(square, face.roll) * scale]
        _outline(pen, corners, colour)
        if face.region is not None:
            _outline(pen, [tuple(corner) for corner in face.region * scale], REGION, 1)
        text = f"{number} {answer(face)}"
        right = width - font.getlength(text) - 3
        _tag(pen, (max(3, min(left, right)), max(3, top - font_size - 6)), text, colour, font)
    return picture


def with_region(face: Face, size: int) -> Image.Image:
    """Draw the network's input, `size` pixels wide, with the attended region."""
    seen = Image.fromarray(face.pixels).convert("RGB").resize((size, size))
    if face.region is not None:
        inside = face.box.to_cut(face.region, face.roll) * size
        _outline(ImageDraw.Draw(seen), [tuple(corner) for corner in inside], REGION)
    return seen


def with_importance(face: Face, importance: np.ndarray, size: int) -> Image.Image:
    """Draw the network's input, `size` pixels wide, under its importance map.

    Full orange marks the place where blurring lowers the answer's probability most, if by at least
    `FULL_HEAT`; smaller drops are fainter.

    Args:
      face: the face.
      importance: [48, 48], not negative.
      size: side of the image in pixels.
    """
    seen = Image.fromarray(face.pixels).convert("RGB").resize((size, size))
    heat = importance / max(float(importance.max()), FULL_HEAT)
    mask = Image.fromarray(np.rint(200 * heat).astype(np.uint8)).resize((size, size))
    return Image.composite(Image.new("RGB", seen.size, HEAT), seen, mask)


def save(prediction: Prediction, maps: list[np.ndarray], path: Path) -> None:
    """Write the picture of `draw` in the format of the path's suffix; create the folder if needed.

    Raises:
      UserError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(prediction, maps).save(path, quality=90)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def path_in(folder: Path, picture: Picture) -> Path:
    """Return the path of the annotated picture; it differs for different pictures.

    "a/b.png" becomes "a/b.png.faces.png" below the folder, see `place_in`. JPEGs become JPEGs, all
    others PNGs.
    """
    path = place_in(folder, picture.source, picture.frame)
    jpeg = Path(picture.source).suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif")
    return path.with_name(f"{path.name}.faces{'.jpg' if jpeg else '.png'}")


def place_in(folder: Path, source: str, frame: int | None = None) -> Path:
    """Return the common prefix of the paths of a source's output files.

    It is the folder joined with the source's path relative to the working directory. Output files
    append a suffix, so they overwrite no source even if the folder is its own. For a source outside
    the working directory, it is the name with a hash of the source's folder: "/photos/b.jpg"
    becomes "b.jpg.1a2b3c4d".
    """
    path = Path(os.path.relpath(source))
    name = path.name if frame is None else f"{path.name}.{frame:06}"
    if ".." in path.parts:
        path = Path(os.path.abspath(path))
        name += f".{hashlib.sha256(os.fsencode(path.parent)).hexdigest()[:8]}"
        return folder / name
    return folder / path.with_name(name)


def _card(title: str, face: Face, importance: np.ndarray, index: int) -> Image.Image:
    card = Image.new("RGB", CARD, PAPER)
    pen = ImageDraw.Draw(card)
    font = load_font(FONT_SIZE)
    _tag(pen, (PAD, PAD // 2), title, COLOURS[index % len(COLOURS)], font)
    top = PAD + 22
    beside = PAD + FACE + PAD // 2
    card.paste(with_region(face, FACE), (PAD, top))
    card.paste(with_importance(face, importance, FACE), (beside, top))
    drop = f"blurring costs {100 * importance.max():.0f} points"
    pen.text((beside, top + FACE + 2), drop, INK, font)
    if face.region is not None:
        pen.text((PAD, top + FACE + 2), "attended region", INK, font)

    left = 2 * PAD + 2 * FACE + PAD // 2
    step = min(22.0, FACE / len(face.probabilities))
    for i, (name, probability) in enumerate(face.probabilities.items()):
        y = top + i * step
        pen.text((left, y), name[:10], INK, font)
        pen.rectangle((left + 75, y + 3, left + 175, y + step - 3), FAINT)
        pen.rectangle((left + 75, y + 3, left + 75 + 100 * probability, y + step - 3), HEAT)
        pen.text((left + 182, y), f"{probability:.0%}", INK, font)
    return card


@functools.cache
def load_font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size)


def answer(face: Face) -> str:
    """Format the expression and its probability, such as "happy 93%"."""
    return f"{face.expression} {face.probabilities[face.expression]:.0%}"


def _outline(
    pen: ImageDraw.ImageDraw, corners: Sequence[tuple[float, ...]], colour: str, width: int = 3
) -> None:
    # Clamped, because drawing far outside the picture takes long.
    near = [(min(max(x, -1e4), 1e4), min(max(y, -1e4), 1e4)) for x, y in corners]
    pen.line([*near, *near[:2]], fill=colour, width=width, joint="curve")


def _tag(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, top, right, bottom = pen.textbbox(corner, text, font)
    pen.rectangle((left - 3, top - 3, right + 3, bottom + 3), colour)
    pen.text(corner, text, INK, font)
