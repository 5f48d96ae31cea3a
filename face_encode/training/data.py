"""Data to train on: a folder of people, or of photos, becomes aligned crops, cut out once.

The crops of a folder are cached as one memory-mapped array: a second run does not cut them again,
and a folder may be larger than memory. Splits are by person, never by photo: a network recognises
people that it was trained on better than anyone else.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.detectors.alignment import ARCFACE_SIDE, arcface_transform
from face_encode.detectors.base import Detector
from face_encode.errors import DatasetError, ImageError, InputError, ModelFileError
from face_encode.files import as_path, replacing
from face_encode.photos.folders import list_people, photos_in
from face_encode.photos.reading import content_digest
from face_encode.pipeline.embedding import find_crops
from face_encode.terminal import printable, with_progress
from face_encode.types import Box, CropRecipe, Embeddings, Face, ImageArray, LeftOut
from face_encode.weights import cache_folder

Rows: TypeAlias = npt.NDArray[np.int64]
"""Indices of photos within a ``FaceCrops``."""

_MASTER_ROOM = 20
MASTER = CropRecipe(
    "arcface",
    ARCFACE_SIDE + 2 * _MASTER_ROOM,
    ARCFACE_SIDE + 2 * _MASTER_ROOM,
    margin=_MASTER_ROOM / ARCFACE_SIDE,
)
"""A master crop: with room to turn and move the face, before it is cut out by another recipe."""

# Of a matrix of similarities: some hundred megabytes for a hundred thousand photos.
_ROWS_AT_ONCE = 1024

# Where the points of a mirrored face stand in the order of an upright one.
_MIRRORED = {"landmarks": [2, 3, 0, 1, 4], "points": [1, 0, 2, 4, 3]}


@dataclass(frozen=True, eq=False)
class FaceCrops:
    """The aligned crops of a folder, one a photo.

    Attributes:
        crops: uint8 ``(N, height, width, 3)``, RGB; may be memory-mapped and read-only.
        people: int64 ``(N,)``, who is on each crop, as an index into ``names``.
        names: Names of the people on the crops; of unnamed photos, their paths.
        digests: SHA-256 of each photo's file, ``(N,)``.
        left_out: Photos without a crop, and folders that were not looked into, with the reason.
        photos: Each photo's path, from the folder's own name on, with ``/``; ``(N,)``.
        faces: For master crops, the face in each, in the crop's pixels; else empty.
        detector: The name of the detector that found the faces, on which the crops depend.
    """

    crops: ImageArray
    people: npt.NDArray[np.int64]
    names: tuple[str, ...]
    digests: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    photos: tuple[str, ...] = ()
    faces: tuple[Face, ...] = ()
    detector: str = ""

    def __post_init__(self) -> None:
        count = len(self.crops)
        if self.crops.ndim != 4 or self.people.shape != (count,) or len(self.digests) != count:
            raise InputError(
                "crops, people and digests are one each a photo. Received: crops "
                f"{self.crops.shape}, people {self.people.shape}, {len(self.digests)} digests"
            )

    def __len__(self) -> int:
        return len(self.crops)

    def part(self, rows: Rows) -> FaceCrops:
        """The crops of some rows, in memory, with all names."""
        digests = tuple(self.digests[row] for row in rows)
        return FaceCrops(np.asarray(self.crops[rows]), self.people[rows], self.names, digests)


def crop_people(
    folder: str | os.PathLike[str],
    recipe: CropRecipe,
    detector: Detector,
    *,
    cache: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> FaceCrops:
    """Cut the largest face out of each photo of a folder of people, or take it from the cache.

    The cache's key is the photos' content: a changed, added or removed photo makes a new entry.

    Args:
        folder: One sub-folder a person.
        recipe: How faces are cut out.
        detector: Finds the faces.
        cache: The folder to keep crops in; None for the package's own cache.
        workers: Number of processes; None chooses.
        progress: Whether to show a progress bar.

    Raises:
        DatasetError: The folder is no folder of people, holds fewer than two people or nobody
            with two photos whose face was found; or the cache cannot be written.
    """
    photos, left_out = _named_photos(folder)
    data = _crops_of(photos, left_out, as_path(folder), recipe, detector, cache, workers, progress)
    check_trainable(data.people, folder)
    return data


def crop_photos(
    folder: str | os.PathLike[str],
    recipe: CropRecipe,
    detector: Detector,
    *,
    cache: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> FaceCrops:
    """Cut the largest face out of each photo of a folder, of people or of unnamed photos.

    In a folder without sub-folders each photo is another person's. Crops by ``MASTER`` come with
    their faces. The arguments are those of ``crop_people``.

    Raises:
        DatasetError: There is no photo, or the cache cannot be written.
        InputError: Master crops, and the detector finds faces without landmarks or points.
    """
    folder = as_path(folder)
    # What is no folder is told by ``photos_in``.
    if not folder.is_dir() or not any(each.is_dir() for each in list(folder.glob("[!.]*"))):
        photos = [(f"{folder.resolve().name}/{photo.name}", photo) for photo in photos_in(folder)]
        left_out: tuple[LeftOut, ...] = ()
    else:
        photos, left_out = _named_photos(folder)
    data = _crops_of(photos, left_out, folder, recipe, detector, cache, workers, progress)
    if len(data) == 0:
        raise DatasetError(f"{folder}: no photo with a face in it. Received: {len(photos)} photos")
    return data


def load_kept(path: Path, delete: Path | None = None) -> npt.NDArray[Any]:
    """Map an array that an earlier run kept, read-only.

    Args:
        path: A ``.npy`` file.
        delete: What to delete if it is damaged; None for the file itself.

    Raises:
        ModelFileError: It cannot be read.
    """
    try:
        kept: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelFileError(
            f"{path} is damaged; delete {delete or path} and run again ({error})"
        ) from error
    return kept


def tell_left_out(left_out: Sequence[LeftOut], say: Callable[[str], None]) -> None:
    """Say how many photos are left out for each reason, the most frequent ten, and name one."""
    first = {each.reason: each.photo for each in reversed(left_out)}
    for reason, count in Counter(each.reason for each in left_out).most_common(10):
        say(printable(f"{count:,} left out, such as {first[reason]}: {reason}"))


def moved(face: Face, transform: npt.NDArray[np.float64]) -> Face:
    """The face after its photo was moved by a similarity transform ``(2, 3)``, mirrored or not."""
    linear, shift = transform[:, :2], transform[:, 2]
    area = float(np.linalg.det(linear))
    points = {}
    for kind, mirrored in _MIRRORED.items():
        if (before := getattr(face, kind)) is not None:
            after = (before @ linear.T + shift).astype(np.float32)
            points[kind] = after[mirrored] if area < 0 else after
    box, scale = face.box, math.sqrt(abs(area))
    middle = linear @ (box.left + box.width / 2, box.top + box.height / 2) + shift
    width, height = (max(1, round(side * scale)) for side in (box.width, box.height))
    left, top = middle - (width / 2, height / 2)
    return Face(Box(round(left), round(top), width, height), face.score, **points)


def screen(
    embeddings: list[Embeddings],
    candidates: list[Rows],
    held_out: Embeddings,
    same_photo: float,
    same_person: float,
) -> list[Rows]:
    """Of the photos of several folders, those that may be trained on.

    Left out are the photos of further folders that look like a person held out, those of the first
    that look like the very photo (there, people are told apart by their names), and every photo
    that looks like one that was taken before.

    Args:
        embeddings: Of all photos of each folder, ``(N, D)``, of length 1.
        candidates: Rows of each folder to choose from.
        held_out: ``(M, D)``, of length 1, of the photos of people who are not trained on.
        same_photo: Cosine similarity above which two photos are the same photo.
        same_person: Cosine similarity above which two photos are of the same person, for certain.

    Returns:
        The rows that are left of each folder.
    """

    def nearest(part: Embeddings, others: Embeddings) -> npt.NDArray[np.float32]:
        """Similarity of each to the nearest of the others; -1 where there are none."""
        found = np.empty(len(part), np.float32)
        for start in range(0, len(part), _ROWS_AT_ONCE):
            block = slice(start, start + _ROWS_AT_ONCE)
            found[block] = (part[block] @ others.T).max(axis=1, initial=-1)
        return found

    taken = held_out[:0]
    left = []
    for number, (of_folder, rows) in enumerate(zip(embeddings, candidates, strict=True)):
        bound = same_person if number else same_photo
        rows = rows[nearest(of_folder[rows], held_out) <= bound]
        rows = rows[nearest(of_folder[rows], taken) <= same_photo]
        unit = of_folder[rows]
        is_first = np.ones(len(rows), bool)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            block = slice(start, start + _ROWS_AT_ONCE)
            is_first[block] = ~np.tril(unit[block] @ unit.T > same_photo, start - 1).any(axis=1)
        left.append(rows[is_first])
        taken = np.concatenate([taken, of_folder[left[-1]]])
    return left


def weigh(
    folders: Sequence[Sequence[str]], weights: Mapping[str, float], say: Callable[[str], None]
) -> list[npt.NDArray[np.float64]]:
    """How often each photo is drawn, beside others: the product of the patterns that fit it.

    Args:
        folders: Paths of each folder's photos, as ``FaceCrops.photos``.
        weights: Pattern, as of a shell, of a path -> factor; 0 leaves photos out.
        say: Told of each pattern that fits no photo.
    """
    found = [np.ones(len(photos)) for photos in folders]
    for pattern, factor in weights.items():
        fits = [
            np.array([fnmatchcase(each, pattern) for each in photos], bool) for photos in folders
        ]
        if not any(part.any() for part in fits):
            say(f"no photo is called {pattern!r}, a pattern of the weights")
        for part, fitting in zip(found, fits, strict=True):
            part[fitting] *= factor
    return found


def check_trainable(people: npt.NDArray[np.int64], source: str | os.PathLike[str]) -> None:
    """Raise DatasetError for fewer than two people, or nobody with two photos: no triplets."""
    names = len(np.unique(people))
    if names < 2:
        raise DatasetError(
            f"{source}: training tells people apart, so it takes at least 2 people whose faces "
            f"are found. Received: {names}"
        )
    if np.bincount(people).max() < 2:
        raise DatasetError(
            f"{source}: training learns from two photos of one person, so at least one person "
            f"has two photos whose face is found. Received: {names} people with one each"
        )


@dataclass(frozen=True, eq=False)
class PeopleSplit:
    """Photos to train on, to choose by, and to report on: no person in two of them.

    Attributes:
        train: Rows to train on.
        validation: Rows of other people, to choose epochs and thresholds by.
        test: Rows of yet other people, to report on.
    """

    train: Rows
    validation: Rows
    test: Rows


def split_people(
    people: npt.NDArray[np.int64],
    *,
    validation: float = 0.15,
    test: float = 0.2,
    seed: int = 0,
) -> PeopleSplit:
    """Split photos by person, at random.

    People with several photos and people with one are split separately, so that each part has its
    share of both. However small the shares, a part gets what verification needs: a person with
    several photos, and another person.

    Args:
        people: int ``(N,)``, who is on each photo.
        validation: Share of the people to choose by, within 0..1.
        test: Share of the people to report on; 0 where there is a test folder.
        seed: The same seed gives the same split.

    Raises:
        InputError: The shares leave nobody to train on.
        DatasetError: A part would lack two photos of one person, or a second person.
    """
    if not (0 < validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise InputError(
            "shares lie within 0..1, with validation above 0, and leave people to train on. "
            f"Received: validation {validation}, test {test}"
        )
    random = np.random.default_rng(seed)
    part_of = np.zeros(people.max(initial=-1) + 1, np.int64)
    counts = np.bincount(people)
    several, single = np.flatnonzero(counts > 1), np.flatnonzero(counts == 1)
    for group in (several, single):
        shuffled = random.permutation(group)
        least = 2 if group is several and len(single) < 3 else min(1, len(group))
        first, second = (
            max(round(share * len(group)), least if share > 0 else 0)
            for share in (validation, test)
        )
        part_of[shuffled[:first]] = 1
        part_of[shuffled[first : first + second]] = 2
    parts = [np.flatnonzero(part_of[people] == part) for part in range(3)]
    for rows, name in zip(parts, ("training", "validation", "test"), strict=True):
        if name == "test" and test == 0:
            continue
        if len(rows) == 0 or np.bincount(people[rows]).max() < 2 or len(set(people[rows])) < 2:
            raise DatasetError(
                f"the {name} part needs two photos of one person and someone else beside; the "
                f"data is too small to be split. Received: {np.sum(counts > 1)} people with "
                f"several photos, {np.sum(counts == 1)} with one"
            )
    return PeopleSplit(*parts)


def refuse_overlap(train: str | os.PathLike[str], test: str | os.PathLike[str]) -> None:
    """Raise DatasetError for a test folder that is, holds or lies in the training folder."""
    one, other = Path(train).resolve(), Path(test).resolve()
    if one == other or one in other.parents or other in one.parents:
        raise DatasetError(
            "the test folder holds other people than the training folder. Received: "
            f"{train} and {test}, which overlap"
        )


def refuse_shared(train: FaceCrops, test: FaceCrops) -> None:
    """Raise DatasetError for test data that shares a name or a photo with the training data."""
    shared = sorted(set(train.names) & set(test.names))
    if shared:
        raise DatasetError(
            f"a person is in the training folder or in the test folder, never in both. Received: "
            f"{len(shared)} in both, such as {shared[0]!r}"
        )
    of_train = dict(zip(train.digests, train.people, strict=True))
    for digest, person in zip(test.digests, test.people, strict=True):
        if digest in of_train:
            raise DatasetError(
                "a photo is in the training folder or in the test folder, never in both. "
                f"Received: one of {train.names[of_train[digest]]!r} that is also one of "
                f"{test.names[person]!r}"
            )


def _named_photos(
    folder: str | os.PathLike[str],
) -> tuple[list[tuple[str, Path]], tuple[LeftOut, ...]]:
    """The photos of a folder of people, each with its person's name, and what is left out."""
    listed = list_people(folder)
    photos = [(name, photo) for name, found in listed.people.items() for photo in found]
    return photos, listed.left_out


