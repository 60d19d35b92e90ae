"""Names the expressions in pictures.

    predictor = Predictor.from_pretrained("deep_emotion.fer2013")
    for face in predictor.predict("picture.jpg").faces:
        print(face.expression, face.probabilities, face.box)

`stream` does the same for any number of pictures in bounded memory, several to a batch.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deep_emotion_jax.attribution import blurred, occlusion_maps
from deep_emotion_jax.data.detectors import Box, Detector, LbpDetector, crop
from deep_emotion_jax.data.pictures import Picture, as_pixels, read_picture
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.weights import Trained
from deep_emotion_jax.pretrained import load_pretrained

# Every batch has this size, filled up where faces are few, so that one compilation serves all.
BATCH = 16
# Pixels that may wait for their batch to fill: 100 MB.
WAITING_PIXELS = 1 << 25
# The centres of what the 9 x 9 features see, half a cell added on each side, span 36 of the
# face's 48 pixels.
FEATURES_SPAN = 36 / 48


@dataclass(frozen=True)
class Face:
    """A face and its expression.

    Attributes:
      box: its frame in the picture.
      expression: the most probable of the network's classes.
      probabilities: of each class, in the network's order; they sum to 1.
      region: the corners of what the sampler attends to, [4, 2] in pixels (x, y) of the picture:
        where theta takes the corners of the square; None if the network has no sampler.
      pixels: what the network saw, uint8 [48, 48].
    """

    box: Box
    expression: str
    probabilities: dict[str, float]
    region: np.ndarray | None
    pixels: np.ndarray


@dataclass(frozen=True)
class Prediction:
    """A picture and the faces in it, largest first."""

    picture: Picture
    faces: tuple[Face, ...]


class Predictor:
    """Finds faces and names their expressions.

    Args:
      trained: the network.
      detector: finds the faces; scikit-image's cascade by default.
    """

    def __init__(self, trained: Trained, detector: Detector | None = None):
        self.classes = trained.classes
        self._detector = LbpDetector() if detector is None else detector
        self._span = FEATURES_SPAN if trained.model.attention == "features" else 1.0
        graph, self._weights = nnx.split(trained.model)

        def logits(weights: Any, images: jax.Array) -> jax.Array:
            return nnx.merge(graph, weights)(images)

        def logits_and_theta(weights: Any, images: jax.Array) -> tuple[jax.Array, Any]:
            net, images = nnx.merge(graph, weights), images.astype(jnp.float32) / 255
            return net(images), None if net.localization is None else net.theta(images)

        # On the CPU, compiling with all of LLVM's effort takes 2.7 s instead of 0.5 s and saves
        # 10 ms per batch, little beside finding the faces.
        on_cpu = jax.default_backend() == "cpu"
        options: Any = {"xla_backend_optimization_level": 0} if on_cpu else None
        self._program = jax.jit(logits_and_theta, compiler_options=options)
        self._logits = logits

    @classmethod
    def from_pretrained(cls, model: str, detector: Detector | None = None) -> "Predictor":
        """A predictor with a network that comes with the package, or one of your own.

        Args:
          model: a name that `load_pretrained` takes, or the path of a .safetensors file.
          detector: finds the faces; scikit-image's cascade by default.

        Raises:
          UserError: for an unknown name or an unreadable file.
        """
        return cls(load_pretrained(model), detector)

    def predict(self, picture: str | os.PathLike[str] | np.ndarray) -> Prediction:
        """Names the expressions in one picture.

        Args:
          picture: a path, or what `media.as_pixels` takes: uint8, uint16 or floats in [0, 1],
            [H, W] or [H, W, C], or a Pillow image.

        Raises:
          UserError: if the file cannot be read or the array is not as described.
        """
        if isinstance(picture, str | os.PathLike):
            given = Picture(os.fspath(picture), read_picture(picture))
        else:
            given = Picture("", as_pixels(picture))
        return next(self.stream([given]))

    def stream(self, pictures: Iterable[Picture]) -> Iterator[Prediction]:
        """Names the expressions in any number of pictures, in order, in bounded memory.

        Pictures wait for a batch of faces to fill; 16 of them at most.
        """
        waiting: list[tuple[Picture, list[Box]]] = []
        faces: list[np.ndarray] = []
        for picture in pictures:
            boxes = self._detector(picture.pixels)
            waiting.append((picture, boxes))
            faces.extend(crop(picture.pixels, box) for box in boxes)
            pixels = sum(picture.pixels.size // 3 for picture, _ in waiting)
            if max(len(faces), len(waiting)) >= BATCH or pixels >= WAITING_PIXELS:
                yield from self._classify(waiting, faces)
                waiting, faces = [], []
        yield from self._classify(waiting, faces)

    def importance(self, face: Face) -> np.ndarray:
        """How much blurring each part of a face lowers the probability of its expression.

        Returns:
          [48, 48] in [0, 1], see `explain.occlusion_maps` with mode "drop".
        """
        image = face.pixels[None, ..., None].astype(np.float32) / 255
        label = np.array([self.classes.index(face.expression)])
        (drop,) = occlusion_maps(
            self._logits, self._weights, image, label, fill=blurred(image), mode="drop"
        )
        return drop

    def _classify(
        self, waiting: list[tuple[Picture, list[Box]]], images: list[np.ndarray]
    ) -> Iterator[Prediction]:
        results: list[tuple[np.ndarray, np.ndarray | None]] = []
        for first in range(0, len(images), BATCH):
            batch = np.stack(images[first : first + BATCH])[..., None]
            filling = ((0, BATCH - len(batch)), (0, 0), (0, 0), (0, 0))
            logits, theta = jax.device_get(self._program(self._weights, np.pad(batch, filling)))
            for i in range(len(batch)):
                results.append((logits[i], None if theta is None else theta[i]))
        rest = iter(zip(images, results, strict=True))
        for picture, boxes in waiting:
            yield Prediction(
                picture,
                tuple(self._face(box, *next(rest)) for box in boxes),
            )

    def _face(
        self, box: Box, pixels: np.ndarray, result: tuple[np.ndarray, np.ndarray | None]
    ) -> Face:
        logits, theta = result
        if not np.isfinite(logits).all():
            raise UserError("the network gives logits that are not finite; train it again")
        powers = np.exp(logits.astype(np.float64) - logits.max())
        probabilities = powers / powers.sum()
        region = None
        if theta is not None:
            corners = np.array([(-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)])
            attended = corners @ theta.T * self._span
            region = (attended + 1) / 2 * box.side + [box.left, box.top]
        return Face(
            box,
            self.classes[int(logits.argmax())],
            dict(zip(self.classes, probabilities.tolist(), strict=True)),
            region,
            pixels,
        )
