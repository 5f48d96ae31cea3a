"""Likely mistakes in a folder of people, found from the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.types import Embeddings, ImageArray

Similarities: TypeAlias = npt.NDArray[np.float32]

# A photo that is farther from its person's others than this share of strangers is.
_STRANGERS_FARTHER = 0.97
# A stranger's nearness that hardly ever comes by chance.
_STRANGERS_CERTAIN = 0.999
# Two names are one person where their photos are as near as those of all but so many people.
_LEAST_ALIKE = 0.25
# Two photos this many times nearer than two of one person usually are, are one photo.
_SAME_PHOTO = 10
_SAMPLE = 200_000
# Similarities that are looked at together: 1,024 x 1,024, of 4 MB.
_TILE = 1_024
# Pairs of photos, or of people, that are looked into: among more, hardly one is a mistake.
_MOST_PAIRS = 100_000


@dataclass(frozen=True, eq=False)
class Folder:
    """The photos as arrays, and the limits that they set.

    Attributes:
        photos: N paths.
        names: The people, in ascending order.
        owner: ``(N,)``, which of them each photo shows.
        units: float32 ``(N, D)``, of length 1.
        far: Nearness to one's own person that leaves a doubt.
        certain: Nearness to another that is hardly ever chance.
        usual: How near two photos of one person usually are.
        alike: How near those of all but the least alike quarter of people are.
    """

    photos: Sequence[str]
    names: Sequence[str]
    owner: npt.NDArray[np.intp]
    units: Embeddings
    far: float
    certain: float
    usual: float
    alike: float


def folder_of(photos: Sequence[str], names: Sequence[str], embeddings: Embeddings) -> Folder | None:
    """Set the limits of a folder.

    Args:
        photos: N paths.
        names: N people.
        embeddings: float32 ``(N, D)``, finite and none of length zero.

    Returns:
        The folder with its limits, or None where it is too small to set any.

    Raises:
        InputError: Unequal lengths, or embeddings that cannot be compared.
    """
    vectors = np.asarray(embeddings, np.float32)
    if vectors.ndim != 2 or not len(photos) == len(names) == len(vectors):
        raise InputError(
            "each photo has a name and an embedding. "
            f"Received: {len(photos)} photos, {len(names)} names, embeddings {vectors.shape}"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError("an embedding is finite and not of length zero; at least one is not")
    people, owner = np.unique(np.asarray(names, np.str_), return_inverse=True)
    if len(people) < 3 or len(people) == len(names):
        return None
    units = vectors / lengths
    strangers = _stranger_sample(units, owner)
    medians = _own_nearness(units, owner)
    return Folder(
        photos=photos,
        names=people.tolist(),
        owner=owner,
        units=units,
        far=float(np.quantile(strangers, _STRANGERS_FARTHER)),
        certain=float(np.quantile(strangers, _STRANGERS_CERTAIN)),
        usual=float(np.median(medians)),
        alike=float(np.quantile(medians, _LEAST_ALIKE)),
    )


def _stranger_sample(units: Embeddings, owner: npt.NDArray[np.intp]) -> Similarities:
    """Similarities of photos of two different people, each pair of people as likely as another.

    Drawn by people and not by photos: a single photo in the wrong folder makes as many false
    "strangers" as its true person has photos.
    """
    random = np.random.default_rng(0)
    order = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner)
    starts = np.cumsum(sizes) - sizes
    first, second = random.integers(0, len(sizes), (2, _SAMPLE))
    first, second = first[first != second], second[first != second]
    rows = [
        order[starts[who] + (random.random(len(who)) * sizes[who]).astype(np.intp)]
        for who in (first, second)
    ]
    similarities = np.empty(len(first), np.float32)
    for start in range(0, len(first), _TILE):
        part = slice(start, start + _TILE)
        pairs = units[rows[0][part]], units[rows[1][part]]
        similarities[part] = np.einsum("nd,nd->n", *pairs)
    return similarities


def _own_nearness(units: Embeddings, owner: npt.NDArray[np.intp]) -> list[float]:
    """For each person with several photos the median of their similarities."""
    medians = []
    for rows in people_with_several(owner):
        mutual = units[rows] @ units[rows].T
        medians.append(float(np.median(mutual[np.triu_indices(len(rows), 1)])))
    return medians


def people_with_several(owner: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
    """The rows of each person who has at least two photos."""
    order = np.argsort(owner, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(owner))[:-1]):
        if len(rows) > 1:
            yield rows


def compare_all(
    folder: Folder,
) -> tuple[npt.NDArray[np.intp], list[tuple[int, int]], list[tuple[int, int]]]:
    """Compare every photo with every other, a tile of rows and columns at a time, each pair once.

    Returns:
        Each photo's nearest photo of another person; photos that are one and the same; pairs of
        people of whom at least two photos are as near as one person's usually are.
    """
    count = len(folder.owner)
    nearest = np.zeros(count, np.intp)
    nearness = np.full(count, -np.inf, np.float32)
    doubles: list[tuple[int, int]] = []
    # A pair of people as one number, which takes a tenth of the memory of a pair.
    near_people = np.empty(0, np.int64)
    same_photo = 1 - (1 - folder.usual) / _SAME_PHOTO
    for start, other in _tiles(count):
        rows, columns = slice(start, start + _TILE), slice(other, other + _TILE)
        tile = folder.units[rows] @ folder.units[columns].T
        if len(doubles) < _MOST_PAIRS:
            alike = np.triu(tile >= same_photo, 1) if start == other else tile >= same_photo
            found = np.argwhere(alike) + np.array([start, other])
            doubles += [(row, column) for row, column in found.tolist()]
        own = folder.owner[rows, None] == folder.owner[columns]
        tile[own] = -np.inf
        _take_nearest(tile, other, nearest[rows], nearness[rows])
        if start != other:
            _take_nearest(tile.T, start, nearest[columns], nearness[columns])
        if len(near_people) < _MOST_PAIRS:
            first, second = np.nonzero(tile >= folder.alike)
            owners = folder.owner[first + start], folder.owner[second + other]
            codes = np.minimum(*owners) * len(folder.names) + np.maximum(*owners)
            near_people = np.union1d(near_people, codes)
    pairs = [divmod(code, len(folder.names)) for code in near_people[:_MOST_PAIRS].tolist()]
    return nearest, sorted(doubles)[:_MOST_PAIRS], pairs


def _tiles(count: int) -> Iterator[tuple[int, int]]:
    """The first row and column of each tile on and above the diagonal."""
    for start in range(0, count, _TILE):
        for other in range(start, count, _TILE):
            yield start, other


def _take_nearest(
    tile: Similarities, start: int, nearest: npt.NDArray[np.intp], nearness: Similarities
) -> None:
    """Where a column of a tile is nearer to a row than what was before, note it."""
    best = tile.argmax(axis=1)
    reached = tile[np.arange(len(tile)), best]
    nearer = reached > nearness
    nearest[nearer] = best[nearer] + start
    nearness[nearer] = reached[nearer]


# A Gaussian blur of three pixels on a crop of 150 brings 98 % of faces below it; the least sharp
# one of 160 photos of LFW as they are lies at 0.0044.
BLURRED_BELOW = 0.0016
# What rounding to whole numbers alone adds to the variance of a Laplacian: 1/12 for each of the
# three colours, weighted as in the brightness (the squares add up to 0.447), and for the brightness
# itself, times 20, the sum of the squares of (1, 1, -4, 1, 1).
_ROUNDING = 20 * (0.447 + 1) / 12


def sharpness(crop: ImageArray) -> float:
    """How much fine detail a crop has: the variance of its Laplacian, relative to its contrast.

    The usual measure of focus (Pech-Pacheco et al., 2000), divided by the variance of the
    brightness, so that a dark or flat photo does not pass for a blurred one, and less what rounding
    adds, so that a flat and blurred one does not pass for sharp.

    Args:
        crop: RGB, uint8, ``(H, W, 3)``, of one size for all that are compared.

    Returns:
        0 or more; 0 for a crop of one colour.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    contrast = _variance(grey)
    if contrast == 0:
        return 0.0
    # Whole numbers, which 16 bits hold, in a fraction of the time that floating point takes.
    detail = _variance(cv2.Laplacian(grey, cv2.CV_16S)) - _ROUNDING
    return max(0.0, detail) / contrast


def is_blurred(crop: ImageArray) -> bool:
    """Whether a crop is too blurred to trust what an encoder makes of it.

    Args:
        crop: RGB, uint8, ``(H, W, 3)``.
    """
    return sharpness(crop) < BLURRED_BELOW


def _variance(pixels: npt.NDArray[Any]) -> float:
    """The variance of the values of one channel."""
    _, deviation = cv2.meanStdDev(pixels)
    return float(deviation[0, 0]) ** 2


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
        sharpnesses: ``(N,)`` as :mod:`face_encode.gallery.mistakes` measures them; NaN where
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
