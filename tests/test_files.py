from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from face_encode.errors import GalleryError, InputError, ModelFileError
from face_encode.files import as_path, check_writable, open_regular, reason_of, replacing


@pytest.mark.parametrize("value", ["a b.jpg", Path("a b.jpg")])
def test_text_and_paths_are_paths(value: Any) -> None:
    assert as_path(value) == Path("a b.jpg")


@pytest.mark.parametrize("value", ["", "a\0b", b"a", None, 3, ["a"], os.DirEntry])
def test_anything_else_is_no_path(value: Any) -> None:
    with pytest.raises(InputError, match="a path is"):
        as_path(value)


def test_a_path_of_bytes_is_refused() -> None:
    class Bytes:
        def __fspath__(self) -> bytes:
            return b"a"

    with pytest.raises(InputError, match="Received: b'a'"):
        as_path(Bytes())


def test_a_regular_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    for name in ("a", "b"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "\ud800")
    with pytest.raises(FileNotFoundError):
        open_regular("a\0b")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(tmp_path / "pipe")


def test_the_reason_of_an_error_is_in_words() -> None:
    assert reason_of(FileNotFoundError(2, "No such file or directory", "a")) == (
        "no such file or directory"
    )
    assert reason_of(OSError("Broken somehow")) == "broken somehow"


def test_a_new_file_is_written_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.npz"
    with replacing(path, GalleryError) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".npz"
        assert temporary.name.startswith(".")
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_former_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_text("former")
    with replacing(path, GalleryError) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "former"
    assert path.read_text() == "half"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_where_writing_fails_the_former_file_stays(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    path.write_text("former")
    with pytest.raises(error), replacing(path, GalleryError) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_system_refuses_is_an_error_of_the_kind_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for kind in (GalleryError, ModelFileError):
        with pytest.raises(kind, match="cannot write"), replacing(tmp_path / "file" / "a", kind):
            pass
    # Nothing was written in the block, so there is nothing to put in place.
    with (
        pytest.raises(GalleryError, match="No such file"),
        replacing(tmp_path / "a", GalleryError),
    ):
        pass


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.npz").symlink_to("disk/real.npz")
    for text in ("made", "replaced"):
        with replacing(tmp_path / "link.npz", GalleryError) as temporary:
            temporary.write_text(text)
        assert (tmp_path / "link.npz").is_symlink()
        assert (tmp_path / "disk" / "real.npz").read_text() == text


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_text("former")
    path.chmod(0o600)
    with replacing(path, GalleryError) as temporary:
        temporary.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with replacing(path, GalleryError) as one:
        one.write_text("one")
        with replacing(path, GalleryError) as other:
            assert one != other
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "one"


def test_the_longest_name_that_a_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("人" * 83 + ".npz")  # 253 bytes
    with replacing(path, GalleryError) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.npz").mkdir()
    for path, reason in (
        (tmp_path / "file" / "new" / "people.npz", "is no folder"),
        (tmp_path / "folder.npz", "it is a folder"),
    ):
        with pytest.raises(GalleryError, match=reason):
            check_writable(path, GalleryError)
    check_writable(tmp_path / "new" / "folders" / "people.npz", GalleryError)
    assert not (tmp_path / "new").exists()
