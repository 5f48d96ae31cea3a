"""Clustering: sort the faces of unnamed photos into people, and measure a grouping."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, ImageError, InputError, MissingExtraError
from face_encode.evaluation.calibration import Integers
from face_encode.evaluation.faces import checked_units, cut_out
from face_encode.files import for_owner, make_private_folder
from face_encode.photos.folders import no_photo_below, photos_below
from face_encode.pipeline.embedding import embed_photos
from face_encode.terminal import with_progress
from face_encode.types import Box

# Every face is compared with every other: 20,000 faces take 1.6 GB.
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
    if not -1 <= threshold <= 1:
        raise InputError(f"a cosine threshold lies within -1..1. Received: {threshold}")
    units = checked_units(embeddings)
    if len(units) > MAX_FACES:
        raise InputError(
            f"at most {MAX_FACES:,} faces are grouped at once. Received: {len(units):,}"
        )
    if len(units) == 1:
        return np.zeros(1, np.intp)
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
    except ImportError as error:
        raise MissingExtraError(
            'grouping faces needs scipy: pip install "face_encode[cluster]"'
        ) from error
    rows, columns = np.triu_indices(len(units), 1)
    # Rounding can make a distance of equal faces negative, which linkage refuses.
    distances = np.maximum(1 - (units @ units.T)[rows, columns], 0).astype(np.float64)
    groups = fcluster(linkage(distances, "average"), 1 - threshold + 1e-12, "distance")
    return _largest_first(np.asarray(groups, np.intp))


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


# The margin that a detector needs to find the face again when the folder is enrolled.
_SURROUNDINGS = 0.6


@dataclass(frozen=True)
class PhotoFace:
    """A face of a photo.

    Attributes:
        photo: The photo's path.
        box: In pixels of the photo.
    """

    photo: str
    box: Box

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
    """

    groups: tuple[tuple[PhotoFace, ...], ...]
    photos: int
    left_out: tuple[tuple[str, str], ...]
    threshold: float

    def name_of(self, number: int) -> str:
        """The name of a group and of its folder: ``person_001`` for the largest."""
        return f"person_{number + 1:0{max(3, len(str(len(self.groups))))}d}"

    def as_dict(self, min_faces: int) -> dict[str, Any]:
        """The groups as plain JSON values, as ``cluster --json`` prints them."""
        return {
            "photos": self.photos,
            "threshold": self.threshold,
            "people": [
                {
                    "name": self.name_of(number),
                    "faces": [face.as_dict() for face in group],
                }
                for number, group in enumerate(self.groups)
                if len(group) >= min_faces
            ],
            "others": [
                face.as_dict() for group in self.groups if len(group) < min_faces for face in group
            ],
            "left_out": [{"photo": photo, "reason": why} for photo, why in self.left_out],
        }


def group_photos(
    folder: str | os.PathLike[str],
    detector: Detector,
    encoder: Encoder,
    *,
    threshold: float | None = None,
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
        workers: Processes that read and detect; None chooses.
        progress: Whether to show a progress bar.

    Raises:
        DatasetError: The folder is missing, or no photo in it has a face.
        MissingExtraError: scipy is not installed.
    """
    names, unlisted = photos_below(Path(folder))
    if not names:
        raise no_photo_below(Path(folder), unlisted)
    photos = [Path(folder) / name for name in names]
    limit = encoder.contract.threshold if threshold is None else threshold
    faces: list[PhotoFace] = []
    left_out = [
        (str(Path(folder, where)), f"a folder that cannot be listed: {reason}")
        for where, reason in unlisted
    ]
    embeddings = []
    embedded = embed_photos(photos, detector, encoder, max_faces=None, workers=workers)
    for photo in with_progress(embedded, len(photos), "Encoding", show=progress):
        if photo.error is not None:
            left_out.append((photo.photo, photo.error))
            continue
        trusted = [face.is_trusted for face in photo.faces]
        embeddings.append(photo.embeddings[trusted])
        for place, found in enumerate(photo.faces):
            if found.quality and found.quality.refusal:
                left_out.append((photo.photo, f"face {place}: {found.quality.refusal}"))
            else:
                faces.append(PhotoFace(photo.photo, found.box))
    if not faces:
        raise DatasetError(
            f"no face that can be trusted in any of the {len(photos)} photos in {folder}"
        )
    number = cluster_faces(np.concatenate(embeddings), limit)
    groups: list[list[PhotoFace]] = [[] for _ in range(int(number.max()) + 1)]
    for face, group in zip(faces, number, strict=True):
        groups[group].append(face)
    return Groups(tuple(map(tuple, groups)), len(photos), tuple(left_out), limit)


def check_output_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse an output folder before hours of work rather than after.

    Raises:
        DatasetError: It is a file, or not empty.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"the output goes to a new or an empty folder. Received: {target}")


def write_groups(result: Groups, folder: str | os.PathLike[str], min_faces: int = 2) -> int:
    """Write the faces, cut out with their surroundings, into one sub-folder a person.

    Once the sub-folders have people's names, the folder can be enrolled.

    Args:
        result: The groups.
        folder: New or empty.
        min_faces: Groups of fewer faces are not written.

    Returns:
        The number of people written.

    Raises:
        DatasetError: The folder is not empty, or cannot be written.
    """
    check_output_folder(folder)
    kept = [group for group in result.groups if len(group) >= min_faces]
    try:
        for number, group in enumerate(kept):
            target = Path(folder) / result.name_of(number)
            make_private_folder(target)
            for index, face in enumerate(group, 1):
                # Photos of one name may lie in different sub-folders.
                name = f"{index:04d}_{Path(face.photo).stem}.jpg"
                cut = cut_out(face.photo, face.box, _SURROUNDINGS)
                with open(target / name, "wb", opener=for_owner) as file:
                    cut.save(file, "JPEG", quality=95)
    except OSError as error:
        raise DatasetError(f"cannot write to {folder}: {error.strerror or error}") from error
    except ImageError as error:
        raise DatasetError(f"a photo has changed during the run: {error}") from error
    return len(kept)
