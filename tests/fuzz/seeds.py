"""Small valid files of every supported format, to be damaged."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from flax import nnx
from PIL import Image

from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.weights import save_model

FACE = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)


def picture(form: str, mode: str = "L", side: int = 48, **options) -> bytes:
    """A picture file."""
    file = io.BytesIO()
    Image.fromarray(FACE).resize((side, side)).convert(mode).save(file, form, **options)
    return file.getvalue()


def dataset_pictures() -> list[bytes]:
    """Pictures in the formats of datasets."""
    return [
        picture("PNG"),
        picture("PNG", "RGB"),
        picture("PNG", "RGBA"),
        picture("PNG", "P"),
        picture("PNG", "1"),
        picture("JPEG"),
        picture("JPEG", "RGB", progressive=True),
        picture("TIFF"),
        picture("TIFF", "RGB", compression="tiff_lzw"),
        picture("TIFF", compression="tiff_adobe_deflate"),
    ]


def all_pictures() -> list[bytes]:
    """Pictures in the formats that `predict` reads."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        *dataset_pictures(),
        *(picture(form, "RGB") for form in ("AVIF", "BMP", "GIF", "JPEG2000", "PPM", "WEBP")),
        picture("WEBP", "RGBA", lossless=True),
        picture("JPEG", "RGB", exif=exif),
        picture("JPEG", "CMYK"),
        picture("PNG", "I;16"),
        picture("TIFF", "F"),
        picture("PPM", "L"),
        picture("PPM", "1"),
        picture("GIF", "P", save_all=True, append_images=[Image.new("P", (48, 48))]),
    ]


def csv(rows: int = 3) -> bytes:
    """FER-2013's table."""
    usages = ("Training", "PublicTest", "PrivateTest")
    pixels = " ".join(["7"] * 48 * 48)
    lines = [f"{i % 7},{pixels},{usages[i % 3]}" for i in range(rows)]
    return "\n".join(["emotion,pixels,Usage", *lines, ""]).encode()


def votes(rows: int = 3) -> bytes:
    """FER+'s table."""
    names = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    usages = ("Training", "PublicTest", "PrivateTest")
    lines = [f"{usages[i % 3]},fer{i}.png,4,0,0,1,3,2,0,0,0,0" for i in range(rows)]
    return "\n".join([f"Usage,Image name,{names}", *lines, ""]).encode()


def tar(content: bytes | None = None) -> bytes:
    """The table in an uncompressed tar file."""
    content = csv() if content is None else content
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in (("fer2013/README", b"text"), ("fer2013/fer2013.csv", content)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def tar_gz() -> bytes:
    """The table in a compressed tar file."""
    return gzip.compress(tar())


def zips() -> list[bytes]:
    """Archives of pictures by class, in every compression."""
    found = []
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    for compression in kinds:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            archive.writestr("train/angry/Training_1.jpg", picture("JPEG"))
            archive.writestr("test/happy/PublicTest_2.png", picture("PNG"))
            archive.writestr("train/ängry/note.txt", b"text")
        found.append(file.getvalue())
    return found


def landmarks() -> bytes:
    """A file of CK+'s Landmarks."""
    points = 300 + 100 * np.random.default_rng(1).standard_normal((68, 2))
    return "".join(f"   {x:.7e}   {y:.7e}\n" for x, y in points).encode()


def weights(folder: Path) -> list[bytes]:
    """Very small networks."""
    found = []
    for settings in ({"width": 0.1}, {"width": 0.1, "attention": "none"}):
        model = DeepEmotion(2, **settings, rngs=nnx.Rngs(0))
        save_model(folder / "seed.safetensors", model, settings, ["a", "b"], {"seed": 0})
        found.append((folder / "seed.safetensors").read_bytes())
        (folder / "seed.safetensors").unlink()
    return found


def split_safetensors(data: bytes) -> tuple[dict, bytes]:
    """A safetensors file's header and the bytes after it."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def join_safetensors(header: bytes, rest: bytes) -> bytes:
    """A file with the right length prefix for a header."""
    return len(header).to_bytes(8, "little") + header + rest
