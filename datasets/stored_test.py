"""Splits whose images stay in files equal those in memory."""

import copy
import time
from concurrent import futures

import numpy as np
import pytest

from configs import default
from datasets import arrays, common, load, stored
from datasets.synthetic_faces import synthetic_faces_dataset_builder as module
from deep_emotion_jax.data.folds import join
from deep_emotion_jax.data.stored import StoredRows
from deep_emotion_jax.errors import UserError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Builder, "SUBJECTS", {"train": 2, "validation": 1, "test": 1})
        common.prepare(module.Builder(data_dir=folder))
    return folder


@pytest.fixture
def builder(data_dir, monkeypatch):
    monkeypatch.setattr(stored, "BLOCK", 32)  # of 70 images
    return module.Builder(data_dir=data_dir)


def kept(builder, split="train"):
    return sorted((builder.data_path / "arrays").glob(f"{split}-*"))


def test_stored_splits_equal_splits_in_memory_and_share_their_file(builder):
    found = stored.load(builder, "train")
    files = kept(builder)
    expected = arrays.load(builder, "train")
    assert kept(builder) == files  # not written again
    assert isinstance(found.images, StoredRows)
    assert found.fingerprint() == expected.fingerprint()
    assert found.images.nbytes * 2 == stored.size(builder, "train")  # the other half is evidence
    places = np.array([[3, 69], [-1, 3]])
    for name in ("images", "evidence"):
        rows, array = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(rows[places], array[places])
        np.testing.assert_array_equal(rows[5:70:9], array[5:70:9])
        assert rows[places].dtype == array.dtype
        assert rows.shape == array.shape
    some = found.select(np.arange(9))
    assert isinstance(some.images, np.ndarray)
    assert some.fingerprint() == expected.select(np.arange(9)).fingerprint()


def test_joined_rows_stay_in_their_files(builder):
    splits = {name: stored.load(builder, name) for name in ("train", "test")}
    expected = join({name: arrays.load(builder, name) for name in splits})
    joined = copy.deepcopy(join(splits).images)
    places = np.random.default_rng(0).permutation(105)
    np.testing.assert_array_equal(joined[places], expected.images[places])
    with pytest.raises(IndexError, match="of 105"):
        joined[np.array([105])]


def test_a_damaged_file_is_rewritten(builder):
    expected = stored.load(builder, "train").fingerprint()
    (path,) = kept(builder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert stored.load(builder, "train").fingerprint() == expected
    assert kept(builder) == [path]
    assert path.read_bytes() != content


def test_of_two_concurrent_processes_one_writes_and_one_waits(
    builder, data_dir, monkeypatch, capsys
):
    for path in kept(builder):
        path.unlink()
    (builder.data_path / "arrays").mkdir(exist_ok=True)
    (builder.data_path / "arrays" / ".train-x.1.tmp").write_bytes(b"left by a killed process")
    write_records, second, written = stored._write_records, [], []

    def while_another_starts(file, source):
        written.append(file.name)
        if not second:
            other = module.Builder(data_dir=data_dir)
            second.append(pool.submit(stored.load, other, "train"))
            while not second[0].done() and "waiting for another" not in capsys.readouterr().out:
                time.sleep(0.01)
        return write_records(file, source)

    monkeypatch.setattr(stored, "_write_records", while_another_starts)
    with futures.ThreadPoolExecutor(1) as pool:
        first = stored.load(builder, "train")
        assert second[0].result().fingerprint() == first.fingerprint()
    assert len(written) == 1
    assert len(kept(builder)) == 1
    assert not list((builder.data_path / "arrays").glob(".*"))


def test_a_missing_or_short_file_gives_one_sentence(builder):
    images = stored.load(builder, "train").images
    (path,) = kept(builder)
    content = path.read_bytes()
    path.write_bytes(content[:-3000])
    for rows in ([69, 3], range(70)):
        with pytest.raises(UserError, match=r"train-.*ends before row.*run the same command"):
            images[np.array(rows)]
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        images[:1]


def test_a_full_disk_gives_one_sentence(builder, monkeypatch):
    for path in kept(builder, "validation"):
        path.unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "_write_records", full)
    with pytest.raises(UserError, match=r"No space left on device; free some disk space"):
        stored.load(builder, "validation")
    assert not list((builder.data_path / "arrays").glob(".*"))


@pytest.mark.parametrize(
    ("streaming", "room", "streamed"),
    [("auto", True, False), ("auto", False, True), ("always", True, True), ("never", False, False)],
)
def test_splits_that_do_not_fit_are_streamed(data_dir, monkeypatch, streaming, room, streamed):
    monkeypatch.setattr(load, "fits", lambda size, devices: room)
    config = default.get_config()
    config.data_dir, config.streaming = str(data_dir), streaming
    splits = load.load_dataset(config, ["test"]).splits
    assert isinstance(splits["test"].images, StoredRows) == streamed
