"""Clustering: sort the faces of unnamed photos into people, and measure a grouping."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.detectors.alignment import make_portrait
from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, ImageError, InputError, MissingExtraError
from face_encode.evaluation.calibration import Integers
from face_encode.evaluation.faces import checked_units, cut_out
from face_encode.files import filling, for_owner, make_private_folder
from face_encode.gallery.base import Gallery, PhotoDetails, unknown_id
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.unknown import MAX_FACES as MAX_FACES_KEPT
from face_encode.gallery.unknown import MAX_GROUPS, Sight
from face_encode.photos.folders import no_photo_below, photos_below
from face_encode.photos.reading import read_image
from face_encode.pipeline.embedding import embed_photos
from face_encode.terminal import with_progress
from face_encode.types import Box, Face, check_number

KEEP_DAYS_OF_PHOTOS = 30.0
"""How long the groups of a folder's photos wait in a gallery for their names."""

# Every face is compared with every other: 20,000 faces take 3.2 GB, since scipy copies distances.
MAX_FACES = 20_000


@dataclass(frozen=True)
class BCubed:
    """The accuracy of a grouping, averaged over items (Bagga & Baldwin, 1998).

    Attributes:
        precision: Mean over items of the share of its group that truly belongs with it.
        recall: Mean over items of the share of what truly belongs with it that is in its group.
        f: Harmonic mean of the two.
    """

    precision: float
    recall: float
    f: float


def cluster_faces(embeddings: npt.ArrayLike, threshold: float) -> Integers:
    """Group faces by person: average linkage over cosine similarity.

    Groups are merged, nearest first, while the mean similarity between the faces of the two
    reaches the threshold (UPGMA, Sokal & Michener, 1958). One chance likeness cannot join two
    groups, as it would with single linkage; and the number of people need not be known.

    Args:
        embeddings: ``(N, D)``, finite, none of length zero; N at least 1.
        threshold: Mean cosine similarity from which two groups are one person, -1..1; an
            encoder's own threshold is a good choice.

    Returns:
        ``(N,)``, the group of each face, numbered from 0, the largest group first.

    Raises:
        InputError: Wrong shapes or values, or more faces than ``MAX_FACES``.
        MissingExtraError: scipy is not installed.
    """
    check_number(threshold, "a cosine threshold", -1, 1)
    units = checked_units(embeddings)
    _check_count(len(units))
    if len(units) == 1:
        return np.zeros(1, np.intp)
    hierarchy = _hierarchy()
    distances = np.empty(len(units) * (len(units) - 1) // 2)
    start = 0
    for row in range(1, len(units)):
        stop = start + len(units) - row
        distances[start:stop] = 1 - units[row:] @ units[row - 1]
        start = stop
    # Rounding can make a distance of equal faces negative, which linkage refuses.
    merges = hierarchy.linkage(np.maximum(distances, 0, out=distances), "average")
    groups = hierarchy.fcluster(merges, 1 - threshold + 1e-12, "distance")
    return _largest_first(np.asarray(groups, np.intp))


def _check_count(faces: int) -> None:
    if faces > MAX_FACES:
        raise InputError(f"at most {MAX_FACES:,} faces are grouped at once. Received: {faces:,}")


def _hierarchy() -> Any:
    """The module of scipy that groups."""
    try:
        import scipy.cluster.hierarchy
    except ImportError as error:
        raise MissingExtraError(
            'grouping faces needs scipy: pip install "face_encode[cluster]"'
        ) from error
    return scipy.cluster.hierarchy


def b_cubed(true_groups: npt.ArrayLike, groups: npt.ArrayLike) -> BCubed:
    """Compare a grouping with the true one.

    Args:
        true_groups: ``(N,)``, a label for each item; N at least 1.
        groups: ``(N,)``, the grouping to judge.

    Raises:
        InputError: Wrong shapes.
    """
    truth, given = np.asarray(true_groups), np.asarray(groups)
    if truth.shape != given.shape or truth.ndim != 1 or len(truth) == 0:
        raise InputError(
            "two groupings have one label an item, shape (N,). "
            f"Received: {truth.shape} and {given.shape}"
        )
    _, true_number = np.unique(truth, return_inverse=True)
    _, number = np.unique(given, return_inverse=True)
    # Items that share both labels lie in one cell.
    _, cell, together = np.unique(
        true_number * (number.max() + 1) + number, return_inverse=True, return_counts=True
    )
    shared = together[cell]
    precision = float(np.mean(shared / np.bincount(number)[number]))
    recall = float(np.mean(shared / np.bincount(true_number)[true_number]))
    return BCubed(precision, recall, 2 * precision * recall / (precision + recall))


def _largest_first(groups: Integers) -> Integers:
    """Number groups from 0, the largest first, groups of one size by their first item."""
    _, first, number, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(sizes), np.intp)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[number]


