"""A web page that names the expression in a picture and shows what the answer depends on.

Pictures stay on the machine that serves the page: Gradio's telemetry, run history and share links
are off, the page uses no web fonts, and a content security policy forbids it to load from or send
to other hosts. Uploads are kept in a temporary folder until they are old or the server ends.

One picture is processed at a time and the others are queued, so memory does not grow with the
number of visitors.
"""

import os
import secrets
import signal
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

# Gradio reads these when it is imported.
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
# Visitors that can wait; further ones are told that the page is busy.
QUEUE = 100
# How often old files are deleted, and how old they may become, in seconds.
CLEANING, KEPT = 60, 600
# Sizes of the drawings in pixels.
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

Upload a picture or use the webcam. This page is served by one computer, and **your picture is not
sent to any other**. It is deleted within 15 minutes.
"""
CANNOT_TELL = """
### What this cannot tell you

- **An expression is not a feeling.** People smile when they are sad and frown when they think. The
  network names what one still face looks like, not what the person feels, means or is like.
- **It always answers.** It must choose one of seven words. A high probability does not mean that
  the answer is right.
- **It is often wrong, and more often for some people than for others.** It was trained on pictures
  from web searches, with noisy labels and people who are not a fair sample. Its errors across age,
  skin colour, sex, culture, disability and illness have not been measured.
- **Do not judge people by it:** not in hiring, policing, schools, medicine or any other decision
  about a person. In workplaces and schools of the European Union, that is prohibited by law (AI
  Act, Article 5(1)(f)).
"""


class _Analysis:
    """Answers the page's questions: a picture in, the values of the output components out."""

    def __init__(self, predictors: Mapping[str, Predictor]):
        self._predictors = predictors

    def answer(self, path: str | None, model: str, chosen: int = 0) -> list[Any]:
        """Analyse the picture at `path`; `chosen` is the number of the face to explain.

        Returns:
          A note, the choice of faces, the probabilities, the drawings of importance and region, and
          the picture with its boxes.
        """
        nothing = [gr.Radio(visible=False), None, None, None, None]
        if path is None:
            return ["", *nothing]
        predictor = self._predictors[model]
        try:
            picture = Picture("", pictures.read_picture(path))
        except UserError as error:
            reason = str(error).replace(path, "the picture")
            raise gr.Error(reason, duration=None, print_exception=False) from error
        prediction = next(predictor.stream([picture]))
        faces = prediction.faces
        if not faces:
            note = "**No face found.** The detector looks for upright faces seen from the front."
            return [note, *nothing]
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


def build(predictors: Mapping[str, Predictor]) -> gr.Blocks:
    """Build the page.

    Args:
      predictors: the networks to choose from, by name; the first is the default.
    """
    analyse = _Analysis(predictors).answer
    with gr.Blocks(
        title="Deep-Emotion", analytics_enabled=False, delete_cache=(CLEANING, KEPT)
    ) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                picture, model, boxes = _inputs(list(predictors))
            with gr.Column():
                face, probabilities, drawings, note = _answers()
        gr.Markdown(CANNOT_TELL)
        outputs = [note, face, probabilities, *drawings, boxes]
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


def _inputs(models: list[str]) -> tuple[gr.Image, gr.Dropdown, gr.Image]:
    """Add the left column: picture, network, and the faces that were found."""
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
    model = gr.Dropdown(models, label="Network", interactive=True)
    boxes = gr.Image(label="Faces found", format="jpeg", interactive=False, height=360, buttons=[])
    return picture, model, boxes


def _answers() -> tuple[gr.Radio, gr.Label, list[gr.Image], gr.Markdown]:
    """Add the right column: choice of a face, its probabilities, two drawings, and a note."""
    face = gr.Radio([], label="Face", visible=False, interactive=True)
    probabilities = gr.Label(label="Expression")
    with gr.Row():
        drawings = [
            gr.Image(label=label, format="png", interactive=False, buttons=[])
            for label in ("Regions that matter", "Attended region")
        ]
    return face, probabilities, drawings, gr.Markdown()


def serve(page: gr.Blocks, host: str, port: int | None, token: str | None = None) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
      page: from `build`.
      host: the address to listen on.
      port: the port; None for the first free one from 7860.
      token: the password that visitors must give; None for none.

    Raises:
      UserError: if nothing can listen there.
    """
    # SIGTERM then ends as SIGINT does, which deletes the pictures.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    fonts = ["system-ui", "sans-serif"]
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=_login(token),
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


def _login(token: str | None) -> Callable[[str, str], bool] | None:
    """Whether a visitor who gives a name and a password may enter; None if all may."""
    if token is None:
        return None
    return lambda _name, given: secrets.compare_digest(given.encode(), token.encode())


class Guard:
    """Refuse large requests before they are read, and confine the page to this server."""

    def __init__(self, app: "ASGIApp"):
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        # A body without a stated length could have any; browsers always state it. The fields of the
        # form around the file fit into the extra 64 kB.
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
