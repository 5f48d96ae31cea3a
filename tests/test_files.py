from __future__ import annotations

import io
import mmap
import os
import stat
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import FaceEncodeError, GalleryError, InputError, ModelFileError
from face_encode.files import (
    ArchiveForm,
    as_path,
    check_writable,
    open_regular,
    read_archive,
    reason_of,
    replacing,
    text_array,
    write_archive,
)
from tests.broken_inputs.making import little_memory


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


FORM = ArchiveForm(
    what="herbarium",
    newest=2,
    arrays={"numbers": ("f", 2), "texts": ("U", 1)},
    optional={"note": ("U", 0)},
    error_type=InputError,
)
WHOLE: dict[str, Any] = {
    "format_version": np.array(1),
    "numbers": np.arange(6, dtype=np.float32).reshape(2, 3),
    "texts": np.array(["Ada", "王小明"]),
}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "herbs.npz"
    write_archive(path, WHOLE)
    read = read_archive(path, FORM)
    assert set(read) == {"format_version", "numbers", "texts"}
    for name, array in WHOLE.items():
        np.testing.assert_array_equal(read[name], array)
    write_archive(path, {**WHOLE, "note": np.array("dry")})
    assert str(read_archive(path, FORM)["note"]) == "dry"


def test_the_same_arrays_give_the_same_bytes_and_texts_are_packed(tmp_path: Path) -> None:
    arrays = {**WHOLE, "texts": np.array(["a" * 64] * 1000), "numbers": np.zeros((1000, 8))}
    write_archive(tmp_path / "one.npz", arrays)
    time.sleep(2.1)  # the clock of a zip archive goes in steps of two seconds
    write_archive(tmp_path / "two.npz", arrays)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        sizes = {member.filename: member.compress_size for member in archive.infolist()}
    assert sizes["texts.npy"] < 64 * 1000
    # Numbers lie there as in memory, so that they can be mapped.
    assert sizes["numbers.npy"] > 8 * 8 * 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": None}, "is no herbarium: it holds no array 'texts'"),
        ({"numbers": np.zeros(3)}, "herbarium .* is damaged: 'numbers' is an array of 2"),
        ({"note": np.array(3)}, "'note' is an array of 0 dimensions and kind 'U'"),
        ({"format_version": np.array(3)}, "versions up to 2. Received: version 3"),
        ({"format_version": np.array(0)}, "Received: version 0"),
    ],
)
def test_what_does_not_fit_the_form_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "herbs.npz"
    arrays = {name: array for name, array in (WHOLE | changes).items() if array is not None}
    write_archive(path, arrays)
    with pytest.raises(InputError, match=message):
        read_archive(path, FORM)


def expanding(array: np.ndarray, name: str) -> Callable[[Path], None]:
    """A whole archive in which an array takes next to nothing."""

    def write(path: Path) -> None:
        np.savez_compressed(path, **{**WHOLE, name: array})

    return write


def under_another_name(path: Path) -> None:
    """numpy finds an array also where its member lacks the ending."""
    write_archive(path, {name: array for name, array in WHOLE.items() if name != "numbers"})
    content = io.BytesIO()
    np.save(content, np.zeros((100, 200_000), np.float32))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("numbers", content.getvalue())


