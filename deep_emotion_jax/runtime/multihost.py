"""One training in many processes: how they start, agree and read their shares of the data.

Every process runs the same program (JAX's multi-controller model). What may differ between them is
decided here: who writes, who has failed, who was asked to stop. In a single process all of it is
free of communication. docs/scaling.md has the command lines.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from deep_emotion_jax.data.split import Split, load_split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.runtime.signals import Stopped

T = TypeVar("T")

# JAX aborts every process, with pages of stack, once the first is gone: it goes last.
SECONDS_TO_LEAVE = 5


@contextmanager
def joined() -> Iterator[None]:
    """Trains with the other processes while open; to be opened before any other use of JAX.

    JAX finds them by itself on Cloud TPU, under Slurm, Open MPI and Kubernetes. Elsewhere the
    environment says where the first process listens, how many there are and which this one is:
    JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID. Only the first
    process prints. An error ends the process, and so all of them, with exit code 1.

    Raises:
      UserError: if the environment does not say it, or the others are not reached in five minutes.
    """
    # JAX takes SIGTERM for itself otherwise; `stopping` has its own way with it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            num_processes=_number("JAX_NUM_PROCESSES"),
            process_id=_number("JAX_PROCESS_ID"),
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed: cannot join the other processes ({' '.join(str(error).split())}); "
            "under Slurm, Open MPI or on Cloud TPU start all of them with one launcher, elsewhere "
            "set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID for each"
        ) from error
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    try:
        yield
    except Stopped:
        jax.distributed.shutdown()  # in order: all of them are stopped
        raise
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        _leave(error)


def is_first() -> bool:
    """Whether this process is the one that prints and writes; true of a single one."""
    return jax.process_index() == 0


def any_process(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set in any process. All must call it."""
    return tuple(process_allgather(np.array(flags)).any(0).tolist())


def gather(value: Any) -> list[Any]:
    """The values that JSON can hold of all processes, in their order. All must call it."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = process_allgather(np.array(len(text)))
    texts = process_allgather(np.resize(text, sizes.max()))
    return [json.loads(row[:size].tobytes()) for row, size in zip(texts, sizes, strict=True)]


def require_same(value: Any, what: str) -> None:
    """Checks that all processes hold an equal value; all must call it.

    Raises:
      UserError: in all of them, if they do not.
    """
    values = gather(value)
    different = [i for i, other in enumerate(values) if other != values[0]]
    if different:
        raise UserError(
            f"process {different[0]} has other {what} than process 0; start all processes of a "
            "training with the same arguments and the same data"
        )


def in_step(action: Callable[[], T], *, only_first: bool = False) -> T | None:
    """Does a part of the work that may fail; none goes on before all have done theirs.

    Args:
      action: what to do.
      only_first: do it in the first process alone.

    Returns:
      The action's result; None where it was not this process's to do.

    Raises:
      UserError: in all processes, if it is raised in one.
    """
    if jax.process_count() == 1:
        return action()
    result, problem = None, None
    if is_first() or not only_first:
        try:
            result = action()
        except UserError as error:
            problem = str(error)
    for found in gather(problem):
        if found is not None:
            raise UserError(found)
    return result


def read_split(source: Any) -> Split:
    """Reads a source with all processes, each its share, and gives the whole to each.

    Args:
      source: as `data.load_split` takes it, the same in all processes.

    Returns:
      What `load_split` returns in a single process, in the same order.

    Raises:
      UserError: if the source has another length in another process.
    """
    parts = jax.process_count()
    if parts == 1:
        return load_split(source)
    require_same(len(source), "images prepared")
    own = in_step(lambda: load_split(source, jax.process_index(), parts))
    assert own is not None

    def whole(values: Any) -> Any:
        """[part, place within it, ...] -> [place in the source, ...]."""
        return np.swapaxes(values, 0, 1).reshape(-1, *np.shape(values)[2:])[: len(source)]

    def of_all(part: Any) -> Any:
        if part is None:
            return None
        return (
            whole(gather(part)).tolist()
            if isinstance(part, list)
            else whole(process_allgather(part))
        )

    return Split(*map(of_all, own))


def _leave(error: Exception) -> NoReturn:
    """Ends this process; not in order, which would wait for others that wait for this one."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in text:
        print(
            f"error: another process of this training has ended ({text[:300]}); start all of them "
            "again: they go on from the newest whole checkpoint",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        time.sleep(SECONDS_TO_LEAVE)
    os._exit(1)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not text.isdecimal():
        raise UserError(f"{variable}={text!r} must be a whole number")
    return int(text)
