"""Checkpoints: damage, full disks, and errors that are logged once."""

import asyncio
import gc
import logging
import os
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.runtime.checkpoint import Checkpoints


def state(epoch):
    return {"weights": jnp.arange(1000.0) * epoch, "step": jnp.int32(epoch)}


def save(folder, *epochs):
    with Checkpoints(folder) as checkpoints:
        for epoch in epochs:
            checkpoints.save(epoch, state(epoch), {"lines": [{"epoch": epoch, "loss": 0.1}]})


def restore(folder):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore_newest(state(0))


def check(found, epoch):
    assert found[0] == epoch
    np.testing.assert_array_equal(found[1]["weights"], state(epoch)["weights"])
    assert found[1]["step"] == epoch
    assert found[2] == {"lines": [{"epoch": epoch, "loss": 0.1}]}


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip,
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_skipped(tmp_path, damage):
    save(tmp_path / "whole", 1, 2)
    names = [path.relative_to(tmp_path / "whole") for path in files(tmp_path / "whole/2")]
    skipped = 0
    for i, name in enumerate(names):
        folder = tmp_path / str(i)
        shutil.copytree(tmp_path / "whole", folder)
        DAMAGES[damage](folder / name)
        found = restore(folder)
        check(found, found[0])  # the content is always that of its epoch
        skipped += found[0] == 1
    assert skipped >= 2, "damage to arrays or content was not detected"


def test_a_checkpoint_with_another_checksum_is_skipped(tmp_path, caplog):
    save(tmp_path / "a", 1, 2)
    save(tmp_path / "b", 3)
    # Orbax detects nothing here: all files are whole, but some belong to another checkpoint.
    shutil.rmtree(tmp_path / "a/2/state")
    shutil.copytree(tmp_path / "b/3/state", tmp_path / "a/2/state")
    check(restore(tmp_path / "a"), 1)
    assert "2 is damaged and skipped: its content does not match its checksum" in caplog.text
    save(tmp_path / "a", 2)  # the damaged one was removed
    check(restore(tmp_path / "a"), 2)


def test_no_whole_checkpoint_is_one_message(tmp_path):
    save(tmp_path, 1)
    for path in files(tmp_path / "1"):
        os.truncate(path, 0)
    with pytest.raises(UserError, match="no checkpoint in"):
        restore(tmp_path)


def test_damaged_checkpoints_that_are_not_needed_are_removed(tmp_path, caplog):
    save(tmp_path, 7, 9)
    for path in files(tmp_path):
        os.truncate(path, 0)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_newest(state(0), needed=False) is None
    assert caplog.text.count("is damaged and skipped") == 2
    save(tmp_path, 7, 8)  # Orbax saves nothing below the newest number
    check(restore(tmp_path), 8)


def big(epoch):
    return {"weights": np.random.default_rng(epoch).normal(size=300_000)}  # 1.2 MB


def test_a_full_disk_is_one_message_and_loses_one_checkpoint(small_disk, capfd):
    disk, make_room = small_disk
    folder = disk / "checkpoints"

    def fill():
        with Checkpoints(folder) as checkpoints:
            for epoch in (1, 2, 3, 4):
                checkpoints.save(epoch, jax.tree.map(jnp.asarray, big(epoch)), {})

    with pytest.raises(UserError, match="No space left"):
        fill()
    assert "Traceback" not in capfd.readouterr().err
    make_room()
    with Checkpoints(folder) as checkpoints:
        epoch, found, _ = checkpoints.restore_newest(jax.tree.map(jnp.asarray, big(0)))
        np.testing.assert_array_equal(found["weights"], big(epoch)["weights"].astype(np.float32))
        checkpoints.save(epoch + 1, found, {})


def test_an_empty_folder_gives_none(tmp_path):
    assert restore(tmp_path) is None


class Ends:
    """Raises an error that cannot be caught, as TensorStore's threads do."""

    def __init__(self, message):
        self.message = message

    def __del__(self):
        raise RuntimeError(self.message)


@pytest.mark.parametrize(
    ("message", "shown"), [("Event loop is closed", False), ("anything else", True)]
)
def test_only_errors_after_a_failed_restore_are_dropped(tmp_path, capfd, message, shown):
    before = sys.unraisablehook
    with Checkpoints(tmp_path):
        del (leftover := [Ends(message)])[0]
        assert leftover == []
    assert sys.unraisablehook is before
    assert (message in capfd.readouterr().err) == shown


def test_unraisable_errors_of_orbax_are_dropped(tmp_path, capfd):
    names = {}
    source = "class Ends:\n    def __del__(self):\n        raise ValueError('a read failed')"
    exec(compile(source, "site-packages/orbax/checkpoint/serialization.py", "exec"), names)
    with Checkpoints(tmp_path):
        names["Ends"]()
    assert capfd.readouterr().err == ""


def fail_unawaited():
    """A second read that fails: asyncio logs it when it is garbage-collected."""
    loop = asyncio.new_event_loop()
    loop.create_future().set_exception(OSError("OUT_OF_RANGE"))
    loop.close()
    gc.collect()


def test_the_log_of_a_second_failed_read_is_dropped(tmp_path, caplog):
    with Checkpoints(tmp_path):
        fail_unawaited()
        logging.getLogger("asyncio").error("anything else")
    assert caplog.messages == ["anything else"]
    fail_unawaited()
    assert "never retrieved" in caplog.messages[-1]
