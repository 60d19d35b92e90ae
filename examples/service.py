"""Serve predictions over HTTP, with the files of `deep-emotion export --onnx`.

pip install fastapi uvicorn numpy pillow onnxruntime
python examples/service.py fer.onnx
curl --data-binary @photo.jpg -H "content-type: image/jpeg" http://127.0.0.1:8000/faces

Pictures are processed in memory and not stored. There is no password and no TLS: serve it on this
computer only, or behind a server that has both.
"""

import sys
from io import BytesIO

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image, UnidentifiedImageError
from without_jax import Faces

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
BYTES = 10 * 1024**2
PIXELS = 50_000_000  # A small file can decode to a large picture.


def create_app(network):
    """Return the service for the network at this path."""
    faces = Faces(network)
    app = FastAPI(title="Expressions of faces")

    @app.post("/faces")
    async def analyse(request: Request):
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind not in FORMATS:
            raise HTTPException(
                415, f"send {', '.join(FORMATS)} as the body, not {kind or 'nothing'}"
            )
        data = await body(request)
        return {"faces": await run_in_threadpool(answer, faces, data, FORMATS[kind])}

    return app


async def body(request):
    """Read the request's body; refuse it as soon as it is too large."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > BYTES:
            raise HTTPException(413, f"send at most {BYTES >> 20} MB")
    return bytes(data)


def answer(faces, data, kind):
    """Return the faces of a picture in format `kind`; HTTP errors if it is invalid or too large."""
    try:
        with Image.open(BytesIO(data), formats=[kind]) as picture:
            if picture.width * picture.height > PIXELS:
                raise HTTPException(413, f"send at most {PIXELS // 10**6} million pixels")
            return faces(picture)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise HTTPException(400, f"the body is not a valid {kind} picture") from error


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(create_app(sys.argv[1]), host="127.0.0.1", port=8000)
