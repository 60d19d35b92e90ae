import zipfile

import pytest

from datasets.archives import MAX_FILE_BYTES, by_key, nothing_found, open_files, read_files
from deep_emotion_jax.errors import UserError


def write(root, *names, content=b"x"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def pack(path, *names, content=b"packed"):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, content)


def contents(root, *kinds):
    with open_files(root, *kinds) as files:
        return {str(path.relative_to(root)): read() for path, read in files.items()}


def test_a_folder_and_its_archive_give_the_same_files_in_order(tmp_path):
    names = ["b/2.PNG", "a/1.png", "c.txt", "__MACOSX/a/._1.png", ".git/3.png"]
    write(tmp_path / "folder", *names)
    pack(tmp_path / "archive.zip", *names, content=b"x")
    expected = {"a/1.png": b"x", "b/2.PNG": b"x"}
    for root in ("folder", "archive.zip"):
        found = contents(tmp_path / root, (".png", ".jpg"))
        assert list(found) == list(expected)
        assert found == expected


def test_archives_in_a_folder_are_read_for_files_that_are_not_unpacked(tmp_path):
    write(tmp_path, "images/1.png", content=b"loose")
    (tmp_path / "raw").mkdir()
    pack(tmp_path / "raw/images.zip", "1.png", "2.png")
    pack(tmp_path / "labels.zip", "1_label.txt", "1_other.txt")
    assert contents(tmp_path, (".png", ".jpg"), ("_label.txt",)) == {
        "images/1.png": b"loose",
        "labels.zip/1_label.txt": b"packed",
    }
    # An archive that is not needed may be damaged.
    write(tmp_path, "broken.zip")
    assert contents(tmp_path, (".png",)) == {"images/1.png": b"loose"}


def test_damaged_archives(tmp_path):
    write(tmp_path, "cut.zip")
    with pytest.raises(UserError, match=r"cut.zip is not a complete zip archive"):
        contents(tmp_path / "cut.zip", (".png",))
    pack(tmp_path / "bad.zip", "1.png", content=b"content" * 20)
    data = bytearray((tmp_path / "bad.zip").read_bytes())
    data[60] ^= 0xFF
    (tmp_path / "bad.zip").write_bytes(data)
    with open_files(tmp_path / "bad.zip", (".png",)) as files:
        (read,) = files.values()
        with pytest.raises(UserError, match=r"bad.zip is not a complete zip archive"):
            read()


def test_errors_of_the_caller_are_not_attributed_to_the_archive(tmp_path):
    pack(tmp_path / "good.zip", "1.png")
    with pytest.raises(RuntimeError, match="mine"), open_files(tmp_path / "good.zip", (".png",)):
        raise RuntimeError("mine")


@pytest.mark.parametrize("packed", [False, True])
def test_huge_files(tmp_path, packed):
    huge = bytes(MAX_FILE_BYTES + 1)
    if packed:
        pack(tmp_path / "a.zip", "1.png", content=huge)
    else:
        write(tmp_path, "1.png", content=huge)
    with pytest.raises(UserError, match=r"1.png is larger than"):
        list(read_files(tmp_path))


def test_by_key_refuses_a_second_file(tmp_path):
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    assert by_key([a, b], lambda path: path.stem) == {"a": a, "b": b}
    with pytest.raises(UserError, match=r"b.png is a duplicate of .*a.png"):
        by_key([a, b], lambda path: "same")


def test_nothing_found_lists_the_files(tmp_path):
    write(tmp_path, "b/1.png", "a.txt")
    pack(tmp_path / "c.zip", "inside/1.png")
    assert "no X (found: a.txt, b, c.zip); the README of datasets/y" in str(
        nothing_found(tmp_path, "X", "y")
    )
    assert "(found: inside)" in str(nothing_found(tmp_path / "c.zip", "X", "y"))
