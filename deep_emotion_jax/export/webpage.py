"""A static web page that detects faces and classifies expressions in the visitor's browser.

ONNX Runtime for the browser is 14 MB of WebAssembly and not part of this package: when the page is
written, npm fetches the release that the page is tested with. The page contacts no other host.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from importlib import resources
from pathlib import Path

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.export import programs
from deep_emotion_jax.nn.weights import Trained

RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def write_page(trained: Trained, folder: Path) -> None:
    """Write index.html and all its files to a folder, for any static server.

    Raises:
      UserError: without the extra `export` or npm, or if npm cannot fetch the runtime.
      OSError: if the folder cannot be written.
    """
    files = {
        "model.onnx": programs.to_onnx(trained, bits=12),
        "detector.onnx": programs.detector_to_onnx(bits=16),
        "model.json": json.dumps(programs.deployment(trained), indent=2).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    _fetch_runtime(folder)
    for file in (resources.files("deep_emotion_jax.export") / "static").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _fetch_runtime(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"the page needs {RUNTIME}, and npm to fetch it: install Node.js")
    with tempfile.TemporaryDirectory() as place:
        command = [npm, "pack", RUNTIME, "--prefer-offline", "--loglevel=error"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        found = list(Path(place).glob("*.tgz"))
        if done.returncode or not found:
            lines = " ".join(done.stderr.split())[-300:]
            raise UserError(f"npm cannot fetch {RUNTIME}; is there a network connection? {lines}")
        digest = hashlib.sha512(found[0].read_bytes()).digest()
        if base64.b64encode(digest).decode() != RUNTIME_SHA512:
            raise UserError(f"{RUNTIME} from npm has another checksum; use another registry")
        with tarfile.open(found[0]) as archive:
            for name in RUNTIME_FILES:
                source = archive.extractfile(f"package/dist/{name}")
                assert source is not None
                (folder / name).write_bytes(source.read())
