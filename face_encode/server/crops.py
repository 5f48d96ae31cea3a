"""Small pictures of the people, kept beside the gallery where that was asked for."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from face_encode.errors import GalleryError
from face_encode.files import open_regular, replacing
from face_encode.server.encryption import Cipher, is_encrypted
from face_encode.types import ImageArray

_SIDE_PIXELS = 96
_QUALITY_PERCENT = 85


class CropFolder:
    """One JPEG a person, named by a digest of the name, encrypted where the gallery is.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path, cipher: Cipher | None = None) -> None:
        """Take a folder; it is made when the first crop is kept."""
        self.path = path
        self._cipher = cipher

    def keep(self, name: str, crop: ImageArray) -> None:
        """Keep a person's crop, in the place of a former one.

        Raises:
            GalleryError: It cannot be written.
        """
        picture = Image.fromarray(crop)
        picture.thumbnail((_SIDE_PIXELS, _SIDE_PIXELS))
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=_QUALITY_PERCENT)
        self._write(name, content.getvalue())

    def of(self, name: str) -> bytes | None:
        """A person's crop as JPEG, or None where there is none that can be read."""
        try:
            with open_regular(self._path_of(name)) as file:
                content = file.read()
            if not is_encrypted(content):
                return content
            return None if self._cipher is None else self._cipher.decrypt(content, "a crop")
        except (OSError, GalleryError):
            return None

    def has(self, name: str) -> bool:
        """Whether there is a crop of a person."""
        return self._path_of(name).is_file()

    def forget(self, name: str) -> None:
        """Delete a person's crop, if there is one.

        Raises:
            GalleryError: It cannot be deleted.
        """
        try:
            self._path_of(name).unlink(missing_ok=True)
        except OSError as error:
            raise GalleryError(f"cannot delete a crop in {self.path}: {error.strerror}") from error

    def rename(self, name: str, new_name: str) -> None:
        """Keep a person's crop under another name.

        Raises:
            GalleryError: It cannot be written or deleted.
        """
        content = self.of(name)
        if content is not None:
            self._write(new_name, content)
        self.forget(name)

    def tidy(self, names: Iterable[str]) -> None:
        """Delete the crops of all but these people, and encrypt theirs under the first key.

        Raises:
            GalleryError: The folder cannot be written to.
        """
        if not self.path.is_dir():
            return
        wanted = {self._path_of(name): name for name in names}
        try:
            for path in self.path.iterdir():
                if path not in wanted:
                    # A crash left it behind.
                    path.unlink()
                elif self._cipher is not None and not self._cipher.is_current(path.read_bytes()):
                    content = self.of(wanted[path])
                    if content is not None:
                        self._write(wanted[path], content)
        except OSError as error:
            raise GalleryError(f"cannot tidy up {self.path}: {error.strerror}") from error

    def _write(self, name: str, content: bytes) -> None:
        if self._cipher is not None:
            content = self._cipher.encrypt(content)
        with replacing(self._path_of(name), GalleryError) as temporary:
            temporary.write_bytes(content)

    def _path_of(self, name: str) -> Path:
        # A digest, because no name that a client chose may become part of a path.
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return self.path / f"{digest[:40]}.jpg"
