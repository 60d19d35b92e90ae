"""Cached arrays match the dataset; stale or damaged ones are not used."""

import os

import numpy as np
import pytest

from datasets import arrays, common
from datasets.synthetic_faces import synthetic_faces_dataset_builder as module
from deep_emotion_jax.data.split import Split, load_split
from deep_emotion_jax.runtime import multihost


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """A small dataset with all types of columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Builder, "SUBJECTS", {"train": 2, "validation": 1, "test": 1})
        builder = module.Builder(data_dir=tmp_path_factory.mktemp("data"))
        common.prepare(builder)
    return builder


@pytest.fixture
def decoded(monkeypatch):
    """The splits that were decoded instead of read from the cache."""
    names = []
    read = multihost.read_split
    monkeypatch.setattr(multihost, "read_split", lambda s: names.append(len(s)) or read(s))
    return names


def kept(builder, split="train"):
    return sorted((builder.data_path / "arrays").glob(f"{split}-*"))


def same(a, b):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)
    return a.fingerprint() == b.fingerprint()


def test_the_second_reading_decodes_nothing(builder, decoded):
    expected = load_split(builder.as_data_source(split="train"))
    assert same(arrays.load(builder, "train"), expected)
    assert decoded == [70]
    again = arrays.load(builder, "train")
    assert same(again, expected)
    assert decoded == [70]
    assert again.evidence.dtype == bool
    again.images[0] = 0  # a copy: the file stays as it is
    assert same(arrays.load(builder, "train"), expected)
    arrays.load(builder, "test")
    assert decoded == [70, 35]
    assert len(kept(builder)) == len(kept(builder, "test")) == 1


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def header_of_objects(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"|u1", b"|O8", 1))


def unclosed_header(path):
    """A header for which NumPy's reader raises an error of Python's tokenizer."""
    content = bytearray(path.read_bytes())
    content[10:11] = b"["
    path.write_bytes(content.replace(b"}", b" ", 1))


@pytest.mark.parametrize(
    "damage",
    [cut, flip_a_bit, header_of_objects, unclosed_header, lambda p: p.write_bytes(b"")],
)
def test_damaged_arrays_are_rewritten(builder, decoded, damage):
    expected = arrays.load(builder, "train")
    before = len(decoded)
    damage(kept(builder)[0])
    assert same(arrays.load(builder, "train"), expected)
    assert len(decoded) == before + 1
    assert same(arrays.load(builder, "train"), expected)
    assert len(decoded) == before + 1
    assert len(kept(builder)) == 1


def test_arrays_of_another_preparation_are_not_used(builder, decoded):
    arrays.load(builder, "train")
    before, old = len(decoded), kept(builder)
    (record,) = builder.data_path.glob("*-train.array_record*")
    status = os.stat(record)
    os.utime(record, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    arrays.load(builder, "train")
    assert len(decoded) == before + 1
    assert len(kept(builder)) == 1
    assert kept(builder) != old


def test_a_read_only_folder_is_decoded_at_every_start(builder, decoded, monkeypatch):
    for path in kept(builder):
        path.unlink()

    def refuse(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(arrays.files, "write_bytes", refuse)
    for _ in range(2):
        assert len(arrays.load(builder, "train").keys) == 70
    assert decoded == [70, 70]
    assert not kept(builder)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_column_is_kept(tmp_path, count):
    rng = np.random.default_rng(0)
    data = Split(
        rng.integers(0, 256, (count, 48, 48, 1), np.uint8),
        rng.integers(0, 7, count).astype(np.int32),
        [f"ä/{i}" * i for i in range(count)],
        [""] * count,
        None,
        rng.random((count, 8), np.float32),
        ["", "ä/1", ""][:count],
    )
    arrays._write(tmp_path, "train-x", "train", data)
    found = arrays._read(tmp_path, "train-x")
    for one, other in zip(found, data, strict=True):
        np.testing.assert_array_equal(one, other)
        assert isinstance(one, list) == isinstance(other, list)
