"""Gallery files that are broken: each is refused in words, and nothing in them is ever run."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError, WrongEncoderError
from face_encode.gallery.opening import open_gallery
from face_encode.model import Face_Encode_Model
from tests.broken_inputs.making import Explosive, encoded, little_memory

# Takes a whole gallery's bytes and a path to write to.
Damage = Callable[[bytes, Path], None]


def by(change: Callable[[bytes], bytes]) -> Damage:
    """Damage to the bytes of the file."""

    def damage(whole: bytes, path: Path) -> None:
        path.write_bytes(change(whole))

    return damage


def arrays(**changes: Any) -> Damage:
    """A whole archive with other arrays; None leaves one out."""

    def damage(whole: bytes, path: Path) -> None:
        with np.load(io.BytesIO(whole)) as stored:
            kept = {name: stored[name] for name in stored.files if name not in changes}
        np.savez(path, **kept, **{name: new for name, new in changes.items() if new is not None})

    return damage


def members(change: Callable[[str, bytes], bytes], kind: int = zipfile.ZIP_STORED) -> Damage:
    """A whole archive whose members' bytes are changed."""

    def damage(whole: bytes, path: Path) -> None:
        with zipfile.ZipFile(io.BytesIO(whole)) as former, zipfile.ZipFile(path, "w", kind) as new:
            for name in former.namelist():
                new.writestr(name, change(name, former.read(name)))

    return damage


def one_member(target: str, change: Callable[[bytes], bytes]) -> Damage:
    return members(lambda name, data: change(data) if name == f"{target}.npy" else data)


def header(shape: tuple[int, ...]) -> Callable[[bytes], bytes]:
    """A float32 array of a few bytes that claims any shape."""

    def change(_: bytes) -> bytes:
        buffer = io.BytesIO()
        fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, fields)
        return buffer.getvalue() + bytes(64)

    return change


def flipped(whole: bytes) -> bytes:
    """A bit of the embeddings changed, against the archive's checksum."""
    damaged = bytearray(whole)
    damaged[whole.index(b"embeddings.npy") + 200] ^= 1
    return bytes(damaged)


def garbled_deflate(whole: bytes) -> bytes:
    """An archive packed by deflate whose packed bytes are rubbish."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("format_version.npy", bytes(range(256)) * 9)
    damaged = bytearray(buffer.getvalue())
    start = damaged.index(b"format_version.npy") + len("format_version.npy")
    damaged[start : start + 20] = b"\xff" * 20
    return bytes(damaged)


def central(offset: int, value: int) -> Callable[[bytes], bytes]:
    """Each entry of the archive's index with another number at an offset."""

    def change(whole: bytes) -> bytes:
        damaged = bytearray(whole)
        at = damaged.find(b"PK\x01\x02")
        while at >= 0:
            struct.pack_into("<H", damaged, at + offset, value)
            at = damaged.find(b"PK\x01\x02", at + 4)
        return bytes(damaged)

    return change


def lines(*names: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer("\n".join(names).encode(), np.uint8)


def plain_array(_: bytes) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((3, 4), np.float32))
    return buffer.getvalue()


OBJECTS = np.array([Explosive()], dtype=object)
NOT_AN_ARCHIVE = "is no gallery, or is cut off"

