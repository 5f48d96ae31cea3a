from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from cryptography.fernet import Fernet

from face_encode.encoders.encoder import Encoder
from face_encode.errors import GalleryError, InputError
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.encryption import Cipher, cipher_from_environment, is_encrypted
from tests.conftest import EXAMPLES
from tests.server.conftest import Serve

STRANGER = (EXAMPLES / "stranger.jpg").read_bytes()


@pytest.fixture
def key() -> Iterator[bytes]:
    yield secrets.token_bytes(32)


def test_what_was_encrypted_comes_back(key: bytes) -> None:
    cipher = Cipher([key])
    one, two = cipher.encrypt(b"a secret"), cipher.encrypt(b"a secret")
    assert is_encrypted(one) and b"secret" not in one
    assert one != two  # a nonce of its own
    assert cipher.decrypt(one, "x") == b"a secret"
    assert cipher.decrypt(cipher.encrypt(b""), "x") == b""


def test_a_changed_cut_or_foreign_file_is_refused(key: bytes) -> None:
    encrypted = Cipher([key]).encrypt(b"a secret")
    changed = encrypted[:-1] + bytes([encrypted[-1] ^ 1])
    middle = encrypted[:40] + bytes([encrypted[40] ^ 1]) + encrypted[41:]
    for content in (changed, middle, encrypted[:-1], encrypted[:30], encrypted[:24]):
        with pytest.raises(GalleryError, match=r"people.npz cannot be decrypted"):
            Cipher([key]).decrypt(content, "people.npz")
    with pytest.raises(GalleryError, match="none of the keys"):
        Cipher([secrets.token_bytes(32)]).decrypt(encrypted, "people.npz")


def test_anybody_with_the_key_can_decrypt(key: bytes) -> None:
    """The format is Fernet's own, so that no file depends on this package."""
    fernet = Fernet(base64.urlsafe_b64encode(key))
    assert fernet.decrypt(Cipher([key]).encrypt(b"a secret")) == b"a secret"
    assert Cipher([key]).decrypt(fernet.encrypt(b"a secret"), "x") == b"a secret"


def test_a_new_key_in_front_of_the_former(key: bytes) -> None:
    former, both = Cipher([key]), Cipher([secrets.token_bytes(32), key])
    assert both.decrypt(former.encrypt(b"a"), "x") == b"a"
    with pytest.raises(GalleryError):
        former.decrypt(both.encrypt(b"a"), "x")


def test_keys_come_from_the_environment(key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACE_ENCODE_GALLERY_KEY", raising=False)
    assert cipher_from_environment() is None
    encrypted = Cipher([key]).encrypt(b"a")
    spellings = [
        key.hex(),
        base64.b64encode(key).decode(),
        base64.urlsafe_b64encode(key).decode(),
        f" {secrets.token_hex(32)} , {key.hex()} ",
    ]
    for text in spellings:
        monkeypatch.setenv("FACE_ENCODE_GALLERY_KEY", text)
        cipher = cipher_from_environment()
        assert cipher is not None and cipher.decrypt(encrypted, "x") == b"a"


@pytest.mark.parametrize("text", ["password", "ab" * 31, "ab" * 33, "ab" * 32 + ",", "ä" * 64])
def test_a_wrong_key_is_reported_without_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE_ENCODE_GALLERY_KEY", text)
    with pytest.raises(InputError, match="32 random bytes") as error:
        cipher_from_environment()
    assert text not in str(error.value)


@pytest.mark.parametrize("text", ["", "  "])
def test_a_blank_key_does_not_leave_a_gallery_plain(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE_ENCODE_GALLERY_KEY", text)
    with pytest.raises(InputError, match="is set, but blank"):
        cipher_from_environment()


def test_everything_that_a_service_keeps_is_encrypted(
    serve: Serve, key: bytes, tmp_path: Path, encoder: Encoder
) -> None:
    with serve(cipher=Cipher([key]), keep_crops=True) as client:
        answer = client.post(
            "/v1/people", data={"name": "Zoe Wang"}, files={"photos": ("spring.jpg", STRANGER)}
        )
        assert answer.status_code == 200
        client.patch("/v1/people/zoe wang", json={"note": "at the front desk"})
        (photo,) = client.get("/v1/people/Zoe Wang/photos").json()["photos"]
        crop = client.get(f"/v1/photos/{photo['id']}/crop").content
        picture = client.get("/v1/people/Zoe Wang/thumbnail").content
        assert client.get("/v1/changes").json()["changes"][0]["added"] == {"Zoe Wang": [1]}
    assert crop.startswith(b"\xff\xd8") and picture.startswith(b"\xff\xd8")
    secrets_of = (b"Zoe Wang", b"zoe wang", b"front desk", b"spring.jpg", crop[200:260])
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert [secret for secret in secrets_of if secret in content] == []
    with pytest.raises(GalleryError, match="is encrypted: its key belongs in"):
        DatabaseGallery(tmp_path / "people.sqlite", encoder)
