from __future__ import annotations

import secrets
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from face_encode.encoders.encoder import Encoder
from face_encode.errors import GalleryError
from face_encode.gallery.memory import MemoryGallery
from face_encode.model import Face_Encode_Model
from face_encode.server.encryption import Cipher, is_encrypted
from face_encode.server.people import GalleryFile


@pytest.fixture
def cipher() -> Cipher:
    return Cipher([secrets.token_bytes(32)])


def test_where_there_is_no_file_nobody_is_enrolled(tmp_path: Path, encoder: Encoder) -> None:
    assert len(GalleryFile(tmp_path / "new.npz").read(encoder)) == 0
    assert not (tmp_path / "new.npz").exists()


@pytest.mark.parametrize("encrypted", [False, True])
def test_what_was_written_is_read(
    encrypted: bool, tmp_path: Path, cipher: Cipher, fitted_model: Face_Encode_Model
) -> None:
    file = GalleryFile(tmp_path / "people.npz", cipher if encrypted else None)
    file.write(fitted_model.gallery.copy())
    assert file.read(fitted_model.encoder).people() == fitted_model.gallery.people()
    assert is_encrypted((tmp_path / "people.npz").read_bytes()) == encrypted
    assert len(list(tmp_path.iterdir())) == 1


def test_a_plain_file_is_encrypted_as_soon_as_there_is_a_key(
    tmp_path: Path, cipher: Cipher, fitted_model: Face_Encode_Model
) -> None:
    path, encoder = tmp_path / "people.npz", fitted_model.encoder
    GalleryFile(path).write(fitted_model.gallery.copy())
    assert len(GalleryFile(path, cipher).read(encoder)) == len(fitted_model.gallery)
    assert is_encrypted(path.read_bytes())
    assert len(GalleryFile(path, cipher).read(encoder)) == len(fitted_model.gallery)
    with pytest.raises(GalleryError, match="FACE_ENCODE_GALLERY_KEY"):
        GalleryFile(path).read(encoder)


def test_a_new_key_takes_over_at_the_next_start(
    tmp_path: Path, fitted_model: Face_Encode_Model
) -> None:
    path, encoder = tmp_path / "people.npz", fitted_model.encoder
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    GalleryFile(path, Cipher([old])).write(fitted_model.gallery.copy())
    GalleryFile(path, Cipher([new, old])).read(encoder)
    assert len(GalleryFile(path, Cipher([new])).read(encoder)) == len(fitted_model.gallery)
    with pytest.raises(GalleryError, match="none of the keys"):
        GalleryFile(path, Cipher([old])).read(encoder)


def test_a_damaged_file_is_told(tmp_path: Path, cipher: Cipher, encoder: Encoder) -> None:
    path = tmp_path / "people.npz"
    for content in (b"", b"nonsense", cipher.encrypt(b"nonsense"), cipher.encrypt(b"")[:-1]):
        path.write_bytes(content)
        with pytest.raises(GalleryError, match=r"people\.npz"):
            GalleryFile(path, cipher).read(encoder)


def test_another_place_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=r"ends in \.npz"):
        GalleryFile(tmp_path / "people.db")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(GalleryError, match="a folder"):
        GalleryFile(tmp_path / "folder.npz")


def test_a_gallery_of_the_command_line_is_served(
    tmp_path: Path, fitted_model: Face_Encode_Model
) -> None:
    fitted_model.save_gallery(tmp_path / "people.npz")
    gallery = GalleryFile(tmp_path / "people.npz").read(fitted_model.encoder)
    assert isinstance(gallery, MemoryGallery)
    assert gallery.people() == fitted_model.gallery.people()
