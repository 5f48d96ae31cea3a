"""Encryption at rest: AES-256-GCM (NIST SP 800-38D) under keys from the environment."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence

from face_encode.errors import GalleryError, InputError, MissingExtraError
from face_encode.gallery.npz import ENCRYPTED_HEADER as HEADER

KEY_VARIABLE = "FACE_ENCODE_GALLERY_KEY"

_KEY_BYTES = 32
_NONCE_BYTES = 12
# The library takes no more at once.
_MOST_BYTES = 2**31 - 1


class Cipher:
    """Encrypts under the first key, and decrypts what any of the keys encrypted.

    So a key is replaced by putting the new one in front: what is found under another is written
    anew under that.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take the keys.

        Args:
            keys: At least one, of 32 bytes each.

        Raises:
            MissingExtraError: The library ``cryptography`` is not installed.
        """
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtraError(
                'encrypting a gallery needs cryptography: pip install "face_encode[server]"'
            ) from error
        self._ciphers = [AESGCM(key) for key in keys]

    def encrypt(self, content: bytes) -> bytes:
        """Header, nonce, ciphertext and tag.

        Raises:
            GalleryError: More than 2 GiB.
        """
        if len(content) > _MOST_BYTES:
            raise GalleryError(
                f"at most {_MOST_BYTES:,} bytes are encrypted at once; keep so large a gallery on "
                f"an encrypted disk. Received: {len(content):,} bytes"
            )
        # Of random nonces one in 2^32 files may repeat without harm to be feared; no gallery is
        # written as often.
        nonce = os.urandom(_NONCE_BYTES)
        return HEADER + nonce + self._ciphers[0].encrypt(nonce, content, HEADER)

    def is_current(self, content: bytes) -> bool:
        """Whether a file is encrypted, and under the first key."""
        from cryptography.exceptions import InvalidTag

        if not is_encrypted(content):
            return False
        start = len(HEADER) + _NONCE_BYTES
        try:
            self._ciphers[0].decrypt(content[len(HEADER) : start], content[start:], HEADER)
        except (InvalidTag, ValueError):
            return False
        return True

    def decrypt(self, encrypted: bytes, label: str) -> bytes:
        """The content; ``label`` is what the file is called in an error.

        Raises:
            GalleryError: None of the keys fits, or the file was changed or cut off.
        """
        from cryptography.exceptions import InvalidTag

        start = len(HEADER) + _NONCE_BYTES
        nonce = encrypted[len(HEADER) : start]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, encrypted[start:], HEADER)
            except (InvalidTag, ValueError):
                continue
        raise GalleryError(
            f"{label} cannot be decrypted: none of the keys in {KEY_VARIABLE} encrypted it, or it "
            "was changed or cut off since"
        )


def cipher_from_environment() -> Cipher | None:
    """The cipher under the keys in ``FACE_ENCODE_GALLERY_KEY``, or None where it is not set.

    Raises:
        InputError: A key is not 32 bytes in hexadecimal or base64.
        MissingExtraError: The library ``cryptography`` is not installed.
    """
    text = os.environ.get(KEY_VARIABLE, "").strip()
    if not text:
        return None
    return Cipher([_key(part.strip(), place) for place, part in enumerate(text.split(","), 1)])


def is_encrypted(content: bytes) -> bool:
    """Whether a file that begins so is an encrypted one."""
    return content.startswith(HEADER)


def _key(text: str, place: int) -> bytes:
    """A key; it is not repeated in an error."""
    key = b""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        key = bytes.fromhex(text)
    else:
        try:
            key = base64.b64decode(text, altchars=b"-_" if set("-_") & set(text) else None)
        except (binascii.Error, ValueError):
            key = b""
    if len(key) != _KEY_BYTES:
        raise InputError(
            f"a key in {KEY_VARIABLE} is {_KEY_BYTES} random bytes, as 64 hexadecimal digits or in "
            "base64; make one by: python -c 'import secrets; print(secrets.token_hex(32))'. "
            f"Received: key {place}, {len(text)} characters that are not that"
        )
    return key
