"""Videos for tests: with given times, with a rotation, and of two faces that cross."""

import functools
import struct
from fractions import Fraction

import numpy as np
import skimage.data
from PIL import Image, ImageOps

TICK = Fraction(1, 1000)
# First entries of the matrix in an MP4's track header (Apple's QuickTime File Format).
MATRICES = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def write(path, frames, codec="libx264", **options):
    """Write (seconds, picture) pairs as a video with exactly these times, in milliseconds."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=30, options=options)
        for i, (seconds, pixels) in enumerate(frames):
            if i == 0:
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                stream.time_base = stream.codec_context.time_base = TICK
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(seconds / TICK), TICK
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def plain(times, size=(64, 48)):
    """Frames of one grey level each: 10 n for the n-th, at most 250."""
    for i, seconds in enumerate(times):
        yield seconds, np.full((size[1], size[0], 3), min(10 * i, 250), np.uint8)


def rotate(path, target, degrees):
    """Copy an MP4 and mark it to be shown rotated clockwise, as phones do."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = (value << 16 for value in MATRICES[degrees])
    content[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target


@functools.cache
def _face(mirrored):
    picture = Image.fromarray(skimage.data.astronaut()[20:240, 110:330]).resize((120, 120))
    if not mirrored:
        return np.asarray(picture)
    return (np.asarray(ImageOps.mirror(picture)) * [0.75, 0.8, 0.9]).astype(np.uint8)


def crossing(times, seconds, turns_back=False):
    """Two faces, 59 pixels wide, that cross on a moving background; the first hides the second.

    Args:
      times: of the frames.
      seconds: duration of the crossing.
      turns_back: whether both faces return to where they came from after they meet.

    Yields:
      Time, picture [360, 640, 3], and the centres of both faces.
    """
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(40, 160, (12, 24, 3), dtype=np.uint8))
    wall = np.asarray(noise.resize((1280, 360), Image.Resampling.BICUBIC))
    y, x = np.mgrid[:120, :120]
    oval = ((((x - 59.5) / 52) ** 2 + ((y - 59.5) / 59) ** 2) < 1)[..., None]
    for time in times:
        share = time / seconds
        picture = wall[:, round(320 * share) : round(320 * share) + 640].copy()
        way = 400 * ((1 - abs(1 - 2 * share)) / 2 if turns_back else share)
        lefts = (60 + way, 460 - way)
        tops = (110 + 20 * np.sin(3 * time), 120 + 20 * np.cos(2 * time))
        for i in (1, 0):
            top, left = round(tops[i]), round(lefts[i])
            np.copyto(picture[top : top + 120, left : left + 120], _face(i == 1), where=oval)
        yield time, picture, [(lefts[i] + 60, tops[i] + 60) for i in (0, 1)]