# File systems allow 255 bytes, of which a letter takes at most four.
_STEM_KEPT = 60
# The margin that a detector needs to find the face again when the folder is enrolled.
_SURROUNDINGS = 0.6


@dataclass(frozen=True)
class PhotoFace:
    """A face of a photo.

    Attributes:
        photo: The photo's path.
        box: In pixels of the photo.
        rotation: See ``Face.rotation``.
        quality: 0..1; None with an encoder that does not judge.
        digest: The photo's, or of a face that is not the largest in it of that and its place; see
            ``Sight.digest``.
        embedding: float32 ``(D,)``.
    """

    photo: str
    box: Box
    rotation: int
    quality: float | None
    digest: str
    embedding: npt.NDArray[np.float32] = field(compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The face as plain JSON values."""
        return {"photo": self.photo, "bounding_box": self.box.as_dict()}


@dataclass(frozen=True)
class Groups:
    """The faces of a folder, sorted into people.

    Attributes:
        groups: The faces of each person, the person with the most faces first.
        photos: Number of photos.
        left_out: Photos without a face, with the reason.
        threshold: Mean similarity from which two groups were taken for one person.
        enrolled: Name -> number of faces of people who are enrolled already, where a gallery was
            given; they are in no group.
    """

    groups: tuple[tuple[PhotoFace, ...], ...]
    photos: int
    left_out: tuple[tuple[str, str], ...]
    threshold: float
    enrolled: Mapping[str, int] = field(default_factory=dict)

    def name_of(self, number: int) -> str:
        """The name of a group and of its folder: ``person_001`` for the largest."""
        return f"person_{number + 1:0{max(3, len(str(len(self.groups))))}d}"

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """The groups as plain JSON values, as ``cluster --json`` prints them.

        Args:
            names: What the first, largest groups are called; the faces of the others are listed
                without their group.
        """
        return {
            "photos": self.photos,
            "threshold": self.threshold,
            "enrolled": dict(self.enrolled),
            "people": [
                {"name": name, "faces": [face.as_dict() for face in group]}
                for name, group in zip(names, self.groups, strict=False)
            ],
            "others": [face.as_dict() for group in self.groups[len(names) :] for face in group],
            "left_out": [{"photo": photo, "reason": why} for photo, why in self.left_out],
        }


def group_photos(
    folder: str | os.PathLike[str],
    detector: Detector,
    encoder: Encoder,
    *,
    threshold: float | None = None,
    gallery: Gallery | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Groups:
    """Sort all faces of all photos in a folder and its sub-folders into people.

    Args:
        folder: The photos; hidden files and folders are skipped.
        detector: Finds the faces.
        encoder: Embeds them.
        threshold: Mean similarity from which two groups are one person; None takes the
            encoder's threshold.
        gallery: People who are enrolled, whose faces are left out of the groups; or None.
        workers: Processes that read and detect; None chooses.
        progress: Whether to show a progress bar.

    Raises:
        DatasetError: The folder is missing, or no photo in it has a face.
        InputError: A threshold out of range, or more faces than ``MAX_FACES``.
        MissingExtraError: scipy is not installed.
    """
    # Before hours of work.
    _hierarchy()
    limit = encoder.contract.threshold if threshold is None else threshold
    check_number(limit, "a cosine threshold", -1, 1)
    names, unlisted = photos_below(Path(folder))
    if not names:
        raise no_photo_below(Path(folder), unlisted)
    photos = [Path(folder) / name for name in names]
    faces: list[PhotoFace] = []
    enrolled: dict[str, int] = {}
    sifted = 0

    def sift() -> None:
        """Leave out the faces of enrolled people among those that came since the last time."""
        nonlocal sifted
        if gallery is not None and (new := faces[sifted:]):
            nearest = gallery.search(np.stack([face.embedding for face in new]))
            del faces[sifted:]
            for face, matches in zip(new, nearest, strict=True):
                if matches and matches[0].similarity >= limit:
                    enrolled[matches[0].name] = enrolled.get(matches[0].name, 0) + 1
                else:
                    faces.append(face)
        sifted = len(faces)

    left_out = [
        (str(Path(folder, where)), f"a folder that cannot be listed: {reason}")
        for where, reason in unlisted
    ]
    embedded = embed_photos(
        photos, detector, encoder, max_faces=None, workers=workers, digests=True
    )
    for photo in with_progress(embedded, len(photos), "Encoding", show=progress):
        if photo.error is not None:
            left_out.append((photo.photo, photo.error))
            continue
        for place, found in enumerate(photo.faces):
            quality = found.quality
            if quality is not None and quality.refusal:
                left_out.append((photo.photo, f"face {place}: {quality.refusal}"))
                continue
            digest = photo.digest
            if place:
                digest = hashlib.sha256(f"{digest} {found.box}".encode()).hexdigest()
            value = None if quality is None else quality.value
            embedding = photo.embeddings[place]
            faces.append(
                PhotoFace(photo.photo, found.box, found.rotation, value, digest, embedding)
            )
            if len(faces) > MAX_FACES:
                sift()
                _check_count(len(faces))
    sift()
    if not faces and not enrolled:
        raise DatasetError(
            f"no face that can be trusted in any of the {len(photos)} photos in {folder}"
        )
    groups: list[list[PhotoFace]] = []
    if faces:
        number = cluster_faces(np.stack([face.embedding for face in faces]), limit)
        groups = [[] for _ in range(int(number.max()) + 1)]
        for face, group in zip(faces, number, strict=True):
            groups[group].append(face)
    return Groups(tuple(map(tuple, groups)), len(photos), tuple(left_out), limit, enrolled)


def keep_groups(
    result: Groups,
    gallery: DatabaseGallery,
    folder: str | os.PathLike[str],
    detector: Detector,
    *,
    min_faces: int = 2,
    keep_days: float = KEEP_DAYS_OF_PHOTOS,
) -> list[str]:
    """Keep the groups in a gallery database as people without a name, to be named there.

    Of each group the faces of the highest quality are kept, of more than ``MAX_GROUPS`` groups
    the largest. Groups that the database has from an earlier run, or from a camera, get the faces
    that they lack.

    Args:
        result: The groups.
        gallery: The database, filled by the same encoder.
        folder: The photos are named by their path in it.
        detector: The one that found the faces.
        min_faces: Groups of fewer faces are not kept.
        keep_days: How long they are kept.

    Returns:
        What each group is called, ``unknown-7``, in the order of ``result.groups``.

    Raises:
        DatasetError: A photo has changed during the run.
        GalleryError: The database cannot be written to.
    """
    kept = [group for group in result.groups if len(group) >= min_faces][:MAX_GROUPS]
    best = [sorted(group, key=lambda face: -(face.quality or 0))[:MAX_FACES_KEPT] for group in kept]

    def sight(face: PhotoFace) -> Sight:
        image = read_image(face.photo)
        details = PhotoDetails(
            os.path.relpath(face.photo, folder),
            face.box,
            face.quality,
            make_portrait(image, Face(face.box, 1.0, rotation=face.rotation)),
        )
        return Sight(face.embedding, details, face.digest, detector.name)

    try:
        groups = [list(map(sight, faces)) for faces in best]
    except ImageError as error:
        raise DatasetError(f"a photo has changed during the run: {error}") from error
    numbers = gallery.unknown.add_groups(
        groups, list(map(len, kept)), result.threshold, keep_days=keep_days
    )
    return list(map(unknown_id, numbers))


def check_output_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse an output folder before hours of work rather than after.

    Raises:
        DatasetError: It is a file, or not empty.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"the output goes to a new or an empty folder. Received: {target}")


def write_groups(result: Groups, folder: str | os.PathLike[str], min_faces: int = 2) -> list[str]:
    """Write the faces, cut out with their surroundings, into one sub-folder a person.

    Once the sub-folders have people's names, the folder can be enrolled.

    Args:
        result: The groups.
        folder: New or empty.
        min_faces: Groups of fewer faces are not written.

    Returns:
        The name of each sub-folder, in the order of ``result.groups``.

    Raises:
        DatasetError: The folder is not empty, or cannot be written.
    """
    check_output_folder(folder)
    kept = [group for group in result.groups if len(group) >= min_faces]
    try:
        with filling(Path(folder)) as work:
            for number, group in enumerate(kept):
                target = work / result.name_of(number)
                make_private_folder(target)
                for index, face in enumerate(group, 1):
                    # Photos of one name may lie in different sub-folders.
                    name = f"{index:04d}_{Path(face.photo).stem[:_STEM_KEPT]}.jpg"
                    cut = cut_out(face.photo, face.box, _SURROUNDINGS)
                    with open(target / name, "wb", opener=for_owner) as file:
                        cut.save(file, "JPEG", quality=95)
    except OSError as error:
        raise DatasetError(f"cannot write to {folder}: {error.strerror or error}") from error
    except ImageError as error:
        raise DatasetError(f"a photo has changed during the run: {error}") from error
    return [result.name_of(number) for number in range(len(kept))]
