"""Stopping on request: a signal is noted when it comes and acted upon where state can be saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not an error; start the same command again


class Stopped(Exception):  # noqa: N818 - not an error
    """Training was asked to stop, and all of it is saved. The message says where to go on."""


@contextmanager
def stop_requests() -> Iterator[list[str]]:
    """Notes SIGTERM and SIGINT while open; does nothing outside the main thread.

    The list that it yields gets the signal's name. Nothing happens in the handler itself: there,
    half an epoch or half a checkpoint may be in the air. A second signal acts at once, as without
    this.
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
