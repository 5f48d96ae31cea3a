"""People from elsewhere into a gallery database: other galleries, and files of embeddings."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from face_encode.errors import EmbeddingFileError, GalleryError
from face_encode.files import as_path, open_regular, reason_of, text_array
from face_encode.gallery.base import GalleryRows, PhotoDetails, StoredEncoder, one_name_a_person
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.encryption import cipher_from_environment, decrypted, is_encrypted
from face_encode.gallery.export import read_people_parquet
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.npz import read_content, read_open_content
from face_encode.pipeline.embedding_file import read_embeddings


def import_people(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    check_quality: bool = True,
) -> tuple[int, int, list[str]]:
    """Copy people from a file of embeddings into a gallery database, new or not.

    Who is in both has the photos of the source afterwards; the others of the target stay. Its
    calibration is taken where the target has none, and so is a person's own threshold.

    Args:
        source: An ``.npz`` gallery, also one that ``face-encode serve`` encrypted; people exported
            as ``.parquet``; or what ``face-encode embed`` wrote of a folder with a sub-folder a
            person, ``.npz`` or ``.parquet``, of which the largest face of each photo is taken.
        target: A ``.sqlite`` file.
        check_quality: Whether to leave out photos of an embedded folder whose face is not to be
            trusted: blurred, covered, dark …

    Returns:
        How many photos were copied, of how many people, and notes.

    Raises:
        GalleryError: One of the two is missing, damaged or of another kind.
        EmbeddingFileError: The same, of a file of embeddings.
        WrongEncoderError: Another encoder filled the target.
    """
    rows, encoder, details, notes = _read(as_path(source), check_quality)
    if not len(rows.names):
        raise GalleryError(
            f"nobody is in {source}" + (f" who can be imported; {notes[0]}" if notes else "")
        )
    with closing(DatabaseGallery(target, encoder, metric=rows.metric)) as gallery:
        names, alike = one_name_a_person(dict.fromkeys(rows.names.tolist()), gallery)
        gallery.replace(
            [names[name] for name in rows.names.tolist()],
            rows.embeddings,
            rows.digests.tolist(),
            "same people",
            detector_name=rows.detector_name,
            details=details,
        )
        if gallery.calibration is None:
            gallery.calibration = rows.calibration
        held = gallery.thresholds
        for name, threshold in rows.thresholds.items():
            if names[name] not in held:
                gallery.set_threshold(names[name], threshold)
    return len(rows.names), len(set(names.values())), [*alike, *notes]


def _read(
    path: Path, check_quality: bool
) -> tuple[GalleryRows, StoredEncoder, Sequence[PhotoDetails] | None, list[str]]:
    """The people in a file, their encoder, what is known of each photo, and notes."""
    if path.suffix == ".parquet":
        people = read_people_parquet(path)
        return _of_embeddings(path, check_quality) if people is None else (*people, [])
    if path.suffix != ".npz":
        raise GalleryError(
            "people are imported from an .npz or .parquet file, or from a folder of crops. "
            f"Received: {path}"
        )
    try:
        with open_regular(path) as file:
            content = file.read(16)
            if is_encrypted(content):
                content = decrypted(content + file.read(), cipher_from_environment(), str(path))
                held = read_open_content(io.BytesIO(content), str(path))
            elif zipfile.is_zipfile(file) and "settings.npy" in zipfile.ZipFile(file).namelist():
                return _of_embeddings(path, check_quality)
            else:
                held = read_content(path)
    except FileNotFoundError as error:
        raise GalleryError(f"no such gallery: {path}") from error
    except (OSError, zipfile.BadZipFile) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise GalleryError(f"the gallery {path} cannot be read: {reason}") from error
    size = held.enrolled.rows.shape[1]
    encoder = StoredEncoder(held.encoder_name, held.encoder_fingerprint, size)
    return MemoryGallery.from_content(held, encoder).rows(), encoder, None, []


def _of_embeddings(
    path: Path, check_quality: bool
) -> tuple[GalleryRows, StoredEncoder, Sequence[PhotoDetails], list[str]]:
    """The people of an embedded folder: the first folder in each photo's path names the person."""
    table = read_embeddings(path)
    is_largest = table.faces == 0
    names = [photo.split("/")[0] if "/" in photo else "" for photo in table.photos.tolist()]
    taken = np.flatnonzero(is_largest & (text_array(names) != ""))
    if not len(taken):
        raise EmbeddingFileError(
            f"{path} holds no photo in a folder that could name its person: embed a folder with "
            "one sub-folder a person"
        )
    notes = []
    if check_quality:
        judged = [(row, table.quality(row)) for row in taken.tolist()]
        refusals = {row: quality.refusal for row, quality in judged if quality and quality.refusal}
        notes = [f"{table.photos[row]}: {refusal}" for row, refusal in refusals.items()]
        taken = np.setdiff1d(taken, list(refusals))
    settings = table.settings
    encoder = StoredEncoder(settings.encoder, settings.fingerprint, settings.embedding_size)
    rows = GalleryRows(
        text_array(names)[taken],
        table.embeddings[taken],
        table.digests[taken],
        settings.detector,
        "cosine",
        None,
    )
    details = []
    for row in taken.tolist():
        quality = table.quality(row)
        value = None if quality is None else quality.value
        details.append(PhotoDetails(str(table.photos[row]), table.box(row), value))
    notes += [f"{photo}: {reason}" for photo, reason in table.left_out]
    if passed_over := int((~is_largest).sum()):
        notes.append(f"{passed_over} faces that are not the largest of their photo are left out")
    if nameless := int((is_largest & (text_array(names) == "")).sum()):
        notes.append(f"{nameless} photos that lie in no person's folder are left out")
    return rows, encoder, details, notes
