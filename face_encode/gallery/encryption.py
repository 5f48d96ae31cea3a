"""Encryption at rest: Fernet (AES-128-CBC, HMAC-SHA256) under keys from the environment."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from contextlib import suppress

from face_encode.errors import GalleryError, InputError, MissingExtraError
from face_encode.gallery.npz import ENCRYPTED_HEADER

KEY_VARIABLE = "FACE_ENCODE_GALLERY_KEY"
_KEY_BYTES = 32


class Cipher:
    """Encrypts under the first key and decrypts under any, so that a new key goes in front."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take the keys.

        Args:
            keys: At least one, of 32 bytes each.

        Raises:
            MissingExtraError: The library ``cryptography`` is not installed.
        """
        try:
            from cryptography.fernet import Fernet, MultiFernet
        except ImportError as error:
            raise MissingExtraError(
                'encrypting a gallery needs cryptography: pip install "face_encode[server]"'
            ) from error
        self._fernets = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])

    def encrypt(self, content: bytes) -> bytes:
        """Encrypt under the first key, into a Fernet token."""
        return self._fernets.encrypt(content)

    def decrypt(self, token: bytes, label: str) -> bytes:
        """Decrypt under whichever key fits.

        Args:
            token: What ``encrypt`` returned.
            label: The file's name in an error.

        Raises:
            GalleryError: None of the keys fits, or the file was changed or cut off.
        """
        from cryptography.fernet import InvalidToken

        try:
            return self._fernets.decrypt(token)
        except InvalidToken as error:
            raise GalleryError(
                f"{label} cannot be decrypted: none of the keys in {KEY_VARIABLE} encrypted it, or "
                "it was changed or cut off since"
            ) from error


def is_encrypted(content: bytes) -> bool:
    """Whether a file's content is encrypted."""
    return content.startswith(ENCRYPTED_HEADER)


def decrypted(content: bytes, cipher: Cipher | None, label: str) -> bytes:
    """Return the plain content of a file that may be encrypted.

    Raises:
        GalleryError: It is encrypted, and cannot be decrypted or there is no key.
    """
    if not is_encrypted(content):
        return content
    if cipher is None:
        raise GalleryError(f"{label} is encrypted: its key belongs in {KEY_VARIABLE}")
    return cipher.decrypt(content, label)


def cipher_from_environment() -> Cipher | None:
    """Make the cipher of the keys in ``FACE_ENCODE_GALLERY_KEY``; None where it is not set.

    Raises:
        InputError: The variable is blank, or a key is not 32 bytes in hexadecimal or base64.
        MissingExtraError: The library ``cryptography`` is not installed.
    """
    text = os.environ.get(KEY_VARIABLE)
    if text is None:
        return None
    if not text.strip():
        # Somebody wanted encryption, and would get a plain file.
        raise InputError(f"{KEY_VARIABLE} is set, but blank: give it a key, or unset it")
    return Cipher([_key(part.strip(), number) for number, part in enumerate(text.split(","), 1)])


def _key(text: str, number: int) -> bytes:
    """Read a key; an error does not repeat it."""
    key = b""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        key = bytes.fromhex(text)
    else:
        with suppress(ValueError):
            key = base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
    if len(key) != _KEY_BYTES:
        raise InputError(
            f"a key in {KEY_VARIABLE} is {_KEY_BYTES} random bytes, as 64 hexadecimal digits or in "
            "base64; make one by: python -c 'import secrets; print(secrets.token_hex(32))'. "
            f"Received: {len(text)} characters as key {number}"
        )
    return key
