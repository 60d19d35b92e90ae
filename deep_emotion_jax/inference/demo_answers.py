"""The demo's answers to a picture, a frame of the camera, and a video."""

import base64
import io
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import skimage.data
from PIL import Image

from deep_emotion_jax.data import pictures
from deep_emotion_jax.data.pictures import Picture
from deep_emotion_jax.data.video import Every, Video
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference import drawing, timeline, video
from deep_emotion_jax.inference.predictor import Face, Prediction, Predictor
from deep_emotion_jax.inference.summary import Summary, as_text

# Sizes of the drawings in pixels.
PICTURE, FACE = 800, 320
# Of an uploaded video, one frame per VIDEO_STEP seconds is analysed, up to VIDEO_SECONDS.
VIDEO_STEP, VIDEO_SECONDS = 0.1, 60
NO_FACE = "**No face found.** A face needs at least ten pixels, with visible eyes, nose and mouth."
EXPIRED = "**This picture was deleted.** Choose it again to see its other faces."


@dataclass(frozen=True)
class Shown:
    """The analysed picture on the page, for showing another of its faces."""

    model: str
    faces: tuple[Face, ...]
    scale: float  # of the drawing


class Answers:
    """Handles the events of the page.

    Args:
      predictors: network name -> predictor.
    """

    def __init__(self, predictors: Mapping[str, Predictor]):
        self._predictors = predictors

    @property
    def models(self) -> list[str]:
        """The networks' names; the first is the default."""
        return list(self._predictors)

    def warm_up(self) -> None:
        """Compile the programs for pictures of the usual shapes before visitors come."""
        sizes = [(640, 480), (480, 640), (512, 512)]
        for predictor in self._predictors.values():
            for size in sizes:
                image = Image.fromarray(skimage.data.astronaut()).resize(size)
                faces = predictor.predict(image).faces
            predictor.importance(faces[0])
            sizes = sizes[-1:]  # The predictors share the detector.

    def picture(self, path: str | None, model: str) -> list[Any]:
        """Analyse the picture at `path`.

        Returns:
          A note, the choice of faces, the probabilities, None for the importance, which `explain`
          adds, the region of the largest face, the picture with its boxes, and a `Shown`.
        """
        nothing = [gr.Radio(value=None, visible=False), None, None, None, None, None]
        if path is None:
            return ["", *nothing]
        try:
            picture = Picture("", pictures.read_picture(path))
        except UserError as error:
            raise _shown(error, path, "the picture") from error
        prediction = next(self._predictors[model].stream([picture]))
        faces = prediction.faces
        if not faces:
            return [NO_FACE, *nothing]
        drawn = drawing.with_boxes(prediction, PICTURE)
        scale = drawn.width / picture.pixels.shape[1]
        choices = [(f"{i + 1} {drawing.answer(face)}", i) for i, face in enumerate(faces)]
        return [
            _note(faces[0]),
            gr.Radio(choices, value=0, visible=len(faces) > 1),
            faces[0].probabilities,
            None,
            drawing.with_region(faces[0], FACE),
            drawn,
            Shown(model, faces, scale),
        ]

    def face(self, chosen: int | None, shown: Shown | None) -> list[Any]:
        """Return the probabilities and the region of the chosen face of the picture."""
        if shown is None or chosen is None:
            return [None, None]
        face = shown.faces[chosen]
        return [face.probabilities, drawing.with_region(face, FACE)]

    def clicked(self, shown: Shown | None, event: gr.SelectData) -> int | dict[str, Any]:
        """Return the index of the face nearest to a click on the drawing."""
        if shown is None:
            return gr.skip()
        place = np.array(event.index) / shown.scale
        distances = [np.hypot(*(place - face.box.centre)) / face.box.side for face in shown.faces]
        return int(np.argmin(distances))

    def explain(self, chosen: int | None, shown: Shown | None) -> list[Any]:
        """Return a note on the chosen face, and the drawing of its importance map."""
        if chosen is None:
            return [gr.skip(), None]
        if shown is None:
            return [EXPIRED, None]
        face = shown.faces[chosen]
        importance = self._predictors[shown.model].importance(face)
        note = (
            "Blurring the strongest orange region lowers the probability by **"
            f"{100 * importance.max():.0f} percentage points**."
        )
        return [f"{note} {_note(face)}", drawing.with_importance(face, importance, FACE)]

    def frame(
        self, pixels: np.ndarray | None, model: str, follower: video.Follower | None
    ) -> list[Any]:
        """Analyse a frame of the camera.

        Returns:
          The frame with its boxes as HTML, the probabilities of the largest face, and the state for
          the next frame.
        """
        if pixels is None:
            return ["", None, None]
        follower = follower or video.Follower()
        picture = Picture("webcam", pictures.as_pixels(pixels), 0, time.monotonic())
        prediction = follower(next(self._predictors[model].stream([picture])))
        best = prediction.faces[0].probabilities if prediction.faces else None
        return [_html(video.draw(prediction)), best, follower]

    def film(
        self,
        path: str | None,
        model: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[list[Any]]:
        """Analyse the video at `path`.

        Yields:
          Once, the film with boxes, the timeline, and the table of persons. The film is deleted
          afterwards.
        """
        if path is None:
            raise gr.Error("Choose a video first.", print_exception=False)
        predictor, summary = self._predictors[model], Summary()
        # Gradio copies the film to its own folder, serves it from there and deletes it.
        with tempfile.TemporaryDirectory() as folder:
            film = video.Film(Path(folder) / "faces.mp4", path)
            try:
                with Video(path) as opened:
                    length = min(opened.duration or VIDEO_SECONDS, VIDEO_SECONDS)
                    for prediction in self._followed(predictor, opened):
                        summary.add(prediction)
                        film.add(prediction)
                        done = min(1.0, (prediction.picture.seconds or 0.0) / max(length, 0.1))
                        progress(done, "Analysing")
                lanes = summary.finish()
                written = film.finish()
            except UserError as error:
                raise _shown(error, path, "the video") from error
            finally:
                film.discard()
            image = timeline.draw(lanes, summary.seconds, predictor.classes)
            text = f"```\n{as_text(lanes)}\n```" if lanes else "**No face found.**"
            yield [str(film.path) if written else None, image, text]

    def _followed(self, predictor: Predictor, opened: Video) -> Iterator[Prediction]:
        for prediction in video.follow(predictor, opened, Every(seconds=VIDEO_STEP)):
            if (prediction.picture.seconds or 0.0) > VIDEO_SECONDS:
                return
            yield prediction


def _html(image: Image.Image) -> str:
    """Embeds an image in the page; Gradio would keep every frame as a file."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    text = base64.b64encode(data.getvalue()).decode()
    alternative = "The camera picture with boxes around the faces"
    return f'<img class="frame" alt="{alternative}" src="data:image/jpeg;base64,{text}">'


def _note(face: Face) -> str:
    return f"Less certain: {', '.join(face.notes)}." if face.notes else ""


def _shown(error: UserError, path: str, name: str) -> gr.Error:
    return gr.Error(str(error).replace(path, name), duration=None, print_exception=False)
