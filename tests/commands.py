"""Runs the commands of the repository as a user does."""

import re
import subprocess
import sys
from pathlib import Path

from deep_emotion_jax.__main__ import main

ROOT = Path(__file__).parent.parent
GOLDEN_FILES = ROOT / "tests" / "golden"


def run(*arguments, cwd=ROOT):
    """Runs `python ARGUMENTS` in a folder and waits for its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def train_arguments(prepared, workdir, epochs=3):
    """A short training on the small dataset of the `prepared` fixture."""
    return [
        *("main.py", f"--workdir={workdir}", f"--config.data_dir={prepared}"),
        *(f"--config.num_epochs={epochs}", "--config.recipe.batch_size=16"),
        "--config.recipe.learning_rate=5e-4",  # higher rates collapse at this batch size
        "--config.seconds_between_checkpoints=0",
    ]


def fails(*arguments, words):
    """Runs a command that must fail with a message of these words and without a traceback."""
    done = run(*arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for word in words:
        assert str(word) in done.stderr


def fails_here(capsys, *arguments, words):
    """`fails` for a command of `deep-emotion`, run in this process to save the imports."""
    assert main(list(map(str, arguments))) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    for word in words:
        assert str(word) in message


def run_examples(page, count):
    """Runs the Python blocks of a page of docs/ as one program."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert len(blocks) == count
    names: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
