"""Orbax checkpoints: everything needed to go on bit for bit."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from deep_emotion_jax.errors import UserError

Pytree = Any


class Checkpoints:
    """The two newest checkpoints of a run, one folder per epoch, written in the background.

    Orbax writes to a temporary folder and renames it once complete, so a kill at any moment leaves
    whole checkpoints only. Use as a context manager: leaving it waits for the last write.

    Args:
      folder: where they lie; made if absent.
    """

    def __init__(self, folder: Path):
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(2),
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, epoch: int, state: Pytree) -> None:
        """Starts writing the state as it is after `epoch` epochs."""
        self._manager.save(epoch, args=ocp.args.StandardSave(state))

    def restore_newest(self, like: Pytree) -> tuple[int, Pytree] | None:
        """The newest checkpoint that can be read, as (epoch, state), or None without any.

        A damaged one is reported, removed and passed over, so that training goes on from the one
        before it.

        Args:
          like: a state of the same structure, shapes and placement.

        Raises:
          UserError: if there are checkpoints and none can be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        epochs = sorted(self._manager.all_steps(), reverse=True)
        for epoch in epochs:
            try:
                state = self._manager.restore(epoch, args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
                logging.warning(
                    "%s/%d cannot be read, passing over it: %s", self._folder, epoch, error
                )
                continue
            for damaged in (other for other in epochs if other > epoch):
                self._manager.delete(damaged)
            return epoch, state
        if epochs:
            raise UserError(
                f"no checkpoint in {self._folder} can be read; choose another --workdir, or remove "
                "that folder to start anew"
            )
        return None
