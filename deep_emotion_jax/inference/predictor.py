"""Finds faces in pictures and classifies their expressions.

    predictor = Predictor.from_pretrained()
    for face in predictor.predict("picture.jpg").faces:
        print(face.expression, face.probabilities, face.box)

`stream` takes any number of pictures and predicts in batches, in bounded memory.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from deep_emotion_jax.attribution import blurred, occlusion_maps
from deep_emotion_jax.constants import DEFAULT_MODEL
from deep_emotion_jax.data.crop import Box, crop
from deep_emotion_jax.data.detectors import Detector, FaceDetector, FoundFace
from deep_emotion_jax.data.pictures import Picture, as_pixels, read_picture
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference.quality import notes
from deep_emotion_jax.nn.weights import Trained
from deep_emotion_jax.pretrained import load_pretrained

# Smaller batches are padded to this size, so that the network is compiled once. On a CPU, larger
# batches do not reduce the time per face.
BATCH = 4
# Largest number of pixels held at a time, 100 MB.
WAITING_PIXELS = 1 << 25
# A path, a Pillow image, or an array as in `pictures.as_pixels`.
Readable = str | os.PathLike[str] | Image.Image | np.ndarray


@dataclass(frozen=True)
class Face:
    """A face and its expression.

    Attributes:
      box: the square around the face in the picture.
      expression: the most probable class.
      probabilities: class -> probability, in the network's order; they sum to 1.
      region: corners of the attended region, [4, 2] in pixels (x, y) of the picture: theta applied
        to the corners of the square; None if the network has no sampler.
      pixels: the network's input, uint8 [48, 48].
      score: confidence of the detector in [0, 1].
      landmarks: [5, 2] in pixels of the picture, see `FoundFace`, or None.
      roll: rotation in degrees that levels the eyes, see `crop`.
      notes: reasons why the answer may be wrong, such as "small" or "profile", see `quality.notes`.
      track: number of the person in a video, from 1, see `video.Follower`; None for a picture.
    """

    box: Box
    expression: str
    probabilities: dict[str, float]
    region: np.ndarray | None = field(repr=False)
    pixels: np.ndarray = field(repr=False)
    score: float = 1.0
    landmarks: np.ndarray | None = field(default=None, repr=False)
    roll: float = 0.0
    notes: tuple[str, ...] = ()
    track: int | None = None


@dataclass(frozen=True)
class Prediction:
    """A picture and the faces in it, largest first."""

    picture: Picture
    faces: tuple[Face, ...]


class Predictor:
    """Finds faces and classifies their expressions.

    Probabilities are averaged over the face and its mirror image. Logits are divided by the
    temperature in the metadata of the weights, if any.

    Args:
      trained: the network.
      detector: finds the faces; `FaceDetector` by default.
      mirror: whether to average with the mirror image, which takes twice the time.
    """

    def __init__(self, trained: Trained, detector: Detector | None = None, *, mirror: bool = True):
        self.classes = trained.classes
        self._detector = FaceDetector() if detector is None else detector
        self._mirror = mirror
        self._span = trained.model.span
        self._temperature = float(trained.about.get("temperature", 1.0))
        self._graph, self._weights = nnx.split(trained.model)
        self._compile()

    def _compile(self) -> None:
        graph, mirror, temperature = self._graph, self._mirror, self._temperature

        def logits(weights: Any, images: jax.Array) -> jax.Array:
            return nnx.merge(graph, weights)(images)

        def probabilities_and_theta(weights: Any, images: jax.Array) -> tuple[jax.Array, Any]:
            net, images = nnx.merge(graph, weights), images.astype(jnp.float32) / 255
            sides = jnp.concatenate([images, images[:, :, ::-1]]) if mirror else images
            shares = jax.nn.softmax(net(sides) / temperature)
            shares = shares.reshape(-1, len(images), shares.shape[-1]).mean(axis=0)
            return shares, None if net.localization is None else net.theta(images)

        # On a CPU, LLVM's optimizations take 0.6 s of compilation and save 1 ms per face.
        on_cpu = jax.default_backend() == "cpu"
        options: Any = {"xla_backend_optimization_level": 0} if on_cpu else None
        self._program = jax.jit(probabilities_and_theta, compiler_options=options)
        self._logits = logits

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out compiled programs, which cannot be pickled."""
        state = {k: v for k, v in vars(self).items() if k not in ("_program", "_logits")}
        return {**state, "_weights": jax.device_get(self._weights)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the state and compiles the programs again."""
        vars(self).update(state)
        self._compile()

    @classmethod
    def from_pretrained(
        cls, model: str = DEFAULT_MODEL, detector: Detector | None = None, *, mirror: bool = True
    ) -> "Predictor":
        """Make a predictor from a network of the package or from a file.

        Args:
          model: a name that `load_pretrained` takes, or the path of a .safetensors file.
          detector: finds the faces; `FaceDetector` by default.
          mirror: see `Predictor`.

        Raises:
          UserError: for an unknown name or an unreadable file.
        """
        return cls(load_pretrained(model), detector, mirror=mirror)

    @overload
    def predict(self, picture: Readable) -> Prediction: ...

    @overload
    def predict(self, picture: list[Readable] | tuple[Readable, ...]) -> list[Prediction]: ...

    def predict(
        self, picture: Readable | list[Readable] | tuple[Readable, ...]
    ) -> Prediction | list[Prediction]:
        """Predict the expressions in a picture, or in each of a list of pictures.

        Args:
          picture: a path, or what `pictures.as_pixels` takes: uint8, uint16 or floats in [0, 1],
            [H, W] or [H, W, C], or a Pillow image; or a list of these.

        Raises:
          UserError: if a file cannot be read or an array is not as described.
        """
        if isinstance(picture, list | tuple):
            return list(self.stream(map(_picture, picture)))
        return next(self.stream([_picture(picture)]))

    def stream(self, pictures: Iterable[Picture]) -> Iterator[Prediction]:
        """Predict the expressions in any number of pictures, in order and in bounded memory.

        Reads up to `BATCH` pictures at a time. A `FaceDetector` runs on them in parallel; other
        detectors do not, as they may keep state between calls.
        """
        threads = min(BATCH, os.cpu_count() or 1) if isinstance(self._detector, FaceDetector) else 1
        with ThreadPoolExecutor(threads) as pool:
            for some in _batches(pictures):
                found = list(pool.map(self._detector, [picture.pixels for picture in some]))
                yield from self._classify(some, found)

    def importance(self, face: Face) -> np.ndarray:
        """Compute how much blurring each part of a face lowers its expression's probability.

        Returns:
          [48, 48] in [0, 1], see `attribution.occlusion_maps` with mode "drop".
        """
        image = face.pixels[None, ..., None].astype(np.float32) / 255
        label = np.array([self.classes.index(face.expression)])
        (drop,) = occlusion_maps(
            self._logits, self._weights, image, label, fill=blurred(image), mode="drop"
        )
        return drop

    def _classify(
        self, pictures: list[Picture], found: list[list[FoundFace]]
    ) -> Iterator[Prediction]:
        both = list(zip(pictures, found, strict=True))
        cuts = [
            crop(picture.pixels, face.box, face.roll) for picture, faces in both for face in faces
        ]
        results: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
        for first in range(0, len(cuts), BATCH):
            batch = np.stack(cuts[first : first + BATCH])
            filling = ((0, BATCH - len(batch)), (0, 0), (0, 0))
            shares, theta = jax.device_get(
                self._program(self._weights, np.pad(batch, filling)[..., None])
            )
            for i, pixels in enumerate(batch):
                results.append((pixels, shares[i], None if theta is None else theta[i]))
        rest = iter(results)
        for picture, faces in both:
            yield Prediction(picture, tuple(self._face(face, *next(rest)) for face in faces))

    def _face(
        self, found: FoundFace, pixels: np.ndarray, shares: np.ndarray, theta: np.ndarray | None
    ) -> Face:
        if not np.isfinite(shares).all():
            raise UserError("the network's logits are not finite; train it again")
        shares = shares.astype(np.float64) / shares.sum(dtype=np.float64)
        region = None
        if theta is not None:
            corners = np.array([(-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)])
            attended = corners @ theta.T * self._span
            region = found.box.to_picture((attended + 1) / 2, found.roll)
        return Face(
            found.box,
            self.classes[int(shares.argmax())],
            dict(zip(self.classes, shares.tolist(), strict=True)),
            region,
            pixels,
            found.score,
            found.landmarks,
            found.roll,
            notes(pixels, found.box, found.landmarks),
        )


def _batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    """Yields lists of `BATCH` pictures, or fewer if they are large."""
    some: list[Picture] = []
    for picture in pictures:
        some.append(picture)
        pixels = sum(picture.pixels.size // 3 for picture in some)
        if len(some) == BATCH or pixels >= WAITING_PIXELS:
            yield some
            some = []
    if some:
        yield some


def _picture(picture: Readable) -> Picture:
    if isinstance(picture, str | os.PathLike):
        return Picture(os.fspath(picture), read_picture(picture))
    return Picture("", as_pixels(picture))
