"""The layout of the demo's web page, which predicts and explains expressions.

The page takes pictures, the camera and, with PyAV, videos. Uploads stay in a temporary folder until
they expire or the server stops. Pictures are queued and processed one at a time, so memory does not
grow with the number of visitors. `demo_answers` computes the answers, `demo_server` serves the
page.
"""

import os
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

# Gradio reads these when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr
import skimage.data

from deep_emotion_jax.inference.demo_answers import VIDEO_SECONDS, VIDEO_STEP, Answers
from deep_emotion_jax.inference.demo_server import UPLOAD_BYTES

# Number of waiting visitors; more get the message that the page is busy.
QUEUE = 100
# Seconds between deletions of old files, and the age at which files are deleted.
CLEANING, KEPT = 60, 600
# Seconds between two frames of the camera; number of cameras at the same time; seconds until a
# camera makes way for a waiting one.
FRAME_EVERY, CAMERAS, TURN = 0.2, 4, 60
SAMPLES = ("astronaut.png", "chelsea.png")
INTRODUCTION = """
# Facial expression recognition

Choose a picture or a video, or use the camera. The computer that serves this page processes your
pictures, **does not send them to any other computer**, and deletes them within 15 minutes.
"""
CANNOT_TELL = """
### Limits

- **An expression is not a feeling.** People smile when they are sad and frown when they think. The
  network classifies the appearance of a face in one image. It cannot tell what the person feels,
  means or is like.
- **There is always a result.** The network chooses one of seven classes. A high probability does
  not mean that the prediction is right.
- **It is often wrong, and more often for some people than for others.** It was trained on pictures
  from web searches, with noisy labels and people who are not a representative sample. Its error
  rates by age, skin colour, sex, culture, disability and illness have not been measured.
- **Do not use it to judge people:** not in hiring, policing, schools, medicine or any other
  decision about a person. In workplaces and schools of the European Union, this is prohibited by
  law (AI Act, Article 5(1)(f)).
"""


def build(answers: Answers) -> gr.Blocks:
    """Build the page."""
    with gr.Blocks(
        title="Deep-Emotion", analytics_enabled=False, delete_cache=(CLEANING, KEPT)
    ) as page:
        gr.Markdown(INTRODUCTION)
        # Rendered at the end of the page, so that the answer comes first on a phone.
        model = gr.Dropdown(answers.models, label="Network", interactive=True, render=False)
        with gr.Tab("Picture"):
            _picture_tab(answers, model)
        with gr.Tab("Live camera"):
            _camera_tab(answers, model)
        with gr.Tab("Video"):
            if find_spec("av"):
                _video_tab(answers, model)
            else:
                gr.Markdown('Videos need PyAV: `pip install ".[video]"` in the project\'s folder.')
        model.render()
        gr.Markdown(CANNOT_TELL)
    return page.queue(max_size=QUEUE)


def _picture_tab(answers: Answers, model: gr.Dropdown) -> None:
    shown = gr.State(None, time_to_live=KEPT)
    with gr.Row():
        with gr.Column():
            picture = gr.Image(
                label="Picture",
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                image_mode=None,
                height=300,
                buttons=[],
                alt_text="The chosen picture",
            )
            samples = [str(files(skimage.data) / name) for name in SAMPLES]
            gr.Examples(samples, picture, label="Samples (from scikit-image)")
        with gr.Column():
            face = gr.Radio([], label="Face", visible=False, interactive=True)
            probabilities = gr.Label(label="Expression")
    with gr.Row():
        with gr.Column():
            boxes = _drawing("Faces found", "jpeg", "The picture with numbered boxes on its faces")
        with gr.Column():
            with gr.Row():
                importance = _drawing(
                    "Regions that matter",
                    "png",
                    "The face; orange marks where blurring changes the probability most",
                )
                region = _drawing("Attended region", "png", "The face with the attended region")
            note = gr.Markdown()
    outputs = [note, face, probabilities, importance, region, boxes, shown]
    first: dict[str, Any] = {"concurrency_id": "analyse", "concurrency_limit": 1}
    inner: dict[str, Any] = {"api_visibility": "private", **first}
    explained = {"inputs": [face, shown], "outputs": [note, importance], **inner}
    gr.on(
        [picture.change, model.input],
        answers.picture,
        [picture, model],
        outputs,
        api_name="analyse",
        **first,
    ).success(answers.explain, **explained)
    chosen: dict[str, Any] = {"inputs": [face, shown], "outputs": [probabilities, region], **inner}
    face.input(answers.face, **chosen).success(answers.explain, **explained)
    boxes.select(answers.clicked, shown, face, **inner).success(answers.face, **chosen).success(
        answers.explain, **explained
    )


def _camera_tab(answers: Answers, model: gr.Dropdown) -> None:
    follower = gr.State(None, time_to_live=KEPT)
    with gr.Row():
        with gr.Column():
            camera = gr.Image(
                label="Camera", sources=["webcam"], streaming=True, height=300, buttons=[]
            )
        with gr.Column():
            probabilities = gr.Label(label="Expression of the largest face")
            view = gr.HTML()
    camera.stream(
        answers.frame,
        [camera, model, follower],
        [view, probabilities, follower],
        stream_every=FRAME_EVERY,
        time_limit=TURN,
        concurrency_id="camera",
        concurrency_limit=CAMERAS,
        show_progress="hidden",
        api_visibility="private",
    )


def _video_tab(answers: Answers, model: gr.Dropdown) -> None:
    gr.Markdown(
        f"At most {UPLOAD_BYTES >> 20} MB. One frame per {VIDEO_STEP:g} s of the first "
        f"{VIDEO_SECONDS} s is analysed. Every person gets a number."
    )
    with gr.Row():
        with gr.Column():
            video = gr.Video(label="Video", sources=["upload"], height=300, buttons=[])
            start = gr.Button("Analyse the video", variant="primary")
        with gr.Column():
            film = gr.Video(
                label="Video with boxes", interactive=False, height=300, buttons=["download"]
            )
    lanes = gr.Image(
        show_label=False,  # A label would cover the first lane.
        format="png",
        interactive=False,
        buttons=[],
        alt_text="Expressions over time, one lane per person",
    )
    table = gr.Markdown()
    start.click(
        answers.film,
        [video, model],
        [film, lanes, table],
        api_name="video",
        concurrency_id="video",
        concurrency_limit=1,
    )


def _drawing(label: str, form: str, text: str) -> gr.Image:
    return gr.Image(label=label, format=form, interactive=False, buttons=[], alt_text=text)
