"""Clustering: which faces of unnamed photos are of one person, and how right a grouping is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, ImageError, InputError, MissingExtraError
from face_encode.evaluation.calibration import Integers, unit_length
from face_encode.photos.folders import no_photo_below, photos_below
from face_encode.photos.reading import read_image
from face_encode.pipeline.embedding import embed_photos
from face_encode.terminal import tracked
from face_encode.types import Box

# Every face is compared with every other: 20,000 faces take 1.6 GB.
MOST_FACES = 20_000


@dataclass(frozen=True)
class BCubed:
    """How right a grouping is, seen from each item (Bagga & Baldwin, 1998).

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
    reaches the threshold (UPGMA, Sokal & Michener, 1958). A single chance likeness cannot join
    two groups, as it does with single linkage; and the number of people need not be known.

    Args:
        embeddings: ``(N, D)``, finite, none of length zero; N at least 1.
        threshold: Mean cosine similarity from which two groups are one person, -1..1; an
            encoder's own threshold serves well.

    Returns:
        ``(N,)``, the group of each face, numbered from 0, the largest group first.

    Raises:
        InputError: Wrong shapes or values, or more faces than ``MOST_FACES``.
        MissingExtraError: scipy is not installed.
    """
    if not -1 <= threshold <= 1:
        raise InputError(f"a cosine threshold lies within -1..1. Received: {threshold}")
    units = unit_length(embeddings)
    if len(units) > MOST_FACES:
        raise InputError(
            f"at most {MOST_FACES:,} faces are grouped at once. Received: {len(units):,}"
        )
    if len(units) == 1:
        return np.zeros(1, np.intp)
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
    except ImportError as error:
        raise MissingExtraError(
            "grouping faces needs scipy: pip install 'face_encode[cluster]'"
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
    """Number groups from 0, the largest first, equal ones by their first item."""
    _, first, number, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    place = np.empty(len(sizes), np.intp)
    place[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return place[number]


# Enough around a face for a detector to find it again when the folder is enrolled.
_SURROUNDINGS = 0.6


@dataclass(frozen=True)
class PhotoFace:
    """A face of a photo.

    Attributes:
        photo: The photo's path.
        box: Where in it.
        place: Its place among the photo's faces, from 0, the largest first.
    """

    photo: str
    box: Box
    place: int


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
        """What a group is called, and its folder: ``person_001`` for the largest."""
        return f"person_{number + 1:0{max(3, len(str(len(self.groups))))}d}"

    def as_dict(self, fewest_faces: int) -> dict[str, Any]:
        """The groups as plain JSON values, as ``cluster --json`` prints them."""
        return {
            "photos": self.photos,
            "threshold": self.threshold,
            "people": [
                {
                    "name": self.name_of(number),
                    "faces": [
                        {"photo": face.photo, "bounding_box": face.box.as_dict()} for face in group
                    ],
                }
                for number, group in enumerate(self.groups)
                if len(group) >= fewest_faces
            ],
            "others": [
                {"photo": face.photo, "bounding_box": face.box.as_dict()}
                for group in self.groups
                if len(group) < fewest_faces
                for face in group
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
        folder: The photos; hidden files and folders are passed over.
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
    photos = _photos_below(Path(folder))
    limit = encoder.contract.threshold if threshold is None else threshold
    faces: list[PhotoFace] = []
    left_out: list[tuple[str, str]] = []
    embeddings = []
    embedded = embed_photos(photos, detector, encoder, max_faces=None, workers=workers)
    for photo in tracked(embedded, len(photos), "Encoding", show=progress):
        if photo.error is not None:
            left_out.append((photo.photo, photo.error))
            continue
        embeddings.append(photo.embeddings)
        faces += [PhotoFace(photo.photo, face.box, place) for place, face in enumerate(photo.faces)]
    if not faces:
        raise DatasetError(f"no face in any of the {len(photos)} photos in {folder}")
    number = cluster_faces(np.concatenate(embeddings), limit)
    groups: list[list[PhotoFace]] = [[] for _ in range(int(number.max()) + 1)]
    for face, group in zip(faces, number, strict=True):
        groups[group].append(face)
    return Groups(tuple(map(tuple, groups)), len(photos), tuple(left_out), limit)


def check_output_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that holds something already, before hours of work rather than after.

    Raises:
        DatasetError: It is a file, or not empty.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"the output goes to a new or an empty folder. Received: {target}")


def write_groups(result: Groups, folder: str | os.PathLike[str], fewest_faces: int = 2) -> int:
    """Write the faces, cut out with their surroundings, into a folder a person.

    The folder can be enrolled as it is once its sub-folders bear names.

    Args:
        result: The groups.
        folder: New or empty.
        fewest_faces: Groups of fewer are not written.

    Returns:
        How many people were written.

    Raises:
        DatasetError: The folder is not empty, or cannot be written.
    """
    check_output_folder(folder)
    kept = [group for group in result.groups if len(group) >= fewest_faces]
    try:
        for number, group in enumerate(kept):
            target = Path(folder) / result.name_of(number)
            target.mkdir(parents=True)
            for place, face in enumerate(group):
                # Photos of one name lie in different sub-folders; the number keeps them apart.
                name = f"{place + 1:04d}_{Path(face.photo).stem}.jpg"
                _cut_out(face).save(target / name, quality=95)
    except OSError as error:
        raise DatasetError(f"cannot write to {folder}: {error.strerror or error}") from error
    except ImageError as error:
        raise DatasetError(f"a photo has changed meanwhile: {error}") from error
    return len(kept)


def _cut_out(face: PhotoFace) -> Image.Image:
    """The face with its surroundings."""
    image = Image.fromarray(read_image(face.photo))
    margin = round(_SURROUNDINGS * max(face.box.width, face.box.height))
    box = face.box
    return image.crop(
        (
            max(0, box.left - margin),
            max(0, box.top - margin),
            min(image.width, box.left + box.width + margin),
            min(image.height, box.top + box.height + margin),
        )
    )


def _photos_below(folder: Path) -> list[Path]:
    """All photos in a folder and below it, sorted."""
    photos, unlisted = photos_below(folder)
    if not photos:
        raise no_photo_below(folder, unlisted)
    return [folder / photo for photo in photos]
