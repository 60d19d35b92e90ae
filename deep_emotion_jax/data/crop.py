"""Crops faces to the network's input, in the same way for training and for prediction."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from deep_emotion_jax.constants import IMAGE_SIZE


class Box(NamedTuple):
    """A square, in pixels from a picture's top left corner; it may extend beyond the picture."""

    left: float
    top: float
    side: float

    @classmethod
    def around(cls, x: float, y: float, side: float) -> "Box":
        """Return the square with this centre."""
        return cls(x - side / 2, y - side / 2, side)

    @property
    def centre(self) -> tuple[float, float]:
        """Coordinates (x, y) of the centre."""
        return self.left + self.side / 2, self.top + self.side / 2

    def meets(self, height: int, width: int) -> bool:
        """Whether it overlaps a picture and its side is from 1 pixel to twice the longer side."""
        left, top, side = self
        return 1 <= side <= 2 * max(height, width) and -side < left < width and -side < top < height

    def to_picture(self, points: np.ndarray, roll: float = 0.0) -> np.ndarray:
        """Map points of the crop to the picture.

        Args:
          points: [..., 2], x and y in units of the side, from the crop's top left corner.
          roll: the argument of `crop`.

        Returns:
          [..., 2], x and y in pixels.
        """
        return (points - 0.5) * self.side @ _turn(roll) + self.centre

    def to_cut(self, points: np.ndarray, roll: float = 0.0) -> np.ndarray:
        """Map points of the picture to the crop: the inverse of `to_picture`."""
        return (points - self.centre) @ _turn(-roll) / self.side + 0.5


def _turn(degrees: float) -> np.ndarray:
    """Return the matrix [2, 2] that turns row vectors (x, y) clockwise, as seen in a picture."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return np.array([[cosine, sine], [-sine, cosine]])


def crop(
    picture: np.ndarray,
    box: Box,
    roll: float = 0.0,
    *,
    size: int = IMAGE_SIZE,
    grey: bool = True,
) -> np.ndarray:
    """Crop a face and scale it to the network's input size.

    Colour is converted to grey by ITU-R 601 luma. The square is resampled with Pillow's bilinear
    filter, a triangle that averages when it shrinks. Beyond the picture its edge is repeated. A
    grey picture of 48 x 48 pixels that is cropped whole is unchanged.

    Args:
      picture: uint8, [H, W, 3] RGB or [H, W] grey.
      box: the square to crop.
      roll: clockwise tilt of the face in degrees; it is rotated upright about the box's centre.
      size: side of the result in pixels.
      grey: False to keep the colours.

    Returns:
      uint8 [size, size], or [size, size, 3] with colours.

    Raises:
      ValueError: if the box is not finite, is smaller than a pixel, does not overlap the picture
        or is more than twice as large.
    """
    height, width = picture.shape[:2]
    if not box.meets(height, width):
        raise ValueError(f"cannot crop {box} from a picture of {width} x {height} pixels")
    x, y = box.centre
    side = box.side
    reach = side / 2 * (math.sqrt(2) if roll else 1)
    # The filter also reads pixels around the square.
    margin = math.ceil(side / size) + 2
    first_x, first_y = math.floor(x - reach) - margin, math.floor(y - reach) - margin
    last_x, last_y = math.ceil(x + reach) + margin, math.ceil(y + reach) + margin
    inside = picture[max(0, first_y) : last_y, max(0, first_x) : last_x]
    beyond = [(-first_y, last_y - height), (-first_x, last_x - width)] + [(0, 0)] * (
        picture.ndim - 2
    )
    if any(count > 0 for pair in beyond for count in pair):
        inside = np.pad(inside, np.maximum(beyond, 0), mode="edge")
    region = Image.fromarray(inside)
    if grey:
        region = region.convert("L")
    x, y = x - first_x, y - first_y
    if roll:
        # Rotating a large face at its full size takes long.
        factor = max(1, int(side / size / 3))
        region = region.reduce(factor)
        x, y, side = x / factor, y / factor, side / factor
        # Coloured crops are for the detector: the faster filter is good enough.
        quality = Image.Resampling.BICUBIC if grey else Image.Resampling.BILINEAR
        region = region.rotate(roll, quality, center=(x, y))
    edges = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return np.asarray(region.resize((size, size), Image.Resampling.BILINEAR, box=edges))