def _crops_of(
    photos: list[tuple[str, Path]],
    left_out: tuple[LeftOut, ...],
    folder: Path,
    recipe: CropRecipe,
    detector: Detector,
    cache: str | os.PathLike[str] | None,
    workers: int | None,
    progress: bool,
) -> FaceCrops:
    """The crops of named photos of a folder, from the cache or new."""
    named, photos = photos, []
    digests: list[str] = []
    for name, photo in named:
        try:
            digests.append(content_digest(photo))
            photos.append((name, photo))
        except ImageError as error:
            reason = str(error).removeprefix(f"{photo}: ")
            left_out += (LeftOut(str(photo), name, reason),)
    depends = [recipe.as_dict(), detector.name, [name for name, _ in photos], digests]
    key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:24]
    index = Path(cache or cache_folder() / "crops") / f"{key}.json"
    if not index.is_file():
        _cut_out(photos, recipe, detector, index, workers, progress)
    data = _read_cache(index, digests, photos, folder)
    return replace(data, left_out=left_out + data.left_out, detector=detector.name)


def _cut_out(
    photos: list[tuple[str, Path]],
    recipe: CropRecipe,
    detector: Detector,
    index: Path,
    workers: int | None,
    progress: bool,
) -> None:
    """Fill the cache: first the array, then the index, whose presence marks both as whole."""
    found = find_crops([photo for _, photo in photos], detector, recipe, workers=workers)
    shape = (max(len(photos), 1), recipe.height, recipe.width, 3)
    rows: list[int] = []
    faces: list[list[Any]] = []
    left_out: list[LeftOut] = []
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with (
        replacing(index.with_suffix(".npy"), DatasetError) as temporary,
        # Not memory-mapped: there, a full disk kills the process without an error.
        open(temporary, "wb") as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        shown = with_progress(found, len(photos), "cutting out faces", show=progress)
        for number, item in enumerate(shown):
            name, photo = photos[number]
            if item.error is None:
                file.write(item.crops[0].tobytes())
                rows.append(number)
                if recipe == MASTER:
                    face = item.faces[0]
                    faces.append(_face_values(moved(face, arcface_transform(face, recipe))))
            else:
                left_out.append(LeftOut(str(photo), name, item.error))
        # The rows that photos without a face leave over are a hole at the end of the file.
        file.truncate(start + math.prod(shape))
    with replacing(index, DatasetError) as temporary:
        content = {
            "rows": rows,
            "faces": faces,
            "left_out": [asdict(item) for item in left_out],
        }
        temporary.write_text(json.dumps(content), "utf-8")


def _face_values(face: Face) -> list[Any]:
    """A face as plain JSON values."""
    points = [None if one is None else one.tolist() for one in (face.landmarks, face.points)]
    return [[face.box.left, face.box.top, face.box.width, face.box.height], face.score, *points]


def _face_of(values: list[Any]) -> Face:
    box, score, *points = values
    landmarks, own = (None if one is None else np.array(one, np.float32) for one in points)
    return Face(Box(*box), score, landmarks, own)


def _read_cache(
    index: Path, digests: list[str], photos: list[tuple[str, Path]], folder: Path
) -> FaceCrops:
    """The crops of a filled cache."""
    try:
        content = json.loads(index.read_text("utf-8"))
        crops = np.load(index.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        rows = np.array(content["rows"], np.int64)
        left_out = tuple(LeftOut(**item) for item in content["left_out"])
        # Absent in caches of before there were master crops.
        faces = tuple(map(_face_of, content.get("faces", [])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"the cache of crops is damaged; delete {index} and run again ({error})"
        ) from error
    name = folder.resolve().name
    names, people = np.unique([photos[row][0] for row in rows], return_inverse=True)
    return FaceCrops(
        crops[: len(rows)],
        people.astype(np.int64),
        tuple(map(str, names)),
        tuple(digests[row] for row in rows),
        left_out,
        tuple(f"{name}/{photos[row][1].relative_to(folder).as_posix()}" for row in rows),
        faces,
    )
