"""Walking folders: links are followed, and each folder is visited once."""

from pathlib import Path

import pytest

from deep_emotion_jax.data.folders import walk


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def found(root):
    return [path.relative_to(root).as_posix() for path in walk(root)]


def test_files_come_before_subfolders_without_hidden_ones(tmp_path):
    write(tmp_path, "b/1", "a (1)/x ä/2", "z", ".git/3", "__MACOSX/b/._1", ".DS_Store", "b/._1")
    assert found(tmp_path) == ["z", "a (1)/x ä/2", "b/1"]
    assert all(isinstance(path, Path) for path in walk(str(tmp_path)))


def test_links_are_followed_once(tmp_path):
    write(tmp_path, "disk/train/happy/1", "disk/more/2", "disk/single", "mine/own/3")
    mine = tmp_path / "mine"
    (mine / "train").symlink_to(tmp_path / "disk/train")
    (mine / "own" / "deep").symlink_to(tmp_path / "disk/more")
    (mine / "again").symlink_to(tmp_path / "disk/more")
    (mine / "file").symlink_to(tmp_path / "disk/single")
    assert found(mine) == ["file", "again/2", "own/3", "train/happy/1"]


def test_links_to_parents_are_not_followed(tmp_path):
    write(tmp_path, "outside", "mine/a/1", "mine/b/2")
    (tmp_path / "mine/a/up").symlink_to(tmp_path)
    (tmp_path / "mine/a/self").symlink_to(tmp_path / "mine")
    (tmp_path / "mine/a/b").symlink_to(tmp_path / "mine/b")
    (tmp_path / "mine/b/a").symlink_to(tmp_path / "mine/a")
    (tmp_path / "mine/b/nowhere").symlink_to(tmp_path / "nowhere")
    assert sorted(name.rsplit("/", 1)[1] for name in found(tmp_path / "mine")) == [
        *("1", "2", "nowhere")
    ]
    (tmp_path / "linked").symlink_to(tmp_path / "mine")
    assert len(found(tmp_path / "linked")) == 3


def test_unreadable_folders_are_reported(tmp_path):
    errors = []
    assert list(walk(tmp_path / "none", errors.append)) == []
    assert isinstance(errors[0], FileNotFoundError)
    with pytest.raises(StopIteration):
        next(walk(tmp_path / "none"))
