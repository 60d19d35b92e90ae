"""Frames of videos and of the webcam, upright and with their exact times, read by PyAV (FFmpeg)."""

import math
import os
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from deep_emotion_jax.errors import UserError

# Larger frames are refused before they are decoded: 8K has half as many pixels.
MAX_PIXELS = 1 << 26
# Frames a second for streams that say neither times nor a believable rate.
DEFAULT_RATE, MAX_RATE = 25.0, 1000.0
# A stream that ends so many seconds before its stated end has been cut off.
MISSING = 1.0


class Every(NamedTuple):
    """Which frames to take: one in so many, and at most one in so many seconds."""

    frames: int = 1
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Every":
        """Read "5", every fifth frame, or "0.2s", a frame every 0.2 seconds.

        Raises:
          ValueError: for anything else, zero included.
        """
        if re.fullmatch(r"[0-9]{1,9}", text) and int(text) > 0:
            return cls(frames=int(text))
        if re.fullmatch(r"[0-9]{0,9}\.?[0-9]{1,9}s", text) and float(text[:-1]) > 0:
            return cls(seconds=float(text[:-1]))
        raise ValueError(f"{text!r} is neither a number of frames such as 5 nor a time as 0.2s")


ALL = Every()


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
      number: from 0, in the order of the video; frames that are not taken are counted.
      seconds: from the first frame to this one.
      pixels: uint8 [H, W, 3] RGB, upright by the video's rotation.
    """

    number: int
    seconds: float
    pixels: np.ndarray


class Video:
    """An open video file or camera; use it in a `with` statement.

    Args:
      path: of the file; None for the first camera.

    Attributes:
      source: the path, or "webcam".
      duration: seconds, as the file states it; None if it does not.

    Raises:
      UserError: without PyAV, or if there is no video that can be read.
    """

    def __init__(self, path: str | os.PathLike[str] | None):
        self.source = "webcam" if path is None else os.fspath(path)
        av = _pyav(self.source)
        self._errors = (av.FFmpegError, OSError, ValueError)
        if path is not None and not os.path.isfile(path):
            raise UserError(f"there is no file {self.source}")
        name, form, options = camera_input() if path is None else _file_input(path)
        # Since version 19, text that is not UTF-8 is no error.
        lenient: Any = (
            {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        )
        try:
            self._container = av.open(name, format=form, options=options, **lenient)
        except self._errors as error:
            raise self._no_frame(error) from error
        try:
            self._open_stream(is_file=path is not None)
        except BaseException:
            self._container.close()
            raise

    def _open_stream(self, is_file: bool) -> None:
        streams = self._container.streams.video
        if not streams:
            raise UserError(f"{self.source} has no video stream, perhaps only sound; give a video")
        self._stream: Any = self._container.streams.best("video") or streams[0]
        if self._stream.codec_context is None:
            raise self._no_frame("FFmpeg has no decoder for it")
        width, height = self._stream.width, self._stream.height
        self._check_size(width, height)
        self._stream.thread_type = "AUTO"
        self._stated_end = _stated_end(self._stream) if is_file else None
        whole = self._container.duration if is_file else None
        self.duration = self._stated_end or (whole / 1e6 if whole and whole > 0 else None)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise UserError(
                f"{self.source} has frames of {width} x {height} pixels, more than "
                f"{MAX_PIXELS / 1e6:.0f} million; scale it down, as with "
                "ffmpeg -i IN -vf scale=1920:-2 OUT"
            )

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def frames(self, every: Every = ALL) -> Iterator[Frame]:
        """The frames, one at a time.

        Raises:
          UserError: after the last frame that can be read, if there is none, if the file is cut
            off, or if parts in between are damaged.
        """
        number, seconds, due, rate = -1, 0.0, 0.0, _rate(self._stream)
        start: float | None = None
        for number, image in enumerate(self._decoded()):
            time = image.time
            if time is None or not math.isfinite(time):
                time = number / rate + (start or 0)
            start = time if start is None else start
            seconds = max(seconds, time - start)
            # A hundredth of the step allows for times that are rounded to milliseconds.
            if number % every.frames or seconds < due - every.seconds / 100:
                continue
            if every.seconds:
                due = (math.floor(seconds / every.seconds + 0.01) + 1) * every.seconds
            yield Frame(number, seconds, self._upright(image))
        if number < 0:
            raise self._no_frame("it is empty" if not self._problem else self._problem)
        if self._problem:
            raise UserError(
                f"{self.source} is damaged or cut off ({self._problem}): what could be read, "
                f"{seconds:.1f} s, was used; copy the file again"
            )
        # Some files count the time before the first frame, others do not.
        end = seconds + max(0.0, start or 0.0)
        if self._stated_end is not None and end + MISSING < self._stated_end:
            raise UserError(
                f"{self.source} ends after {seconds:.1f} of {self._stated_end:.1f} s, it is cut "
                "off; what is there was used; copy the file again"
            )

    def _decoded(self) -> Iterator[Any]:
        """Decodes all that can be; `_problem` tells of the rest."""
        self._problem = ""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._errors as error:
                self._problem = _reason(error)
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except self._errors as error:
                self._problem = _reason(error)

    def _upright(self, image: Any) -> np.ndarray:
        self._check_size(image.width, image.height)
        pixels = image.to_ndarray(format="rgb24")
        # PyAV counts counterclockwise, as NumPy does.
        return np.ascontiguousarray(np.rot90(pixels, round(image.rotation / 90)))

    def _no_frame(self, reason: object) -> UserError:
        if self.source == "webcam":
            return UserError(
                f"FFmpeg reads no frame from the webcam ({_reason(reason)}): connect one and close "
                "other programs that use it, or use the page of `deep-emotion demo`, where the "
                "browser reads the webcam"
            )
        return UserError(
            f"FFmpeg reads no frame from {self.source} ({_reason(reason)}): it is damaged, cut "
            "off, or no video; copy or convert it again"
        )


def camera_input() -> tuple[str, str, dict[str, str]]:
    """What FFmpeg opens as the first camera: its name, format and options on this system.

    Raises:
      UserError: if Windows lists no camera.
    """
    if sys.platform == "darwin":
        return "default:none", "avfoundation", {"framerate": "30"}
    if sys.platform != "win32":
        return "/dev/video0", "v4l2", {}
    import av.device

    for device in av.device.enumerate_input_devices("dshow"):
        if "video" in device.media_types:
            return f"video={device.name}", "dshow", {}
    raise UserError("there is no webcam: connect one")


def _file_input(path: str | os.PathLike[str]) -> tuple[str, None, dict[str, str]]:
    # FFmpeg takes the start of "a:b.mp4" for a protocol. A playlist must not lead to the network.
    return os.path.abspath(path), None, {"protocol_whitelist": "file"}


def _pyav(source: str) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise UserError(
            f'reading {source} needs PyAV: pip install ".[video]" in the project\'s folder'
        ) from error
    # FFmpeg's own messages, about every odd packet, would break into the progress bar.
    av.logging.set_level(av.logging.PANIC)
    return av


def _rate(stream: Any) -> float:
    rate = float(stream.average_rate or 0)
    return rate if 0 < rate <= MAX_RATE else DEFAULT_RATE


def _stated_end(stream: Any) -> float | None:
    """Seconds of the video stream itself: that of the file may be its sound's."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    stated = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if stated is None:
        return None
    return int(stated[1]) * 3600 + int(stated[2]) * 60 + float(stated[3])


def _reason(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
