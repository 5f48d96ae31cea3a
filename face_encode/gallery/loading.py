"""Galleries read from ``.npz`` files."""

from __future__ import annotations

import os
from typing import BinaryIO

from face_encode.distances import Metric
from face_encode.files import as_path
from face_encode.gallery.gallery import EncoderIdentity
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.npz_file import read_content, read_open_content


def load_gallery(
    path: str | os.PathLike[str], encoder: EncoderIdentity, *, metric: Metric | None = "cosine"
) -> MemoryGallery:
    """Read a gallery from an ``.npz`` file; a large one is mapped into memory.

    Args:
        path: The file; ``close``, and ``save`` without a path, write it again.
        encoder: The encoder that filled it.
        metric: The metric that it has to be searched by; None takes the file's.

    Raises:
        GalleryError: Missing, damaged, searched by another metric, or written by a later release.
        WrongEncoderError: Another encoder filled it.
    """
    path = as_path(path)
    content = read_content(path)
    content.check(str(path), encoder, metric)
    return MemoryGallery.of(content, encoder, path)


def read_gallery(file: BinaryIO, encoder: EncoderIdentity, label: str) -> MemoryGallery:
    """Read a gallery from an open ``.npz`` archive, which it has nothing to do with afterwards.

    Args:
        file: The archive, open for reading.
        encoder: The encoder that filled it.
        label: What it is called in errors.

    Raises:
        GalleryError: Damaged, searched by another metric than cosine, or written by a later
            release.
        WrongEncoderError: Another encoder filled it.
        OSError: The file cannot be read.
    """
    content = read_open_content(file, label)
    content.check(label, encoder, "cosine")
    return MemoryGallery.of(content, encoder)
