"""Coverage-guided fuzzing of one target with atheris.

    pip install atheris                                    # wheels for Python 3.11 to 3.13
    python -m tests.fuzz.coverage_guided "zip archive" -runs=100000

Options after the target's name are passed to libFuzzer. A defect ends the run with a traceback.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["datasets", "deep_emotion_jax"]):
    from .targets import TARGETS, check, valid


def main() -> None:
    """Runs libFuzzer on the target."""
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as corpus, tempfile.TemporaryDirectory() as folder:
        for i, seed in enumerate(valid(name)):
            (Path(corpus) / str(i)).write_bytes(seed)

        def one(data: bytes) -> None:
            check(TARGETS[name].lay(Path(folder), data), Path(folder))

        atheris.Setup([sys.argv[0], *options, corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
