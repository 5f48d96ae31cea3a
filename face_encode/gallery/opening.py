"""The one function that opens a gallery, wherever it is kept."""

from __future__ import annotations

import os

from face_encode.errors import GalleryError
from face_encode.files import as_path
from face_encode.gallery.gallery import EncoderIdentity
from face_encode.gallery.memory import MemoryGallery

IN_MEMORY = ":memory:"


def open_gallery(
    uri: str | os.PathLike[str] | None = None, *, encoder: EncoderIdentity, int8: bool = False
) -> MemoryGallery:
    """Open a gallery.

    Args:
        uri: None or ``":memory:"`` for one that lives as long as the program; the path of an
            ``.npz`` file, which is read where it exists and written by ``close``.
        encoder: The encoder whose embeddings it holds or is to hold.
        int8: Whether to keep the embeddings as a byte a number. A gallery that holds float32 goes
            over to that; one that holds int8 stays with it in any case.

    Raises:
        GalleryError: No such kind of gallery, or the file is damaged.
        WrongEncoderError: Another encoder filled it.
    """
    if uri is None or uri == IN_MEMORY:
        return MemoryGallery(encoder, int8=int8)
    path = as_path(uri)
    if path.suffix != ".npz":
        raise GalleryError(
            f"a gallery is {IN_MEMORY!r} or the path of an .npz file. Received: {uri}"
        )
    # os.path, because pathlib raises where the path cannot be looked at.
    if not os.path.exists(path):
        return MemoryGallery(encoder, path, int8=int8)
    gallery = MemoryGallery.load(path, encoder)
    if int8:
        gallery.quantize()
    return gallery
