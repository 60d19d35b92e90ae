"""Training in many processes: initialization, synchronization, and reading of data.

Every process runs the same program (JAX's multi-controller model). These functions synchronize what
differs between them: which one writes, whether one has failed or was asked to stop. In a single
process they do not communicate. docs/scaling.md has the command lines.
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

# Delay of the first process: when it exits, JAX aborts the others with long stack traces.
SECONDS_TO_LEAVE = 5


@contextmanager
def joined() -> Iterator[None]:
    """Initializes `jax.distributed`; must be entered before any other use of JAX.

    JAX finds the processes on Cloud TPU, under Slurm, Open MPI and Kubernetes. Elsewhere three
    environment variables give the address of the first process (JAX_COORDINATOR_ADDRESS, as
    host:port), the number of processes (JAX_NUM_PROCESSES) and this one's index (JAX_PROCESS_ID).
    Only the first process prints. An error in one process ends all of them with exit code 1.

    Raises:
      UserError: if the variables are not set, or the processes do not connect in five minutes.
    """
    # Otherwise JAX handles SIGTERM itself, and `signals` would not see it.
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
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    try:
        yield
    except Stopped:
        jax.distributed.shutdown()  # does not block, because every process stops
        raise
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        _leave(error)


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return jax.process_index() == 0


def any_process(*flags: bool) -> tuple[bool, ...]:
    """Returns whether each flag is set in any process. All processes must call it."""
    return tuple(process_allgather(np.array(flags)).any(0).tolist())


def gather(value: Any) -> list[Any]:
    """Returns the JSON values of all processes, by index. All processes must call it."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = process_allgather(np.array(len(text)))
    texts = process_allgather(np.resize(text, sizes.max()))
    return [json.loads(row[:size].tobytes()) for row, size in zip(texts, sizes, strict=True)]


def require_same(value: Any, what: str) -> None:
    """Checks that all processes have equal JSON values. All processes must call it.

    Unlike JAX's `assert_equal`, it raises in every process, so no process waits for the others.

    Raises:
      UserError: in every process, if the values differ.
    """
    values = gather(value)
    different = [i for i, other in enumerate(values) if other != values[0]]
    if different:
        raise UserError(
            f"process {different[0]} and process 0 have different {what}; start all processes of a "
            "training with the same arguments and the same data"
        )


def in_step(action: Callable[[], T], *, only_first: bool = False) -> T | None:
    """Runs an action that may fail. Blocks until every process has finished.

    Args:
      action: the function to call.
      only_first: call it in the first process only.

    Returns:
      The action's result; None in processes that did not call it.

    Raises:
      UserError: in every process, if one raises it.
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
    """Reads a part of a source in each process and returns the whole split in each.

    Args:
      source: a source for `data.split.load_split`, the same in all processes.

    Returns:
      The same split as `load_split` in a single process.

    Raises:
      UserError: if the length differs between processes.
    """
    parts = jax.process_count()
    if parts == 1:
        return load_split(source)
    require_same(len(source), "prepared images")
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
    """Exits at once; an orderly shutdown would wait for processes that wait for this one."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in text:
        print(
            f"error: another process of this training has ended ({text[:300]}); start all of them "
            "again to resume from the newest whole checkpoint",
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
