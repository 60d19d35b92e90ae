"""Hostile inputs: bombs, paths with "..", links, pipes, and the smallest pictures."""

import gzip
import io
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from datasets import archives, common
from datasets.fer2013 import sources
from datasets.ferg import ferg_dataset_builder as ferg
from datasets.jaffe import jaffe_dataset_builder as jaffe
from deep_emotion_jax.data import pictures
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference import drawing
from deep_emotion_jax.nn.weights import load_model

from . import seeds
from .targets import predictor

Case = Callable[[], object]
ZEROS = bytes(1 << 20)


def _zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name) if ".." in name else name, data)
    return path


def _png(width: int, height: int, compressed: bytes) -> bytes:
    """A PNG whose header states any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data).to_bytes(4)
        return len(data).to_bytes(4) + kind + data + crc

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _members_unpack_to_gigabytes(folder: Path) -> Case:
    big = {f"angry/Training_{i}.jpg": ZEROS * 64 for i in range(3)}
    path = _zip(folder / "archive.zip", big)
    return lambda: list(sources.read(path))


def _member_claims_to_be_small(folder: Path) -> Case:
    path = _zip(folder / "archive.zip", {"angry/Training_1.jpg": ZEROS * 64})
    data = path.read_bytes()
    path.write_bytes(data.replace((64 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    return lambda: list(sources.read(path))


def _lzma_dictionary_of_four_gigabytes(folder: Path) -> Case:
    path = _zip(folder / "archive.zip", {"angry/Training_1.jpg": b"x" * 99}, zipfile.ZIP_LZMA)
    data = bytearray(path.read_bytes())
    place = data.index(b"angry/Training_1.jpg") + len(b"angry/Training_1.jpg") + 5
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    return lambda: list(sources.read(path))


def _sixty_thousand_members(folder: Path) -> Case:
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(60_000):
            archive.writestr(f"aia/aia_anger/aia_anger_{i}.png", b"")

    def read() -> None:
        with archives.open_files(path, (".png",)) as found:
            archives.by_key(found, ferg._key)

    return read


def _archive_in_an_archive(folder: Path) -> Case:
    inner = _zip(folder / "inner.zip", {"angry/Training_1.jpg": ZEROS * 64}).read_bytes()
    (folder / "inner.zip").unlink()
    path = _zip(folder / "archive.zip", {"inner.zip": inner})
    return lambda: list(sources.read(path))


def _tar_gz(folder: Path, start: bytes, chunk: bytes, count: int) -> Path:
    """Write a compressed tar file that begins with `start` and repeats `chunk`, without an end."""
    path = folder / "fer2013.tar.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(start)
        for _ in range(count):
            file.write(chunk)
    return path


def _gzip_of_one_endless_line(folder: Path) -> Case:
    member = tarfile.TarInfo("fer2013.csv")
    member.size = 1 << 33
    path = _tar_gz(folder, member.tobuf() + b"emotion,pixels,Usage\n", ZEROS, 400)
    return lambda: list(sources.read(path))


def _gzip_of_one_endless_row(folder: Path) -> Case:
    member = tarfile.TarInfo("fer2013.csv")
    member.size = 1 << 33
    start = member.tobuf() + b"emotion,pixels,Usage\n"
    path = _tar_gz(folder, start, b'"1\n",' * 200_000, 200)
    return lambda: list(sources.read(path))


def _tar_name_of_gigabytes(folder: Path) -> Case:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 31
    path = _tar_gz(folder, member.tobuf(tarfile.GNU_FORMAT), ZEROS, 400)
    return lambda: list(sources.read(path))


def _tar_of_sparse_terabytes(folder: Path) -> Case:
    path = folder / "fer2013.tar.gz"
    header = bytearray(tarfile.TarInfo("fer2013.csv").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[483:495] = b"77777777777\0"  # real size
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    path.write_bytes(gzip.compress(bytes(header) + bytes(1024)))
    return lambda: list(sources.read(path))


def _tar_that_skips_gigabytes(folder: Path) -> Case:
    member = tarfile.TarInfo("first")
    member.size = 1 << 35
    path = _tar_gz(folder, member.tobuf(tarfile.GNU_FORMAT), ZEROS, 700)
    return lambda: list(sources.read(path))


def _links_in_a_tar(folder: Path) -> Case:
    outside = folder / "outside.csv"
    outside.write_bytes(seeds.csv())
    path = folder / "fer2013.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, kind in (("a/fer2013.csv", tarfile.SYMTYPE), ("b/fer2013.csv", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(outside)
            archive.addfile(member)
    return lambda: _refused(lambda: list(sources.read(path)))


def _names_that_climb(folder: Path) -> Case:
    names = ("../angry/Training_1.png", "/angry/Training_2.png", "../../../angry/Training_3.png")
    path = _zip(folder / "archive.zip", dict.fromkeys(names, seeds.picture("PNG")))
    return lambda: list(sources.read(path))


def _names_that_climb_in_a_tar(folder: Path) -> Case:
    path = folder / "fer2013.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("../../fer2013.csv")
        member.size = len(seeds.csv())
        archive.addfile(member, io.BytesIO(seeds.csv()))
    return lambda: list(sources.read(path))


def _builder_fed_a_hostile_archive(folder: Path) -> Case:
    """Preparation is refused and leaves no files."""
    raw = folder / "raw"
    raw.mkdir()
    names = ("../KA.AN1.39.png", "/KL.AN1.40.png", "a/../../KM.AN1.41.png")
    _zip(raw / "jaffe.zip", dict.fromkeys(names, seeds.picture("PNG", side=256)))
    builder = jaffe.Builder(data_dir=folder / "prepared")
    return lambda: _refused(lambda: common.prepare(builder, raw))


def _folder_of_links_and_pipes(folder: Path) -> Case:
    """Reading a folder of pictures must not block on a pipe or follow a link cycle."""
    pictures = folder / "angry"
    pictures.mkdir()
    os.mkfifo(pictures / "Training_1.png")
    os.symlink("/dev/zero", pictures / "Training_2.png")
    os.symlink(pictures, pictures / "again")
    os.symlink("Training_3.png", pictures / "Training_3.png")
    os.symlink("/nowhere", pictures / "Training_4.png")
    return lambda: _refused(lambda: list(sources.read(folder)))


def _predict_links_and_pipes(folder: Path) -> Case:
    _folder_of_links_and_pipes(folder)
    (folder / "angry" / "good.png").write_bytes(seeds.picture("PNG"))

    def read() -> None:
        errors: list[UserError] = []
        found = [picture.source for picture in pictures.read([str(folder)], errors.append)]
        assert found == [str(folder / "angry" / "good.png")]
        assert len(errors) == 4

    return read


def _predict_a_pipe_by_name(folder: Path) -> Case:
    os.mkfifo(folder / "a.png")
    return lambda: pictures.read_picture(folder / "a.png")


def _predict_zeros_without_end(folder: Path) -> Case:
    return lambda: pictures.read_picture("/dev/zero")


def _raw_data_that_is_a_pipe(folder: Path) -> Case:
    os.mkfifo(folder / "archive.zip")
    return lambda: common.prepare(jaffe.Builder(data_dir=folder / "data"), folder / "archive.zip")


def _weights_that_are_a_pipe(folder: Path) -> Case:
    os.mkfifo(folder / "a.safetensors")
    return lambda: load_model(folder / "a.safetensors")


def _weights_that_are_a_folder(folder: Path) -> Case:
    return lambda: load_model(folder)


def _weights_with_a_header_of_gigabytes(folder: Path) -> Case:
    path = folder / "a.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    return lambda: load_model(path)


def _weights_of_a_network_of_any_width(folder: Path) -> Case:
    """The mismatch must be detected before a network of that size is built."""
    header, rest = seeds.split_safetensors(seeds.weights(folder)[0])
    text = header["__metadata__"]["deep_emotion_jax"].replace('"width": 0.1', '"width": 1e9')
    header["__metadata__"]["deep_emotion_jax"] = text
    path = folder / "a.safetensors"
    path.write_bytes(seeds.join_safetensors(json.dumps(header).encode(), rest))
    return lambda: load_model(path)


def _weights_of_a_million_classes(folder: Path) -> Case:
    header, rest = seeds.split_safetensors(seeds.weights(folder)[0])
    text = json.loads(header["__metadata__"]["deep_emotion_jax"])
    text["classes"] = [str(i) for i in range(1_000_000)]
    header["__metadata__"]["deep_emotion_jax"] = json.dumps(text)
    path = folder / "a.safetensors"
    path.write_bytes(seeds.join_safetensors(json.dumps(header).encode(), rest))
    return lambda: load_model(path)


def _pickle_named_safetensors(folder: Path) -> Case:
    """A pickle that would create a file if it were loaded."""
    path = folder / "a.safetensors"
    path.write_bytes(b"cos\nsystem\n(S'touch " + bytes(folder / "run") + b"'\ntR.")
    return lambda: load_model(path)


def _picture_claims_many_pixels(folder: Path) -> Case:
    data = _png(60_000, 60_000, zlib.compress(ZEROS))
    (folder / "a.png").write_bytes(data)

    def read() -> None:
        _refused(lambda: common.read_image(data, folder / "a.png"))
        _refused(lambda: pictures.read_picture(folder / "a.png"))

    return read


def _picture_unpacks_to_more_than_it_claims(folder: Path) -> Case:
    (folder / "a.png").write_bytes(_png(48, 48, zlib.compress(ZEROS * 200)))
    return lambda: pictures.read_picture(folder / "a.png")


def _picture_with_a_text_bomb(folder: Path) -> Case:
    info = PngInfo()
    info.add_text("a", "x" * (100 << 20), zip=True)
    file = io.BytesIO()
    Image.fromarray(seeds.FACE).save(file, "PNG", pnginfo=info)
    (folder / "a.png").write_bytes(file.getvalue())
    return lambda: pictures.read_picture(folder / "a.png")


def _smallest_pictures(folder: Path) -> Case:
    """Files of no bytes, one pixel, one row or one column are read or refused."""
    (folder / "empty.png").write_bytes(b"")
    for i, size in enumerate([(1, 1), (1, 3000), (3000, 1), (2, 1), (1, 48)]):
        Image.new("L", size).save(folder / f"{i}.png")

    def read() -> None:
        errors: list[UserError] = []
        found = list(pictures.read([str(folder)], errors.append))
        assert len(errors) == 1
        assert "empty.png" in str(errors[0])
        for prediction in predictor().stream(found):
            assert len(prediction.faces) == 1
            maps = [np.zeros((48, 48))] * len(prediction.faces)
            drawing.draw(prediction, maps)
        for path in sorted(folder.glob("?.png")):
            common.face_image(common.read_image(path.read_bytes(), path))

    return read


def _pixels_that_are_not_finite(folder: Path) -> Case:
    def read() -> None:
        for value in (np.nan, np.inf, -np.inf, 1e38, -1e-30):
            array = np.full((48, 48), 0.5, np.float32)
            array[3, 4] = value
            _refused(lambda array=array: predictor().predict(array))

    return read


def _annotated_pictures_stay_in_their_folder(folder: Path) -> Case:
    def read() -> None:
        for source in ("../../a.jpg", "/etc/passwd", "a/../../b.jpg", "..", "//x/y.png"):
            path = drawing.path_in(folder / "out", pictures.Picture(source, np.zeros((1, 1, 3))))
            assert path.resolve().is_relative_to((folder / "out").resolve()), source

    return read


def _refused(case: Case) -> None:
    try:
        case()
    except UserError:
        return
    raise AssertionError("was accepted")


def cases() -> Iterator[tuple[str, Callable[[Path], Case]]]:
    """Yields names, and functions that write an input to a folder and return its reader."""
    for name, lay in globals().items():
        if name.startswith("_") and getattr(lay, "__annotations__", {}).get("return") is Case:
            yield name.strip("_").replace("_", " "), lay
