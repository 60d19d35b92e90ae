"""Draws the timeline of a video: one lane per person, coloured by expression."""

import io
import math

from PIL import Image, ImageDraw

from deep_emotion_jax.inference.drawing import FAINT, INK, PAPER, load_font
from deep_emotion_jax.inference.summary import Lane

# Okabe & Ito's colours, distinguishable with all common forms of colour blindness, and a grey.
EXPRESSIONS = {
    "angry": "#D55E00",
    "contempt": "#E69F00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "happy": "#F0E442",
    "neutral": "#BBBBBB",
    "sad": "#0072B2",
    "surprise": "#56B4E9",
}
OTHERS = tuple(EXPRESSIONS.values())
LABEL, CHART, PAD = 190, 1000, 16
LANE, BAR, THUMB = 56, 36, 48
FONT_SIZE = 15
# Largest number of lanes; the shortest ones are left out.
MOST_LANES = 30
# Least number of pixels between two ticks of the axis.
TICK_WIDTH = 90
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


def draw(lanes: list[Lane], seconds: float, classes: tuple[str, ...]) -> Image.Image:
    """Draw when each person is seen, and with which expression.

    Args:
      lanes: the persons; at most the `MOST_LANES` seen longest are drawn.
      seconds: the length of the video.
      classes: the network's classes, for the legend.
    """
    longest = sorted(lanes, key=lambda lane: -lane.seconds)[:MOST_LANES]
    drawn = [lane for lane in lanes if lane in longest]
    left_out = len(lanes) - len(drawn)
    colours = colours_of(classes)
    axis = 2 * PAD + LANE * max(1, len(drawn))
    image = Image.new("RGB", (LABEL + CHART + 2 * PAD, axis + 76), PAPER)
    pen, font = ImageDraw.Draw(image), load_font(FONT_SIZE)
    _axis(pen, seconds, axis)
    for row, lane in enumerate(drawn):
        _lane(image, lane, PAD + row * LANE, seconds, colours)
    if not drawn:
        pen.text((LABEL + PAD, PAD + 10), "no face found", INK, font)
    x = float(PAD)
    for name, colour in colours.items():
        pen.rectangle((x, axis + 45, x + 16, axis + 61), colour)
        pen.text((x + 22, axis + 44), name, INK, font)
        x += 22 + font.getlength(name) + 22
    if left_out:
        text = f"{left_out} shorter track{'' if left_out == 1 else 's'} left out"
        pen.text((LABEL + CHART - font.getlength(text), axis + 44), text, INK, font)
    return image


def as_png(lanes: list[Lane], seconds: float, classes: tuple[str, ...]) -> bytes:
    """Return the timeline that `draw` draws as the content of a PNG file."""
    file = io.BytesIO()
    draw(lanes, seconds, classes).save(file, "png")
    return file.getvalue()


def colours_of(classes: tuple[str, ...]) -> dict[str, str]:
    """Return the colour of each class; unknown names get the unused colours."""
    free = [colour for name, colour in EXPRESSIONS.items() if name not in classes] or list(OTHERS)
    unknown = [name for name in classes if name not in EXPRESSIONS]
    return {
        name: EXPRESSIONS[name] if name in EXPRESSIONS else free[unknown.index(name) % len(free)]
        for name in classes
    }


def _axis(pen: ImageDraw.ImageDraw, seconds: float, bottom: int) -> None:
    font = load_font(FONT_SIZE - 2)
    step = next(
        (step for step in STEPS if _x(step, seconds) - _x(0, seconds) >= TICK_WIDTH),
        math.ceil(seconds / 10 / 3600) * 3600,
    )
    for i in range(int(seconds / step) + 1):
        x = _x(i * step, seconds)
        pen.line((x, PAD, x, bottom + 4), FAINT)
        text = _clock(i * step, seconds)
        pen.text((x - font.getlength(text) / 2, bottom + 8), text, INK, font)


def _clock(time: float, seconds: float) -> str:
    if seconds < 60:
        return f"{time:g} s"
    hours, minutes = divmod(round(time) // 60, 60)
    return (
        f"{hours}:{minutes:02}:{round(time) % 60:02}"
        if hours
        else f"{minutes}:{round(time) % 60:02}"
    )


def _x(time: float, seconds: float) -> float:
    return LABEL + CHART * time / max(seconds, 1e-9)


def _lane(
    image: Image.Image, lane: Lane, top: int, seconds: float, colours: dict[str, str]
) -> None:
    pen, font = ImageDraw.Draw(image), load_font(FONT_SIZE)
    if lane.face is not None:
        image.paste(Image.fromarray(lane.face).resize((THUMB, THUMB)), (PAD, top))
    share = f"{lane.expression} {lane.probabilities[lane.expression]:.0%}"
    for line, text in enumerate((f"track {lane.track}", share)):
        pen.text((PAD + THUMB + 10, top + 4 + 20 * line), text, INK, font)
    up = top + (LANE - BAR) // 2 - 4
    for run in lane.runs:
        left, right = _x(run.start, seconds), _x(run.end, seconds)
        pen.rectangle((left, up, max(left + 1, right - 1), up + BAR), colours[run.expression])
        if font.getlength(run.expression) + 12 < right - left:
            ink = PAPER if run.expression == "sad" else INK
            pen.text((left + 6, up + 9), run.expression, ink, font)
