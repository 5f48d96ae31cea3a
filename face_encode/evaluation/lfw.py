"""Lists of pairs of photos: the files of Labeled Faces in the Wild, and a plain CSV.

LFW's formats (Huang, Ramesh, Berg & Learned-Miller, 2007; photo numbers start at 1)::

    1100                            View 1: so many same pairs, then as many different ones
    Aaron_Peirsol	1	2               photos 1 and 2 of one person
    AJ_Cook	1	Marsha_Thomason	1   a photo of one person, a photo of another

    10	300                          View 2: ten folds, each 300 same and 300 different pairs

The CSV has a header with the columns ``photo_a``, ``photo_b`` (paths, relative to the folder of
photos) and ``same`` (1 or 0, true or false, yes or no); a fourth, ``fold``, is optional.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import DatasetError, InputError
from face_encode.metrics.scored_pairs import Flags

Folds: TypeAlias = npt.NDArray[np.int64]

_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_CSV_COLUMNS = ("photo_a", "photo_b", "same")


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs of photos and whether each is one person.

    Attributes:
        photos_a: N paths, the first photo of each pair.
        photos_b: N paths, the second.
        same: bool ``(N,)``.
        folds: int64 ``(N,)``, or None where the file has no folds.
        people: For each pair the person on the first photo where the file names people, else
            the first photo's path: what depends on each other when intervals are computed.
    """

    photos_a: tuple[Path, ...]
    photos_b: tuple[Path, ...]
    same: Flags
    folds: Folds | None
    people: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that everything has one length."""
        lengths = {len(self.photos_a), len(self.photos_b), len(self.same), len(self.people)}
        if self.folds is not None:
            lengths.add(len(self.folds))
        if len(lengths) != 1:
            raise InputError(f"every pair has two photos and a truth. Received: lengths {lengths}")

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.same)

    def photos(self) -> tuple[Path, ...]:
        """Every photo once, in the order of first use."""
        return tuple(dict.fromkeys((*self.photos_a, *self.photos_b)))


def read_pairs(file: str | os.PathLike[str], photos: str | os.PathLike[str]) -> PairList:
    """Read a list of pairs: LFW's View 1 or View 2 format, or a CSV with a header.

    Args:
        file: The list.
        photos: The folder that the photos lie in: for LFW ``NAME/NAME_0001.jpg`` (or another
            extension that is there), for a CSV whatever its paths are relative to.

    Raises:
        DatasetError: The file cannot be read, is in neither format, or names a photo that is
            not there.
    """
    file, folder = Path(file), Path(photos)
    if not folder.is_dir():
        raise DatasetError(f"the folder of photos does not exist. Received: {folder}")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read the list of pairs {file}: {error}") from error
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DatasetError(f"the list of pairs is empty. Received: {file}")
    header = rows[0][1]
    if len(header) <= 2 and all(value.isdecimal() for value in header):
        pairs = _from_lfw(file, rows, folder)
    else:
        pairs = _from_csv(file, lines, folder)
    missing = [photo for photo in pairs.photos() if not photo.is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} photos that {file} names are not in {folder}; the first: {missing[0]}"
        )
    return pairs


def _from_lfw(file: Path, rows: list[tuple[int, list[str]]], folder: Path) -> PairList:
    """LFW's formats: a header of one number (View 1) or two (View 2), then the pairs."""
    header, body = rows[0][1], rows[1:]
    fold_count, per_kind = (1, int(header[0])) if len(header) == 1 else map(int, header)
    if len(body) != 2 * fold_count * per_kind:
        raise DatasetError(
            f"{file}: the header promises {2 * fold_count * per_kind} pairs "
            f"({fold_count} x {per_kind} same and as many different). Received: {len(body)}"
        )
    photos_a, photos_b, people, same = [], [], [], []
    for number, fields in body:
        numbers = fields[1:3] if len(fields) == 3 else fields[1::2]
        if len(fields) not in (3, 4) or not all(value.isdecimal() for value in numbers):
            raise DatasetError(
                f"{file}, line {number}: a pair is 'NAME I J' or 'NAME I OTHER J'. "
                f"Received: {' '.join(fields)!r}"
            )
        other = fields[0] if len(fields) == 3 else fields[2]
        photos_a.append(_lfw_photo(folder, fields[0], int(numbers[0])))
        photos_b.append(_lfw_photo(folder, other, int(numbers[1])))
        people.append(fields[0])
        same.append(len(fields) == 3)
    if sum(same) * 2 != len(same):
        raise DatasetError(
            f"{file}: as many same as different pairs are promised. "
            f"Received: {sum(same)} same of {len(same)}"
        )
    folds = np.repeat(np.arange(fold_count), 2 * per_kind) if fold_count > 1 else None
    return PairList(tuple(photos_a), tuple(photos_b), np.array(same), folds, tuple(people))


def _lfw_photo(folder: Path, name: str, number: int) -> Path:
    """The path of a person's numbered photo, with the extension that is there."""
    stem = folder / name / f"{name}_{number:04d}"
    for extension in (".jpg", ".png", ".jpeg", ".webp", ".bmp"):
        photo = stem.with_name(stem.name + extension)
        if photo.is_file():
            return photo
    return stem.with_name(stem.name + ".jpg")


def _from_csv(file: Path, lines: list[str], folder: Path) -> PairList:
    """A CSV with the columns photo_a, photo_b and same, and maybe fold."""
    table = csv.DictReader(lines, skipinitialspace=True)
    if not set(_CSV_COLUMNS) <= set(table.fieldnames or ()):
        raise DatasetError(
            f"{file}: neither LFW's format (a header of one or two numbers) nor a CSV with the "
            f"columns {', '.join(_CSV_COLUMNS)}. Received: {lines[0][:80]!r}"
        )
    photos_a, photos_b, same, fold_names = [], [], [], []
    for row in table:
        truth = _TRUTHS.get((row["same"] or "").strip().lower())
        if truth is None or not row["photo_a"] or not row["photo_b"]:
            raise DatasetError(
                f"{file}, line {table.line_num}: a row is two photos and same = 1 or 0. "
                f"Received: {row}"
            )
        photos_a.append(folder / row["photo_a"].strip())
        photos_b.append(folder / row["photo_b"].strip())
        same.append(truth)
        fold_names.append(row.get("fold") or "")
    if not same:
        raise DatasetError(f"the list of pairs is empty. Received: {file}")
    folds = None
    if len(set(fold_names)) > 1:
        folds = np.unique(fold_names, return_inverse=True)[1].astype(np.int64)
    people = tuple(str(photo) for photo in photos_a)
    return PairList(tuple(photos_a), tuple(photos_b), np.array(same), folds, people)
