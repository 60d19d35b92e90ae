"""Orbax checkpoints of the whole training state, with a checksum; resuming is bit-exact."""

import hashlib
import json
import sys
import traceback
from logging import ERROR, LogRecord, getLogger
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.runtime.multihost import any_process

Pytree = Any
_LOGGERS = (logging.get_absl_logger(), getLogger("asyncio"))


class Checkpoints:
    """The two newest checkpoints of a run, one folder per epoch, written in the background.

    Orbax writes to a temporary folder and renames it when it is complete, so a killed process
    leaves only whole checkpoints. Each holds its SHA-256, which detects files damaged later. Use as
    a context manager: leaving it waits for the last write. Several processes save and restore
    together in one shared folder; their number may change between runs.

    Args:
      folder: the folder of the checkpoints; created if it does not exist.

    Raises:
      UserError: if the folder cannot be written.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=ocp.checkpoint_managers.LatestN(2),
                    cleanup_tmp_directories=True,
                ),
            )
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error}") from error

    def __enter__(self) -> "Checkpoints":
        for logger in _LOGGERS:
            logger.addFilter(_not_twice)
        self._hook, sys.unraisablehook = sys.unraisablehook, _without_leftovers
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error
        finally:
            self._manager.close()
            for logger in _LOGGERS:
                logger.removeFilter(_not_twice)
            sys.unraisablehook = self._hook

    def save(self, epoch: int, state: Pytree, notes: dict[str, Any]) -> None:
        """Starts writing the state after `epoch` epochs.

        Args:
          epoch: the checkpoint's name.
          state: arrays, replicated on every device.
          notes: any JSON value; `restore_newest` returns it.

        Raises:
          UserError: if this checkpoint or the one before it cannot be written.
        """
        content = {"notes": notes, "sha256": _digest(state, notes)}
        try:
            self._manager.save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), content=ocp.args.JsonSave(content)
                ),
            )
        except Exception as error:  # TensorStore raises its own types for a full disk
            raise self._failed(error) from error

    def restore_newest(
        self, like: Pytree, *, needed: bool = True
    ) -> tuple[int, Pytree, dict[str, Any]] | None:
        """Returns the newest whole checkpoint as (epoch, state, notes), or None if there is none.

        Damaged checkpoints are logged and removed, and the one before them is used.

        Args:
          like: a state of the same structure, shapes and sharding.
          needed: raise an error if all checkpoints are damaged; otherwise delete them.

        Raises:
          UserError: if there are checkpoints, none is whole, and one is needed.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        epochs = sorted(self._manager.all_steps(), reverse=True)
        for epoch in epochs:
            reason = None
            try:
                found = self._manager.restore(
                    epoch,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(abstract), content=ocp.args.JsonRestore()
                    ),
                )
                notes = found.content["notes"]
                if _digest(found.state, notes) != found.content["sha256"]:
                    raise ValueError("its content does not match its checksum")
            except Exception as error:  # Orbax and TensorStore raise many types for damaged files
                reason = _reason(error)
                logging.warning(
                    "checkpoint %s/%d is damaged and skipped: %s", self.folder, epoch, reason
                )
            if any_process(reason is not None)[0]:
                continue  # all processes must use the same one
            for damaged in (other for other in epochs if other > epoch):
                self._manager.delete(damaged)
            return epoch, found.state, notes
        if epochs and needed:
            raise UserError(
                f"no checkpoint in {self.folder} can be read; choose another --workdir, or remove "
                "that folder to start again"
            )
        for damaged in epochs:  # Orbax saves nothing below the newest number
            self._manager.delete(damaged)
        return None

    def _failed(self, error: Exception) -> UserError:
        return UserError(
            f"cannot write a checkpoint to {self.folder}: {_reason(error)}; "
            "free some disk space and run the command again to resume from the newest whole "
            "checkpoint"
        )


def _not_twice(record: LogRecord) -> bool:
    """Drops log records for errors that Orbax also raises.

    Orbax's threads log them, and asyncio logs the other failed reads of a failed restore.
    """
    unawaited = record.name == "asyncio" and "exception was never retrieved" in record.getMessage()
    return record.levelno < ERROR or not (unawaited or _is_orbax(record.pathname))


def _without_leftovers(unraisable: Any) -> None:
    """Drops errors of reads that finish after their restore has failed.

    By then TensorStore's event loop is closed, and nothing awaits Orbax's coroutines.
    """
    frames = traceback.extract_tb(unraisable.exc_traceback)
    from_orbax = any(_is_orbax(frame.filename) for frame in frames)
    if not from_orbax and str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _is_orbax(source: str) -> bool:
    """Whether a source file belongs to Orbax."""
    return "orbax" in Path(source).parts


def _reason(error: Exception) -> str:
    """Returns the message in one line; of a long one its end, where TensorStore names the cause."""
    line = " ".join(str(error).split())
    return line if len(line) < 300 else f"... {line[-300:]}"


def _digest(state: Pytree, notes: dict[str, Any]) -> str:
    """Returns the SHA-256 of the notes and of each array's path, dtype, shape and bytes."""
    digest = hashlib.sha256(json.dumps(notes, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
