"""The file of a gallery: an ``.npz`` archive of plain arrays, none of them pickled."""

from __future__ import annotations

from pathlib import Path

from face_encode.archives import ArchiveForm
from face_encode.errors import GalleryError

# Version 1 holds float32 embeddings that are searched by cosine. Version 2 may hold int8 ones with
# their ``centre``, or another metric, which a release that knows version 1 only has to refuse.
PLAIN_VERSION = 1
NEWEST_VERSION = 2

# What a file begins with that ``face-encode serve`` keeps under a key.
ENCRYPTED_HEADER = b"face_encode encrypted 1\n"

GALLERY_FORM = ArchiveForm(
    what="gallery",
    newest=NEWEST_VERSION,
    arrays={
        "encoder_name": ("U", 0),
        "encoder_fingerprint": ("U", 0),
        "detector_name": ("U", 0),
        "names": ("U", 1),
        "digests": ("U", 1),
        "embeddings": ("fi", 2),
    },
    # Files from before there were these are as good without.
    optional={"calibration": ("U", 0), "centre": ("f", 1), "metric": ("U", 0)},
    error_type=GalleryError,
    refused={ENCRYPTED_HEADER: "is encrypted; face-encode serve reads it with its key"},
)


def check_file_name(path: Path) -> None:
    """Refuse a gallery file by another ending than numpy would give it."""
    if path.suffix != ".npz":
        raise GalleryError(f"a gallery file's name ends in .npz. Received: {path}")
