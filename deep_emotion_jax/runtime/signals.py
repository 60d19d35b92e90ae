"""Stop requests: signals are recorded at once and handled when the state can be saved."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax

STOPPED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: no error; run the same command again


SECONDS_TO_STOP = 10.0  # Kubernetes and Slurm kill 30 s after SIGTERM


class Stopped(Exception):  # noqa: N818 - not an error
    """Training was asked to stop. The message says which epoch is saved and where."""


@contextmanager
def stop_requests() -> Iterator[list[str]]:
    """Collects SIGTERM and SIGINT while open; does nothing outside the main thread.

    Yields a list to which the handler appends the signals' names. The handler does nothing else,
    because an epoch or a checkpoint may be incomplete. A second signal is handled as before.
    """
    requests: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        requests.append(signal.Signals(number).name)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ready_or_stopped(result: jax.Array, requests: list[str]) -> bool:
    """Waits for a result, but at most SECONDS_TO_STOP after a stop is requested.

    JAX's own wait cannot be interrupted: Python runs no signal handler before it returns.

    Returns:
      Whether the result is ready.
    """
    began = time.monotonic()
    deadline = None
    while not result.is_ready():  # type: ignore[attr-defined]
        now = time.monotonic()
        if requests:
            deadline = deadline or now + SECONDS_TO_STOP
            if now > deadline:
                return False
        time.sleep(min(0.05, max(1e-4, 0.01 * (now - began))))  # adds 1 % at most
    return True
