"""Photos of people compared with each other: who is near whom, and what near means here.

Every limit is taken from the folder itself, so that it fits whatever encoder made the
embeddings: how near photos of different people come, and how near those of one person usually
are. The limits were set on folders of real people with mistakes planted (docs/evaluation.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.types import Embeddings

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