DAMAGED: dict[str, tuple[Damage, str]] = {
    "no bytes": (by(lambda _: b""), NOT_AN_ARCHIVE),
    "random bytes": (by(lambda _: np.random.default_rng(0).bytes(4_000)), NOT_AN_ARCHIVE),
    "a text": (by(lambda _: b"Ada,0.1,0.2\n"), NOT_AN_ARCHIVE),
    "a photo": (by(lambda _: encoded("JPEG")), NOT_AN_ARCHIVE),
    "a pickle": (by(lambda _: pickle.dumps(Explosive())), NOT_AN_ARCHIVE),
    "a single array": (by(plain_array), NOT_AN_ARCHIVE),
    "its first half": (by(lambda whole: whole[: len(whole) // 2]), NOT_AN_ARCHIVE),
    "all but its last byte": (by(lambda whole: whole[:-1]), NOT_AN_ARCHIVE),
    "its second half": (by(lambda whole: whole[len(whole) // 2 :]), "damaged"),
    "zeros of its size": (by(lambda whole: bytes(len(whole))), NOT_AN_ARCHIVE),
    "a bit turned over": (by(flipped), "Bad CRC-32"),
    "packed bytes that are rubbish": (by(garbled_deflate), "damaged"),
    "an unknown way of packing": (by(central(10, 77)), "damaged"),
    "encrypted": (by(central(8, 1)), "damaged"),
    "an empty archive": (
        lambda _, path: zipfile.ZipFile(path, "w").close(),
        "holds no array 'format_version'",
    ),
    "an archive of something else": (
        lambda _, path: np.savez(path, weights=np.ones(3)),
        "holds no array 'format_version'",
    ),
    "members that are no arrays": (
        members(lambda name, data: b"text"),
        "damaged",
    ),
    "an array that ends early": (one_member("embeddings", lambda data: data[:-8]), "damaged"),
    "an array without its header": (one_member("people", lambda data: data[80:]), "damaged"),
    "a header of terabytes": (
        one_member("embeddings", header((1 << 40, 4))),
        "does not fit into memory",
    ),
    "a header beyond all numbers": (
        one_member("embeddings", header((1 << 62, 1 << 62))),
        "damaged",
    ),
    "a header of less than nothing": (one_member("embeddings", header((-1, 4))), "damaged"),
    "a version of objects": (arrays(format_version=OBJECTS), "damaged: Object arrays cannot"),
    "names that are objects": (arrays(people=OBJECTS), "damaged: Object arrays cannot"),
    "embeddings that are objects": (arrays(embeddings=OBJECTS), "damaged: Object arrays cannot"),
    "a later version": (arrays(format_version=np.array(4)), "a later release of face_encode"),
    "a version that is text": (arrays(format_version=np.array("one")), "'format_version' is an"),
    "three versions": (arrays(format_version=np.array([1, 1, 1])), "'format_version' is an"),
    "a version of no number": (arrays(format_version=np.array(np.nan)), "'format_version' is an"),
    "no embeddings": (arrays(embeddings=None), "holds no array 'embeddings'"),
    "no names": (arrays(people=None), "holds no array 'people'"),
    "no digests": (arrays(packed_digests=None), "holds no array 'digests'"),
    "no encoder": (arrays(encoder_fingerprint=None), "holds no array 'encoder_fingerprint'"),
    "an encoder of numbers": (arrays(encoder_name=np.array(3)), "'encoder_name' is an array"),
    "embeddings of another length": (
        arrays(embeddings=np.ones((3, 5), np.float32), scales=np.full(3, 5**0.5)),
        r"shape \(3, 5\)",
    ),
    "fewer embeddings than names": (
        arrays(embeddings=np.ones((2, 4), np.float32)),
        "are as many. Received: 2, 3, 3 and 3",
    ),
    "flat embeddings": (arrays(embeddings=np.ones(12, np.float32)), "'embeddings' is an array"),
    "embeddings of texts": (arrays(embeddings=np.full((3, 4), "1")), "'embeddings' is an array"),
    "complex embeddings": (arrays(embeddings=np.ones((3, 4), complex)), "'embeddings' is an"),
    "embeddings that are no numbers": (
        arrays(embeddings=np.full((3, 4), np.nan, np.float32)),
        "finite and not all zeros",
    ),
    "embeddings without end": (
        arrays(embeddings=np.full((3, 4), np.inf, np.float32)),
        "finite and not all zeros",
    ),
    "embeddings of zeros": (
        arrays(embeddings=np.zeros((3, 4), np.float32)),
        "finite and not all zeros",
    ),
    "names of numbers": (arrays(people=np.array([0.1])), "'people' is an array"),
    "names of texts": (arrays(people=np.array(["a", "b"])), "'people' is an array"),
    "one name for all": (arrays(people=np.array("Ada")), "'people' is an array"),
    "an empty name": (arrays(people=lines("Ada", "", "Bo")), "a person's name is text"),
    "a name that steers the terminal": (
        arrays(people=lines("Ada", "\x1b[2J", "Bo")),
        "a person's name is text",
    ),
    "fewer digests than names": (
        arrays(packed_digests=np.zeros((1, 1), np.uint8)),
        "are as many. Received: 3, 3, 3 and 1",
    ),
    "digests of numbers": (
        arrays(packed_digests=np.array([1, 2, 3])),
        "'packed_digests' is an array",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_gallery_is_refused_and_the_enrolled_stay(
    case: str,
    tmp_path: Path,
    gallery_file: Path,
    tiny_model: Face_Encode_Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    damage, told = DAMAGED[case]
    path = tmp_path / "people.npz"
    damage(gallery_file.read_bytes(), path)
    with little_memory(), pytest.raises(GalleryError, match=told) as caught:
        tiny_model.load_gallery(path)
    assert str(path) in str(caught.value)
    assert not isinstance(caught.value, WrongEncoderError)
    assert tiny_model.verify_names.tolist() == ["Ada"]
    assert not (tmp_path / "exploded.txt").exists()


def test_another_encoders_gallery_is_refused_by_both_names(
    tmp_path: Path, gallery_file: Path, tiny_model: Face_Encode_Model
) -> None:
    path = tmp_path / "people.npz"
    change = arrays(encoder_name=np.array("huge"), encoder_fingerprint=np.array("0" * 16))
    change(gallery_file.read_bytes(), path)
    with pytest.raises(WrongEncoderError, match=r"'huge' \(0{16}\).*'tiny'"):
        tiny_model.load_gallery(path)


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 12).tolist())
def test_cut_off_anywhere_it_is_refused(
    share: float, tmp_path: Path, gallery_file: Path, tiny_model: Face_Encode_Model
) -> None:
    whole = gallery_file.read_bytes()
    path = tmp_path / "people.npz"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(GalleryError, match="cut off"):
        tiny_model.load_gallery(path)


def test_whatever_bytes_are_damaged_no_foreign_error_comes_through(
    tmp_path: Path, gallery_file: Path, tiny_model: Face_Encode_Model
) -> None:
    random = np.random.default_rng(11)
    whole = gallery_file.read_bytes()
    path = tmp_path / "people.npz"
    refused = 0
    for _ in range(400):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[random.integers(0, len(damaged), 4)] = random.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        try:
            tiny_model.load_gallery(path)
        except GalleryError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert len(tiny_model.gallery) == 3
    assert refused > 300


def folder(path: Path, whole: bytes) -> Path:
    path.mkdir()
    return path


def pipe(path: Path, whole: bytes) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(path)
    return path


def linked(target: str) -> Callable[[Path, bytes], Path]:
    def make(path: Path, whole: bytes) -> Path:
        path.symlink_to(target)
        return path

    return make


def wrong_ending(path: Path, whole: bytes) -> Path:
    other = path.with_suffix(".pkl")
    other.write_bytes(whole)
    return other


def forbidden(path: Path, whole: bytes) -> Path:
    path.write_bytes(whole)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("nothing can be forbidden to this user")
    return path


NO_FILES: dict[str, tuple[Callable[[Path, bytes], Path], str]] = {
    "missing": (lambda path, whole: path, "no such gallery"),
    "a folder": (folder, "is a directory"),
    "a pipe": (pipe, "not a regular file"),
    "a device": (linked("/dev/zero"), "not a regular file"),
    "a dangling link": (linked("gone.npz"), "no such gallery"),
    "a link to itself": (linked("people.npz"), "too many levels"),
    "another ending": (wrong_ending, "of an .npz file"),
    "no permission": (forbidden, "permission denied"),
    "a name that is too long": (
        lambda path, whole: path.with_name("a" * 300 + ".npz"),
        "name too long",
    ),
}


@pytest.mark.parametrize("case", NO_FILES)
def test_what_is_no_gallery_file_is_refused(
    case: str, tmp_path: Path, gallery_file: Path, tiny_model: Face_Encode_Model
) -> None:
    make, told = NO_FILES[case]
    path = make(tmp_path / "people.npz", gallery_file.read_bytes())
    with pytest.raises(GalleryError, match=told):
        tiny_model.load_gallery(path)


@pytest.mark.parametrize("path", ["", "a\0.npz", b"people.npz", None, 3])
def test_what_is_no_path_is_refused(path: Any, tiny_model: Face_Encode_Model) -> None:
    with pytest.raises(InputError, match="a path is"):
        tiny_model.load_gallery(path)
    if path is not None:
        with pytest.raises(InputError, match="a path is"):
            open_gallery(path, encoder=tiny_model.encoder)


UNWRITABLE: dict[str, tuple[str, str]] = {
    "another ending": ("people.pkl", "ends in .npz"),
    "no ending": ("people", "ends in .npz"),
    "an ending in capitals": ("people.NPZ", "ends in .npz"),
    "in the place of a folder": ("folder.npz", "Is a directory"),
    "inside a file": ("file.txt/people.npz", "Not a directory|File exists"),
    "a name that is too long": ("a" * 300 + ".npz", "File name too long"),
    "among the kernel's": ("/proc/people.npz", "cannot write"),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_where_a_gallery_cannot_be_written_that_is_told(
    case: str, tmp_path: Path, tiny_model: Face_Encode_Model
) -> None:
    name, told = UNWRITABLE[case]
    if name.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(GalleryError, match=told):
        tiny_model.save_gallery(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder.npz"]


def test_a_long_name_that_the_file_system_takes_is_written(
    tmp_path: Path, tiny_model: Face_Encode_Model
) -> None:
    path = tmp_path / ("ä" * 125 + ".npz")  # 254 bytes
    tiny_model.save_gallery(path)
    tiny_model.load_gallery(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_gallery_of_other_byte_order_and_packing_is_read(
    tmp_path: Path, gallery_file: Path, tiny_model: Face_Encode_Model
) -> None:
    with np.load(gallery_file) as stored:
        former = dict(stored)
    swapped = former["embeddings"].astype(">f4")
    np.savez_compressed(tmp_path / "people.npz", **{**former, "embeddings": swapped})
    tiny_model.load_gallery(tmp_path / "people.npz")
    np.testing.assert_array_equal(tiny_model.verify_embeddings, former["embeddings"])


def test_a_copy_elsewhere_is_the_same_gallery(
    tmp_path: Path, gallery_file: Path, tiny_model: Face_Encode_Model
) -> None:
    path = tmp_path / "Üßer [alle] 人.npz"
    shutil.copy(gallery_file, path)
    tiny_model.load_gallery(path)
    assert tiny_model.verify_names.tolist() == ["Ada", "Bo", "Çelik"]
