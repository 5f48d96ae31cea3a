"""What leaves a gallery database: a person's whole data, and the crops of everybody."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from face_encode.gallery.audit import former_names
from face_encode.gallery.database import DatabaseGallery


def export_person(gallery: DatabaseGallery, name: str, file: Path | BinaryIO) -> int:
    """Write everything that a gallery holds of a person to a zip file.

    In it are ``person.json``: the name, the note, the encoder, the photos, and what the audit says
    of this person, without the names of others; ``embeddings.npy``, float32 ``(n, D)``, a row a
    photo; and ``crops/ID.jpg`` for each photo of which a crop is kept.

    Args:
        gallery: The gallery.
        name: The person.
        file: Its path, or the file open for writing; not written atomically: see
            ``face_encode.files.replacing``.

    Returns:
        How many photos that person has.

    Raises:
        GalleryError: Nobody of that name is enrolled, or somebody changed the person meanwhile.
        OSError: The file cannot be written.
    """
    photos = gallery.photos(name)
    shown, numbers = photos[0].name, [photo.id for photo in photos]
    own = former_names(gallery.changes(), shown) - (gallery.people().keys() - {shown})
    told = {
        "name": shown,
        "note": gallery.note(shown),
        "encoder": gallery.encoder_name,
        "encoder_fingerprint": gallery.encoder_fingerprint,
        "photos": [photo.as_dict() for photo in photos],
        "audit": [
            change.as_dict()
            for change in (each.concerning(own) for each in gallery.changes())
            if change.removed or change.added or change.renamed
        ],
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("person.json", json.dumps(told, indent=2, ensure_ascii=False))
        with archive.open("embeddings.npy", "w") as opened:
            np.save(opened, gallery.embeddings_of(numbers), allow_pickle=False)
        for photo in photos:
            if photo.has_crop:
                archive.writestr(f"crops/{photo.id}.jpg", gallery.crop(photo.id) or b"")
    return len(photos)
