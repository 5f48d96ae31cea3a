"""The file in which the service keeps its people, plain or encrypted."""

from __future__ import annotations

import io
from pathlib import Path

from face_encode.encoders.encoder import Encoder
from face_encode.errors import GalleryError
from face_encode.files import check_writable, open_regular, reason_of, replacing
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.npz import check_file_name, write_content
from face_encode.gallery.opening import read_gallery
from face_encode.server.encryption import KEY_VARIABLE, Cipher, is_encrypted


class GalleryFile:
    """Reads and writes one gallery file.

    With a cipher it is always encrypted under the first key: what is found otherwise is written
    anew as soon as it is read. Without one it is plain, and an encrypted one is refused.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, cipher: Cipher | None = None) -> None:
        """Take a path that can be written to.

        Raises:
            GalleryError: It does not end in ``.npz``, or cannot be written to.
        """
        check_file_name(path)
        check_writable(path, GalleryError)
        self.path = path
        self._cipher = cipher

    def read(self, encoder: Encoder) -> MemoryGallery:
        """The people that it holds; nobody where there is no file yet.

        Raises:
            GalleryError: It cannot be read or decrypted, or is damaged.
            WrongEncoderError: Another encoder filled it.
        """
        label = str(self.path)
        try:
            with open_regular(self.path) as file:
                content = file.read()
            is_current = self._cipher is None or self._cipher.is_current(content)
            if is_encrypted(content):
                if self._cipher is None:
                    raise GalleryError(f"{label} is encrypted: its key belongs in {KEY_VARIABLE}")
                content = self._cipher.decrypt(content, label)
            gallery = read_gallery(io.BytesIO(content), encoder, label)
            if not is_current:
                self.write(gallery)
            return gallery
        except FileNotFoundError:
            return MemoryGallery(encoder)
        except OSError as error:
            raise GalleryError(f"the gallery {label} cannot be read: {reason_of(error)}") from error

    def write(self, gallery: MemoryGallery) -> None:
        """Write it, atomically: whatever happens, the file is the former one or this one.

        Raises:
            GalleryError: It cannot be written.
        """
        with replacing(self.path, GalleryError) as temporary:
            if self._cipher is None:
                write_content(temporary, gallery.content)
                return
            content = io.BytesIO()
            write_content(content, gallery.content)
            temporary.write_bytes(self._cipher.encrypt(content.getvalue()))
