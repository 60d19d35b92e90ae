"""Serves the demo's page, with limits on uploads and a content security policy.

Pictures stay on the machine that serves the page: Gradio's telemetry, run history and share links
are off, the page uses no web fonts, and the content security policy blocks other hosts.
"""

import asyncio
import secrets
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from deep_emotion_jax.errors import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD_BYTES = 10 * 1024**2
UPLOAD_SECONDS = 120  # a request that is slower is dropped
# Number of visitors whose last result is kept in memory, about 85 kB each.
VISITORS = 1000
# Gradio's page needs inline scripts and styles.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; "
    "frame-ancestors 'self'"
)
STYLE = """
.gradio-container { max-width: 1100px !important; margin: 0 auto !important; }
img.frame { width: 100%; }
"""


def serve(
    page: gr.Blocks,
    host: str,
    port: int | None,
    token: str | None = None,
    warm_up: Callable[[], None] = lambda: None,
) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
      page: from `build`.
      host: the address to listen on.
      port: the port; None for the first free one from 7860.
      token: the password for visitors; None for none.
      warm_up: called once the server listens, before the address is printed.

    Raises:
      UserError: if the server cannot listen there.
    """
    # Handles SIGTERM like SIGINT, which deletes the pictures.
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
            state_session_capacity=VISITORS,
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
    try:
        warm_up()
        print(f"The page is at {url} (Ctrl-C stops it)", flush=True)
        page.block_thread()
    finally:
        page.close(verbose=False)


def _login(token: str | None) -> Callable[[str, str], bool] | None:
    """Returns a function that checks a visitor's name and password; None without a token."""
    if token is None:
        return None
    return lambda _name, given: secrets.compare_digest(given.encode(), token.encode())


class Guard:
    """Middleware that refuses large and slow requests and adds the content security policy."""

    def __init__(self, app: "ASGIApp"):
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        # Browsers always send the length of the body; without it, the body could have any. The
        # other fields of the form fit into the extra 64 kB.
        if b"transfer-encoding" in headers:
            await PlainTextResponse("send a content-length", 411)(scope, receive, send)
            return
        if int(headers.get(b"content-length", 0)) > UPLOAD_BYTES + 2**16:
            message = f"send at most {UPLOAD_BYTES >> 20} MB"
            await PlainTextResponse(message, 413)(scope, receive, send)
            return

        deadline, complete = asyncio.get_running_loop().time() + UPLOAD_SECONDS, False

        async def timely() -> "Message":
            nonlocal complete
            if complete:  # then this waits until the visitor leaves
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                return {"type": "http.disconnect"}
            complete = not message.get("more_body", False)
            return message

        async def confined(message: "Message") -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message["headers"], policy]
            await send(message)

        try:
            await self._app(scope, timely, confined)
        except ClientDisconnect:
            if not complete:
                text = f"the upload took more than {UPLOAD_SECONDS} s"
                await PlainTextResponse(text, 408)(scope, receive, send)
