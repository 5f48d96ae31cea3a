"""A gallery database from one encoder to another, by the crops that it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import GalleryError, ImageError
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.people_rows import EnrolledPhoto
from face_encode.photos.reading import decode_image
from face_encode.pipeline.embedding import embed_photos
from face_encode.terminal import with_progress
from face_encode.types import ImageArray

# People that an error names.
_NAMED = 20
_NO_CROP = "no crop of it is kept"


@dataclass(frozen=True)
class ReembeddingReport:
    """The outcome for each photo of a gallery.

    Attributes:
        embedded: Number of photos that the new encoder has embedded.
        left_out: Each photo that it could not embed, and why; it is no longer in the gallery.
        lost: The people of whom no photo is left: they have to be photographed again.
    """

    embedded: int
    left_out: tuple[tuple[EnrolledPhoto, str], ...]
    lost: tuple[str, ...]


def reembed(
    gallery: DatabaseGallery,
    detector: Detector,
    encoder: Encoder,
    *,
    leave_out: bool = False,
    check_quality: bool = True,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[DatabaseGallery, ReembeddingReport]:
    """Embed everybody again by another encoder, from the crops that the gallery keeps.

    The largest face of each crop is taken. The gallery changes in one step at the end.

    Args:
        gallery: The gallery; it is closed.
        detector: Finds the face in each crop.
        encoder: The new encoder.
        leave_out: Whether people of whom no photo can be embedded are removed.
        check_quality: Whether to leave out photos that the new encoder does not trust: blurred,
            covered, dark …
        workers: As for ``embed_photos``.
        progress: Whether to show a progress bar.

    Returns:
        The gallery, opened with the new encoder, and what became of each photo.

    Raises:
        GalleryError: People would be lost, whom the error names, and ``leave_out`` is False; or
            somebody changed the gallery meanwhile. The gallery stays as it was.
    """
    mark = gallery.mark()
    photos = gallery.photos()
    left_out = [(photo, _NO_CROP) for photo in photos if not photo.has_crop]
    # Before the work: crops that are there may still turn out to be unusable.
    _check_lost(photos, {photo.id for photo, _ in left_out}, leave_out)
    with_crops = [photo for photo in photos if photo.has_crop]
    embedded = embed_photos(_crops(gallery, with_crops), detector, encoder, workers=workers)
    found: dict[int, npt.NDArray[np.float32]] = {}
    qualities: dict[int, float] = {}
    shown = with_progress(embedded, len(with_crops), "Embedding", show=progress)
    for photo, result in zip(with_crops, shown, strict=True):
        reason = result.error or (result.refusal if check_quality else None)
        if reason is not None:
            left_out.append((photo, reason))
            continue
        found[photo.id] = result.embeddings[0]
        if quality := result.faces[0].quality:
            qualities[photo.id] = quality.value
    lost = _check_lost(photos, {photo.id for photo, _ in left_out}, leave_out)
    changed = gallery.reembed(encoder, found, qualities=qualities, mark=mark)
    return changed, ReembeddingReport(len(found), tuple(left_out), lost)


def _crops(gallery: DatabaseGallery, photos: list[EnrolledPhoto]) -> Iterator[ImageArray]:
    """The crops of photos, each read when its turn comes; a black pixel for one that is damaged."""
    for photo in photos:
        try:
            yield decode_image(gallery.crop(photo.id) or b"")
        except ImageError:
            yield np.zeros((1, 1, 3), np.uint8)


def _check_lost(
    photos: list[EnrolledPhoto], left_out: set[int], may_be_lost: bool
) -> tuple[str, ...]:
    """The people of whom nothing would be left; refuse to lose them unless that is asked for."""
    stay = {photo.name for photo in photos if photo.id not in left_out}
    lost = tuple(dict.fromkeys(photo.name for photo in photos if photo.name not in stay))
    if lost and not may_be_lost:
        names = ", ".join(lost[:_NAMED]) + (", …" if len(lost) > _NAMED else "")
        raise GalleryError(
            f"{len(lost)} people would be lost, because no photo of them can be embedded again: "
            f"{names}. Nothing has changed; --leave-out (leave_out=True) removes them, to be "
            "photographed and enrolled again"
        )
    return lost