def lying_over_each_other(path: Path) -> None:
    write_archive(path, {**WHOLE, "numbers": np.zeros((1000, 2))})
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist += [archive.getinfo("numbers.npy")] * 3
        archive.writestr("more.npy", b"")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        # 90 kB each; the embeddings of a gallery, and names.
        (expanding(np.zeros((100, 200_000), np.float32), "numbers"), "'numbers', .* expands to"),
        (expanding(np.zeros((100, 200_000), ">f4"), "numbers"), "'numbers', .* expands to"),
        (expanding(np.zeros(3, "U30000000"), "texts"), "'texts', .* expands to at most"),
        (under_another_name, "'numbers', .* expands to at most"),
        (lying_over_each_other, "members of .* bytes in a file of"),
    ],
)
def test_an_archive_that_expands_is_refused_before_it_does(
    write: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "herbs.npz"
    write(path)
    assert path.stat().st_size < 1_000_000
    with little_memory(70_000_000), pytest.raises(InputError, match=message):
        read_archive(path, FORM)


def test_an_array_that_packs_well_is_read_where_it_is_small(tmp_path: Path) -> None:
    path = tmp_path / "herbs.npz"
    expanding(np.zeros((1000, 1000), np.float32), "numbers")(path)
    assert read_archive(path, FORM)["numbers"].shape == (1000, 1000)


def test_nothing_is_pickled_and_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        write_archive(tmp_path / "x.npz", {"a": np.array([object()])})
    with pytest.raises(FaceEncodeError, match="no such herbarium"):
        read_archive(tmp_path / "none.npz", FORM)


def test_an_array_of_no_text_is_one_of_texts() -> None:
    assert text_array([]).shape == (0,)
    assert text_array([]).dtype.kind == "U"
    assert np.concatenate([text_array([]), text_array(["Ada"])]).tolist() == ["Ada"]


@pytest.mark.parametrize("length", [1, 2, 7, 30, 63])
def test_numbers_are_mapped_where_they_lie(length: int, tmp_path: Path) -> None:
    path = tmp_path / "herbs.npz"
    # The note before them moves where the numbers begin.
    write_archive(path, {"note": np.array("x" * length), "v" * length: np.arange(3), **WHOLE})
    read = read_archive(path, FORM, mapped=["numbers", "texts", "missing"])
    numbers = read["numbers"]
    np.testing.assert_array_equal(numbers, WHOLE["numbers"])
    assert numbers.flags.aligned and not numbers.flags.owndata and not numbers.flags.writeable
    assert isinstance(numbers.base, mmap.mmap | np.ndarray)
    # Texts are packed, and therefore read.
    assert read["texts"].tolist() == WHOLE["texts"].tolist()
    with np.load(path) as plain:
        np.testing.assert_array_equal(plain["numbers"], WHOLE["numbers"])


def test_what_is_mapped_stays_when_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "herbs.npz"
    write_archive(path, WHOLE)
    numbers = read_archive(path, FORM, mapped=["numbers"])["numbers"]
    write_archive(tmp_path / "next.npz", {**WHOLE, "numbers": np.zeros((9, 3))})
    (tmp_path / "next.npz").replace(path)
    np.testing.assert_array_equal(numbers, WHOLE["numbers"])
    assert read_archive(path, FORM, mapped=["numbers"])["numbers"].shape == (9, 3)


def test_what_numpy_wrote_is_read_where_it_cannot_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "herbs.npz"
    np.savez(path, **{**WHOLE, "numbers": np.asfortranarray(WHOLE["numbers"])})
    for _ in range(2):
        read = read_archive(path, FORM, mapped=["numbers"])
        np.testing.assert_array_equal(read["numbers"], WHOLE["numbers"])
        np.savez_compressed(path, **WHOLE)


def test_a_file_that_is_cut_off_or_lies_about_its_length_is_not_mapped(tmp_path: Path) -> None:
    path = tmp_path / "herbs.npz"
    write_archive(path, {**WHOLE, "numbers": np.zeros((4_000, 3), np.float32)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut off|damaged"):
            read_archive(path, FORM, mapped=["numbers"])
    # The array says that it is longer than its member.
    path.write_bytes(whole.replace(b"(4000, 3)", b"(9000, 3)"))
    with pytest.raises(InputError, match="'numbers' is cut off"):
        read_archive(path, FORM, mapped=["numbers"])


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_new_file_is_its_owners_unless_it_is_shared(tmp_path: Path) -> None:
    former = os.umask(0o022)
    try:
        for shared, rights in ((False, (0o700, 0o600)), (True, (0o755, 0o644))):
            path = tmp_path / str(shared) / "a.npz"
            with replacing(path, GalleryError, shared=shared) as temporary:
                temporary.write_text("new")
                # Also before it is in place.
                assert stat.S_IMODE(temporary.stat().st_mode) == rights[1]
            modes = (path.parent.stat().st_mode, path.stat().st_mode)
            assert tuple(map(stat.S_IMODE, modes)) == rights
    finally:
        os.umask(former)
