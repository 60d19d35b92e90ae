"""Draws what was predicted: the boxes in the picture, and for every face a card that says why."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deep_emotion_jax.data.pictures import Picture
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference.predictor import Face, Prediction

# The longer side of the picture, in pixels, lies between these.
SMALLEST, LARGEST = 480, 1600
FACE = 160
BARS = 230
PAD = 12
CARD = (3 * PAD + 2 * FACE + BARS, FACE + 40 + 2 * PAD)
FONT = ImageFont.load_default(14)
# Okabe & Ito's colours, distinct in all common forms of colour blindness.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7")
REGION = "#56B4E9"
HEAT = (213, 94, 0)
INK, PAPER, FAINT = "#222222", "#FFFFFF", "#D9D9D9"


def draw(prediction: Prediction, maps: list[np.ndarray]) -> Image.Image:
    """Draws a picture's faces.

    Left the picture with numbered boxes. Right one card per face: what the network saw with the
    sampler's region, the same under its importance map, and the probabilities.

    Args:
      prediction: the picture and its faces.
      maps: the importance of each face, [48, 48], not negative.
    """
    picture = with_boxes(prediction)
    width, height = picture.size
    rows = max(1, height // CARD[1])
    columns = -(-len(prediction.faces) // rows)
    size = (width + columns * CARD[0], max(height, min(rows, len(prediction.faces)) * CARD[1]))
    canvas = Image.new("RGB", size, PAPER)
    canvas.paste(picture)
    for i, (face, importance) in enumerate(zip(prediction.faces, maps, strict=True)):
        corner = (width + i // rows * CARD[0], i % rows * CARD[1])
        canvas.paste(_card(f"{i + 1} {answer(face)}", face, importance, i), corner)
    return canvas


def with_boxes(prediction: Prediction, largest: int = LARGEST) -> Image.Image:
    """The picture with its faces in numbered boxes; its longer side `SMALLEST` to `largest`."""
    picture = Image.fromarray(prediction.picture.pixels)
    scale = float(np.clip(max(picture.size), SMALLEST, largest)) / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    picture = picture.resize((width, height))
    pen = ImageDraw.Draw(picture)
    for i, face in enumerate(prediction.faces):
        left, top, side = (value * scale for value in face.box)
        colour = COLOURS[i % len(COLOURS)]
        corners = [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]
        _outline(pen, corners, colour)
        if face.region is not None:
            _outline(pen, [tuple(corner) for corner in face.region * scale], REGION, 1)
        _tag(pen, (max(0, left), max(0, top - 20)), f"{i + 1} {answer(face)}", colour)
    return picture


def with_region(face: Face, size: int) -> Image.Image:
    """What the network saw, `size` pixels wide, with the outline of what its sampler attends to."""
    seen = Image.fromarray(face.pixels).convert("RGB").resize((size, size))
    if face.region is not None:
        inside = (face.region - face.box[:2]) / face.box.side * size
        _outline(ImageDraw.Draw(seen), [tuple(corner) for corner in inside], REGION)
    return seen


def with_importance(face: Face, importance: np.ndarray, size: int) -> Image.Image:
    """What the network saw, `size` pixels wide, under its importance map.

    Full orange is where blurring lowers the answer's probability most, however little that is.

    Args:
      face: the face.
      importance: [48, 48], not negative.
      size: side of the image in pixels.
    """
    seen = Image.fromarray(face.pixels).convert("RGB").resize((size, size))
    heat = importance / max(float(importance.max()), 1e-6)
    mask = Image.fromarray(np.rint(200 * heat).astype(np.uint8)).resize((size, size))
    return Image.composite(Image.new("RGB", seen.size, HEAT), seen, mask)


def save(prediction: Prediction, maps: list[np.ndarray], path: Path) -> None:
    """Writes `draw` as a PNG; makes the folder.

    Raises:
      UserError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(prediction, maps).save(path, "PNG")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def path_in(folder: Path, picture: Picture) -> Path:
    """Where a picture's annotated form goes: different pictures never share a path.

    The picture's path from the working directory is mirrored below the folder, "a/b.jpg" as
    "a/b.jpg.faces.png", so writing to the folder with the pictures harms none of them. One that
    lies elsewhere goes to "(root)" with its absolute path.
    """
    path = Path(os.path.relpath(picture.source))
    if ".." in path.parts:
        path = Path(os.path.abspath(path))
        path = "(root)" / path.relative_to(path.anchor)
    frame = "" if picture.frame is None else f".{picture.frame:06}"
    return folder / path.with_name(f"{path.name}{frame}.faces.png")


def _card(title: str, face: Face, importance: np.ndarray, index: int) -> Image.Image:
    card = Image.new("RGB", CARD, PAPER)
    pen = ImageDraw.Draw(card)
    _tag(pen, (PAD, PAD // 2), title, COLOURS[index % len(COLOURS)])
    top = PAD + 22
    beside = PAD + FACE + PAD // 2
    card.paste(with_region(face, FACE), (PAD, top))
    card.paste(with_importance(face, importance, FACE), (beside, top))
    # The colours are relative to the largest drop, so that one has to be said.
    pen.text((beside, top + FACE + 2), f"blurred: up to {-importance.max():.0%}", INK, FONT)
    if face.region is not None:
        pen.text((PAD, top + FACE + 2), "where it attends", INK, FONT)

    left = 2 * PAD + 2 * FACE + PAD // 2
    step = min(22.0, FACE / len(face.probabilities))
    for i, (name, probability) in enumerate(face.probabilities.items()):
        y = top + i * step
        pen.text((left, y), name[:10], INK, FONT)
        pen.rectangle((left + 75, y + 3, left + 175, y + step - 3), FAINT)
        pen.rectangle((left + 75, y + 3, left + 75 + 100 * probability, y + step - 3), HEAT)
        pen.text((left + 182, y), f"{probability:.0%}", INK, FONT)
    return card


def answer(face: Face) -> str:
    """The expression and how probable it is, such as "happy 93%"."""
    return f"{face.expression} {face.probabilities[face.expression]:.0%}"


def _outline(
    pen: ImageDraw.ImageDraw, corners: Sequence[tuple[float, ...]], colour: str, width: int = 3
) -> None:
    # Far outside nothing shows, and drawing would take long.
    near = [(min(max(x, -1e4), 1e4), min(max(y, -1e4), 1e4)) for x, y in corners]
    pen.line([*near, *near[:2]], fill=colour, width=width, joint="curve")


def _tag(pen: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, colour: str) -> None:
    left, top, right, bottom = pen.textbbox(corner, text, FONT)
    pen.rectangle((left - 3, top - 3, right + 3, bottom + 3), colour)
    pen.text(corner, text, INK, FONT)
