"""A web page that names the expression in a picture and shows what the answer hangs on.

Pictures stay on the machine that serves the page: Gradio's telemetry, run history and share links
are off, fonts are the visitor's own, and a content security policy forbids the page to load from or
send to anywhere else. Uploads live in a temporary folder until they are old or the server ends.

One picture is worked on at a time; others wait in line, so memory does not grow with the visitors.
"""

import os
import signal
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

# Before Gradio is imported, which reads them then.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr
import skimage.data
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from deep_emotion_jax.data import pictures
from deep_emotion_jax.data.pictures import Picture
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference import drawing
from deep_emotion_jax.inference.predictor import Predictor

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD_BYTES = 10 * 1024**2
# Visitors that wait; one more is told that the page is busy.
QUEUE = 100
# How often old files are looked for and how old they may become, in seconds.
CLEANING, KEPT = 60, 600
# Pixels of what is drawn.
PICTURE, FACE = 800, 320
SAMPLES = ("astronaut.png", "chelsea.png")
# Gradio's page needs inline scripts and styles.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; "
    "frame-ancestors 'self'"
)
STYLE = """
.gradio-container { max-width: 1100px !important; margin: 0 auto !important; }
"""
INTRODUCTION = """
# Name the expression in a face

Give a picture or use the webcam. The page runs on this computer alone: **your picture is not sent
anywhere else**, and it is deleted within a quarter of an hour.
"""
CANNOT_TELL = """
### What this cannot tell you

- **An expression is not a feeling.** People smile when they are sad and frown when they think. The
  network names what one still face looks like, not what the person feels, means or is like.
- **It always answers.** It knows seven words and must choose among them. A high probability does
  not mean that the answer is right.
- **It is often wrong, and not equally for all.** It learned from pictures found by web searches,
  whose labels are noisy and whose people are no fair sample. Nobody has measured how it fares
  across age, skin colour, sex, culture, disability or illness.
- **Do not judge people by it:** not in hiring, policing, schools, medicine or any decision about a
  person. In some places, such as workplaces and schools in the European Union, that is against the
  law.
"""


def build(predictors: Mapping[str, Predictor]) -> gr.Blocks:
    """The page.

    Args:
      predictors: the networks to choose from, by name; the first is chosen at first.
    """

    def analyse(path: str | None, model: str, chosen: int = 0) -> list[Any]:
        nothing = [gr.Radio(visible=False), None, None, None, None]
        if path is None:
            return ["", *nothing]
        predictor = predictors[model]
        try:
            picture = Picture("", pictures.read_picture(path))
        except UserError as error:
            reason = str(error).replace(path, "the picture")
            raise gr.Error(reason, duration=None, print_exception=False) from error
        prediction = next(predictor.stream([picture]))
        faces = prediction.faces
        if not faces:
            return [
                "**No face found.** The detector looks for upright faces seen from the front.",
                *nothing,
            ]
        face = faces[chosen]
        importance = predictor.importance(face)
        choices = [(f"{i + 1} {drawing.answer(face)}", i) for i, face in enumerate(faces)]
        return [
            "Blurring the most orange place takes **"
            f"{100 * importance.max():.0f} percentage points** from the answer's probability.",
            gr.Radio(choices, value=chosen, visible=len(faces) > 1),
            face.probabilities,
            drawing.with_importance(face, importance, FACE),
            drawing.with_region(face, FACE),
            drawing.with_boxes(prediction, PICTURE),
        ]

    with gr.Blocks(
        title="Deep-Emotion", analytics_enabled=False, delete_cache=(CLEANING, KEPT)
    ) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                picture = gr.Image(
                    label="Picture",
                    sources=["upload", "webcam", "clipboard"],
                    type="filepath",
                    image_mode=None,
                    height=380,
                    buttons=[],
                )
                gr.Examples(
                    [str(files(skimage.data) / name) for name in SAMPLES],
                    picture,
                    label="Samples (from scikit-image)",
                )
                model = gr.Dropdown(list(predictors), label="Network", interactive=True)
                boxes = gr.Image(
                    label="Faces found", format="jpeg", interactive=False, height=360, buttons=[]
                )
            with gr.Column():
                face = gr.Radio([], label="Face", visible=False, interactive=True)
                probabilities = gr.Label(label="Expression")
                with gr.Row():
                    drawn = [
                        gr.Image(label=label, format="png", interactive=False, buttons=[])
                        for label in ("What the answer hangs on", "Where the sampler attends")
                    ]
                note = gr.Markdown()
        gr.Markdown(CANNOT_TELL)
        outputs = [note, face, probabilities, *drawn, boxes]
        shared: dict[str, Any] = {"concurrency_id": "analyse", "concurrency_limit": 1}
        gr.on(
            [picture.change, model.input],
            analyse,
            [picture, model],
            outputs,
            api_name="analyse",
            **shared,
        )
        face.input(analyse, [picture, model, face], outputs, api_visibility="private", **shared)
    return page.queue(max_size=QUEUE)


def serve(page: gr.Blocks, host: str, port: int | None) -> None:
    """Serves the page until SIGINT or SIGTERM.

    Args:
      page: from `build`.
      host: the address to listen on.
      port: the port; None for the first free one from 7860.

    Raises:
      UserError: if nothing can listen there.
    """
    # Both end in the same way, and the pictures are deleted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    fonts = ["system-ui", "sans-serif"]
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=True,
            max_file_size=UPLOAD_BYTES,
            theme=gr.themes.Default(font=fonts, font_mono=["monospace"]),
            css=STYLE,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            app_kwargs={"middleware": [Middleware(Guard)]},
        )
    except OSError as error:
        raise UserError(f"cannot listen on {host} port {port or 'from 7860'}: {error}") from error
    print(f"The page is at {url} (Ctrl-C ends it)", flush=True)
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)


class Guard:
    """Refuses large requests before they are read, and confines the page to this server."""

    def __init__(self, app: "ASGIApp"):
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        # A body of no stated length could have any; browsers always state it. What a form adds to
        # the file fits into the extra kilobytes.
        if b"transfer-encoding" in headers:
            await PlainTextResponse("state the content's length", 411)(scope, receive, send)
            return
        if int(headers.get(b"content-length", 0)) > UPLOAD_BYTES + 2**16:
            message = f"at most {UPLOAD_BYTES >> 20} MB, please"
            await PlainTextResponse(message, 413)(scope, receive, send)
            return

        async def confined(message: "Message") -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message["headers"], policy]
            await send(message)

        await self._app(scope, receive, confined)
