"""Likely mistakes in a folder of people, found from the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.hygiene.comparison import (
    Folder,
    Similarities,
    compare_all,
    folder_of,
    people_with_several,
)
from face_encode.hygiene.sharpness import BLURRED_BELOW
from face_encode.types import Embeddings

Kind: TypeAlias = Literal[
    "mislabelled", "one person twice", "same photo", "small face", "blurred face"
]

# A face of fewer pixels than this share of the encoder's crop is mostly invented by enlarging.
_SMALL_FACE = 1 / 3


@dataclass(frozen=True)
class Suspicion:
    """A likely mistake.

    Attributes:
        kind: What sort of mistake.
        photos: The photos that it is about.
        people: The people that it is about.
        text: What was noticed, for people.
    """

    kind: Kind
    photos: tuple[str, ...]
    people: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        """The text."""
        return self.text


def find_suspicions(
    photos: Sequence[str],
    names: Sequence[str],
    embeddings: Embeddings,
    *,
    face_sides: npt.ArrayLike | None = None,
    sharpnesses: npt.ArrayLike | None = None,
    crop_side: int = 150,
    compare: bool = True,
) -> tuple[Suspicion, ...]:
    """Name likely mistakes among enrolled photos.

    Mislabelled photos, people enrolled under two names and doubled photos are looked for where
    there are at least three people and two photos of one of them; that they can be told from
    chance otherwise cannot be said.

    Args:
        photos: N paths.
        names: N people.
        embeddings: float32 ``(N, D)``, finite and none of length zero.
        face_sides: ``(N,)``, the shorter side of each face in pixels of its photo; NaN where
            unknown. None looks for no small faces.
        sharpnesses: ``(N,)`` as :mod:`face_encode.hygiene.sharpness` measures them; NaN where
            unknown. None looks for no blurred faces.
        crop_side: The side of the encoder's crop, in pixels.
        compare: Whether to compare each photo with each other, in time that grows with the
            square of their number; without, only small and blurred faces are looked for.

    Returns:
        The gravest first: mislabelled photos, people enrolled twice, doubled photos, small
        faces, blurred faces.

    Raises:
        InputError: Unequal lengths, or embeddings that cannot be compared.
    """
    found: list[Suspicion] = []
    folder = folder_of(photos, names, embeddings) if compare else None
    if folder is not None:
        nearest, doubles, near_people = compare_all(folder)
        found += _mislabelled(folder, nearest)
        found += _one_person_twice(folder, near_people)
        found += _same_photo(folder, doubles)
    sides = np.full(len(photos), np.nan) if face_sides is None else np.asarray(face_sides)
    details = np.full(len(photos), np.nan) if sharpnesses is None else np.asarray(sharpnesses)
    if sides.shape != (len(photos),) or details.shape != (len(photos),):
        raise InputError(
            f"each of the {len(photos)} photos has one size and one sharpness. "
            f"Received: {sides.shape} and {details.shape}"
        )
    smallest = round(_SMALL_FACE * crop_side)
    for row in np.flatnonzero(sides < smallest).tolist():
        text = f"{photos[row]}: a face of {sides[row]:.0f} pixels; below {smallest} it tells little"
        found.append(Suspicion("small face", (photos[row],), (names[row],), text))
    for row in np.flatnonzero(details < BLURRED_BELOW).tolist():
        text = f"{photos[row]}: too blurred to trust"
        found.append(Suspicion("blurred face", (photos[row],), (names[row],), text))
    return tuple(found)


def _mislabelled(folder: Folder, nearest: npt.NDArray[np.intp]) -> Iterator[Suspicion]:
    """Photos that are as far from their person's others as strangers are."""
    toward = np.einsum("nd,nd->n", folder.units, folder.units[nearest])
    for rows in people_with_several(folder.owner):
        mutual = folder.units[rows] @ folder.units[rows].T
        np.fill_diagonal(mutual, np.nan)
        own = np.nanmedian(mutual, axis=1)
        doubtful = []
        for place in np.flatnonzero(own < folder.far).tolist():
            others = np.delete(np.delete(mutual, place, 0), place, 1)
            # Among two photos nobody can say which one is wrong, unless one is somebody else's.
            if len(rows) == 2:
                here, there = toward[rows[place]], toward[rows[1 - place]]
                innocent = there >= folder.certain and there > here
            else:
                innocent = np.nanmedian(others) <= own[place]
            if not innocent:
                doubtful.append(place)
        if len(rows) == 2 and len(doubtful) == 2:
            yield _unlike_pair(folder, int(rows[0]), int(rows[1]), float(own[0]))
            continue
        for place in doubtful:
            yield _mislabelled_photo(folder, int(rows[place]), float(own[place]), nearest, toward)


def _unlike_pair(folder: Folder, first: int, second: int, similarity: float) -> Suspicion:
    """The suspicion that one of a person's only two photos shows somebody else."""
    photos = (folder.photos[first], folder.photos[second])
    name = folder.names[folder.owner[first]]
    text = (
        f"{photos[0]} and {photos[1]}: the two photos of {name} are unlike each other "
        f"(similarity {similarity:.3f})"
    )
    return Suspicion("mislabelled", photos, (name,), text)


def _mislabelled_photo(
    folder: Folder,
    row: int,
    own: float,
    nearest: npt.NDArray[np.intp],
    toward: Similarities,
) -> Suspicion:
    """The suspicion that one photo shows somebody else."""
    name = folder.names[folder.owner[row]]
    text = f"{folder.photos[row]}: unlike the other photos of {name} (similarity {own:.3f})"
    people: tuple[str, ...] = (name,)
    if toward[row] >= folder.certain and toward[row] > own:
        other = folder.names[folder.owner[nearest[row]]]
        text += f"; rather {other} ({toward[row]:.3f})"
        people = (name, other)
    return Suspicion("mislabelled", (folder.photos[row],), people, text)


def _one_person_twice(
    folder: Folder, near_people: Sequence[tuple[int, int]]
) -> Iterator[Suspicion]:
    """Two people whose photos are as near each other as one person's are."""
    order = np.argsort(folder.owner, kind="stable")
    photos_of = np.split(order, np.cumsum(np.bincount(folder.owner))[:-1])
    for first, second in near_people:
        rows, columns = photos_of[first], photos_of[second]
        similarities = folder.units[rows] @ folder.units[columns].T
        middle = float(np.median(similarities))
        if middle >= folder.alike:
            row, column = divmod(int(similarities.argmax()), len(columns))
            photos = (folder.photos[int(rows[row])], folder.photos[int(columns[column])])
            people = (folder.names[first], folder.names[second])
            text = f"{people[0]} and {people[1]} may be one person (similarity {middle:.3f})"
            yield Suspicion("one person twice", photos, people, text)


def _same_photo(folder: Folder, doubles: list[tuple[int, int]]) -> Iterator[Suspicion]:
    """Photos that are one and the same, under one name or two."""
    for first, second in doubles:
        photos = (folder.photos[first], folder.photos[second])
        people = tuple(dict.fromkeys(folder.names[folder.owner[row]] for row in (first, second)))
        under = f", under two names: {' and '.join(people)}" if len(people) > 1 else ""
        text = f"{photos[0]} and {photos[1]}: the same photo twice{under}"
        yield Suspicion("same photo", photos, people, text)
