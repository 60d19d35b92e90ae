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
# Frames per second of streams without times and without a plausible rate; the highest plausible.
DEFAULT_RATE, MAX_RATE = 25.0, 1000.0
# A stream that ends this many seconds before its stated end is cut off.
MISSING = 1.0


class Every(NamedTuple):
    """Which frames to take: every n-th, and at most one in a number of seconds."""

    frames: int = 1
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Every":
        """Parse "5", every fifth frame, or "0.2s", a frame every 0.2 seconds.

        Raises:
          ValueError: for anything else, zero included.
        """
        if re.fullmatch(r"[0-9]{1,9}", text) and int(text) > 0:
            return cls(frames=int(text))
        if re.fullmatch(r"[0-9]{0,9}\.?[0-9]{1,9}s", text) and float(text[:-1]) > 0:
            return cls(seconds=float(text[:-1]))
        raise ValueError(
            f"{text!r} is neither a number of frames such as 5 nor a time such as 0.2s"
        )


ALL = Every()


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
      number: index in the video, from 0; skipped frames are counted.
      seconds: time since the first frame.
      pixels: uint8 [H, W, 3] RGB, upright by the video's rotation.
    """

    number: int
    seconds: float
    pixels: np.ndarray


class Video:
    """An open video file or camera; a context manager.

    Args:
      path: of the file; None for the first camera.

    Attributes:
      source: the path, or "webcam".
      duration: seconds, as stated in the file; None if it is not.

    Raises:
      UserError: if PyAV is not installed or the video cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str] | None):
        self.source = "webcam" if path is None else os.fspath(path)
        av = _pyav(self.source)
        self._errors = (av.FFmpegError, OSError, ValueError)
        if path is not None and not os.path.isfile(path):
            raise UserError(f"there is no file {self.source}")
        name, form, options = camera_input() if path is None else _file_input(path)
        # Before version 19, metadata that is not UTF-8 is an error by default.
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
        """Yields the frames, one at a time.

        Raises:
          UserError: after the last readable frame, if there is none, or if the file is cut off or
            damaged.
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
                f"{self.source} is damaged or cut off ({self._problem}); the {seconds:.1f} s that "
                "can be read were used; copy the file again"
            )
        # The stated end of some files includes the time before the first frame.
        end = seconds + max(0.0, start or 0.0)
        if self._stated_end is not None and end + MISSING < self._stated_end:
            raise UserError(
                f"{self.source} is cut off: {seconds:.1f} of {self._stated_end:.1f} s can be read "
                "and were used; copy the file again"
            )

    def _decoded(self) -> Iterator[Any]:
        """Yields all frames that can be decoded; `_problem` is the last error."""
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
                f"FFmpeg cannot read the webcam ({_reason(reason)}): connect one and close "
                "other programs that use it, or use the page of `deep-emotion demo`, where the "
                "browser reads the webcam"
            )
        return UserError(
            f"FFmpeg cannot read {self.source} ({_reason(reason)}): it is damaged, cut off or not "
            "a video; copy or convert it again"
        )


def camera_input() -> tuple[str, str, dict[str, str]]:
    """Returns FFmpeg's name, format and options for the first camera of this system.

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
    # FFmpeg would read "a:b.mp4" as a protocol. Playlists must not open network connections.
    return os.path.abspath(path), None, {"protocol_whitelist": "file"}


def _pyav(source: str) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise UserError(
            f'reading {source} needs PyAV: pip install ".[video]" in the project\'s folder'
        ) from error
    # FFmpeg's messages would interrupt the progress bar.
    av.logging.set_level(av.logging.PANIC)
    return av


def _rate(stream: Any) -> float:
    rate = float(stream.average_rate or 0)
    return rate if 0 < rate <= MAX_RATE else DEFAULT_RATE


def _stated_end(stream: Any) -> float | None:
    """Returns the seconds of the video stream; those of the file may be the sound's."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    stated = re.fullmatch(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d*)?)", stream.metadata.get("DURATION", ""))
    if stated is None:
        return None
    return int(stated[1]) * 3600 + int(stated[2]) * 60 + float(stated[3])


def _reason(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
