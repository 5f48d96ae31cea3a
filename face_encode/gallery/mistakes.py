"""Likely mistakes in a folder of people: wrong labels, duplicates, faces too small or blurred."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.gallery.base import Gallery
from face_encode.gallery.distances import unit_length
from face_encode.types import Embeddings, ImageArray

Similarities: TypeAlias = npt.NDArray[np.float32]

ProblemKind: TypeAlias = Literal[
    "mislabelled", "one person twice", "same photo", "small face", "blurred face"
]

# A face with fewer pixels than this share of the encoder's crop is mostly invented by enlarging.
_SMALL_FACE = 1 / 3
# A Gaussian blur of three pixels on a crop of 150 brings 98 % of faces below this sharpness; the
# least sharp of 160 photos of LFW as they are has 0.0044.
BLURRED_BELOW = 0.0016
# Rounding to whole numbers alone adds this to the variance of a Laplacian: 1/12 for each of the
# three colours, weighted as in the brightness (the squares add up to 0.447), and for the brightness
# itself, times 20, the sum of the squares of (1, 1, -4, 1, 1).
_ROUNDING = 20 * (0.447 + 1) / 12

# A photo is in doubt if it is farther from its person's others than this share of strangers.
_STRANGERS_FARTHER = 0.97
# A similarity to a stranger above this quantile is hardly ever chance.
_STRANGERS_CERTAIN = 0.999
# Two names are one person if their photos are as near as those of all but this share of people.
_LEAST_ALIKE = 0.25
# Two photos this many times nearer than two of one person usually are, are the same photo.
_SAME_PHOTO = 10
_SAMPLE = 200_000
# Rows and columns of similarities computed together: 1,024 x 1,024, of 4 MB.
_TILE = 1_024
# In so few photos any pair over the threshold is worth a look: chance makes at most a few.
_FEW_PHOTOS = 100
# Pairs of names that are noted where everybody has a single photo, the nearest first.
_MAX_NAMES_NOTED = 100
# Pairs of photos, or of people, that are examined: among more, hardly one is a mistake.
_MAX_PAIRS = 100_000


@dataclass(frozen=True)
class LabelProblem:
    """A likely mistake.

    Attributes:
        kind: The kind of mistake.
        photos: The photos concerned.
        people: The people concerned.
        text: A description for people.
    """

    kind: ProblemKind
    photos: tuple[str, ...]
    people: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text


def find_label_problems(
    photos: Sequence[str],
    names: Sequence[str],
    embeddings: Embeddings,
    *,
    face_sides: npt.ArrayLike | None = None,
    sharpnesses: npt.ArrayLike | None = None,
    crop_side: int = 150,
    threshold: float | None = None,
    compare: bool = True,
) -> tuple[LabelProblem, ...]:
    """Find likely mistakes among enrolled photos.

    Mislabelled photos and duplicates are looked for where there are at least three people, one of
    them with two photos; in a smaller folder they cannot be told from chance. People under two
    names are looked for everywhere: in up to 100 photos, or where everybody has a single one, any
    two names with two photos that reach the threshold; in more, by what the folder itself says of
    strangers, since among many photos some strangers reach any threshold.

    Args:
        photos: N paths.
        names: N people.
        embeddings: float32 ``(N, D)``, finite and none of length zero.
        face_sides: ``(N,)``, the shorter side of each face in pixels of its photo; NaN where
            unknown. None skips the search for small faces.
        sharpnesses: ``(N,)``, the ``sharpness`` of each crop; NaN where unknown. None skips the
            search for blurred faces.
        crop_side: The side of the encoder's crop, in pixels.
        threshold: Cosine similarity from which two photos count as of one person; None where it is
            not known.
        compare: Whether to compare each photo with each other, in time that grows with the square
            of N; False looks for small and blurred faces only.

    Returns:
        The most serious first: mislabelled photos, people enrolled twice, duplicates, small
        faces, blurred faces.

    Raises:
        InputError: The arguments have different lengths, or an embedding cannot be compared.
    """
    found: list[LabelProblem] = []
    labelled = label_photos(photos, names, embeddings) if compare else None
    if labelled is not None:
        nearest, doubles, near_people = compare_all(labelled)
        found += _mislabelled(labelled, nearest)
        if threshold is None or len(photos) > _FEW_PHOTOS:
            found += _one_person_twice(labelled, near_people)
        for pair in doubles:
            first, second = (photos[row] for row in pair)
            people = tuple(dict.fromkeys(names[row] for row in pair))
            under = f", under two names: {' and '.join(people)}" if len(people) > 1 else ""
            text = f"{first} and {second}: the same photo twice{under}"
            found.append(LabelProblem("same photo", (first, second), people, text))
    if threshold is not None and compare and (labelled is None or len(photos) <= _FEW_PHOTOS):
        found += _alike_names(photos, names, embeddings, threshold, found)
    sides = np.full(len(photos), np.nan) if face_sides is None else np.asarray(face_sides)
    details = np.full(len(photos), np.nan) if sharpnesses is None else np.asarray(sharpnesses)
    if sides.shape != (len(photos),) or details.shape != (len(photos),):
        raise InputError(
            f"each of the {len(photos)} photos has one size and one sharpness. "
            f"Received: {sides.shape} and {details.shape}"
        )
    for row, kind, text in poor_faces(sides, details, crop_side):
        text = f"{photos[row]}: {text}"
        found.append(LabelProblem(kind, (photos[row],), (names[row],), text))
    return tuple(found)


def poor_faces(
    sides: npt.ArrayLike, sharpnesses: npt.ArrayLike, crop_side: int
) -> list[tuple[int, ProblemKind, str]]:
    """Find the faces that are too small or too blurred, the small ones first.

    Args:
        sides: ``(N,)``, the shorter side of each face in pixels of its photo; NaN where unknown.
        sharpnesses: ``(N,)``, the ``sharpness`` of each crop; NaN where unknown.
        crop_side: The side of the encoder's crop, in pixels.

    Returns:
        The row, the kind of problem and a description of each.
    """
    widths, details = np.asarray(sides), np.asarray(sharpnesses)
    smallest = round(_SMALL_FACE * crop_side)
    small = [
        (row, f"a face of {widths[row]:.0f} pixels; below {smallest} it tells little")
        for row in np.flatnonzero(widths < smallest).tolist()
    ]
    blurred = np.flatnonzero(details < BLURRED_BELOW).tolist()
    return [
        *((row, "small face", text) for row, text in small),
        *((row, "blurred face", "too blurred to trust") for row in blurred),
    ]


def _alike_names(
    photos: Sequence[str],
    names: Sequence[str],
    embeddings: Embeddings,
    threshold: float,
    found: Sequence[LabelProblem],
) -> list[LabelProblem]:
    """Pairs of names with two photos that reach the threshold, unless a problem names both."""
    units = np.asarray(embeddings, np.float32)
    units = units / np.linalg.norm(units, axis=-1, keepdims=True)
    owners = np.unique(np.asarray(names, np.str_), return_inverse=True)[1]
    told = {frozenset(problem.people) for problem in found if len(problem.people) == 2}
    nearest: dict[frozenset[str], tuple[float, int, int]] = {}
    for start in range(0, len(units), _TILE):
        tile = units[start : start + _TILE] @ units.T
        tile[owners[start : start + _TILE, None] <= owners] = -np.inf
        rows, columns = np.nonzero(tile >= threshold)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            pair = frozenset((names[start + row], names[column]))
            alike = (float(tile[row, column]), column, start + row)
            if pair not in told and alike > nearest.get(pair, (-2.0, 0, 0)):
                nearest[pair] = alike
    return [
        LabelProblem(
            "one person twice",
            (photos[first], photos[second]),
            (names[first], names[second]),
            f"{names[first]} and {names[second]} may be one person (similarity {similarity:.3f})",
        )
        for similarity, first, second in sorted(nearest.values(), reverse=True)[:_MAX_NAMES_NOTED]
    ]


class Likeness(NamedTuple):
    """Whom a photo looks like, and how much; as text, the reason why it is refused."""

    name: str
    similarity: float

    def __str__(self) -> str:
        return f"looks like {self.name} (similarity {self.similarity:.2f})"


def misplaced_photos(
    names: Sequence[str], embeddings: Embeddings, gallery: Gallery, threshold: float
) -> dict[int, Likeness]:
    """Find new photos that look like somebody else than the person they are said to show.

    A photo is misplaced if another person's reaches the threshold, and most of the photos of its
    own person do not, or are less alike. Where its person has no other photo, it is misplaced if
    the other person is enrolled already, or comes before it.

    Args:
        names: The people of the new photos.
        embeddings: float32 ``(N, D)``.
        gallery: Who is enrolled.
        threshold: Cosine similarity from which two photos count as of one person.

    Returns:
        Row -> the other person.
    """
    units = unit_length(np.asarray(embeddings, np.float32))
    people, owners = np.unique(np.asarray(names, np.str_), return_inverse=True)
    held = gallery.search(embeddings, k=2) if len(gallery) else [[] for _ in names]
    misplaced: dict[int, Likeness] = {}
    for start in range(0, len(units), _TILE):
        tile = units[start : start + _TILE] @ units.T
        for place, similarities in enumerate(tile):
            row = start + place
            is_own = owners == owners[row]
            is_own[row] = False
            own = similarities[is_own].tolist()
            others = np.where(owners == owners[row], -np.inf, similarities)
            if not own:
                others[row:] = -np.inf
            column = int(others.argmax())
            other, likeness = str(people[owners[column]]), float(others[column])
            for match in held[row]:
                if match.name == names[row]:
                    own.append(match.similarity)
                elif match.similarity > likeness:
                    other, likeness = match.name, match.similarity
            typical = float(np.median(own)) if own else -np.inf
            if likeness >= threshold and typical < min(threshold, likeness):
                misplaced[row] = Likeness(other, likeness)
    return misplaced


def sharpness(crop: ImageArray) -> float:
    """Measure the fine detail of a crop: the variance of its Laplacian, relative to its contrast.

    This is the usual measure of focus (Pech-Pacheco et al., 2000), divided by the variance of the
    brightness, so that a dark or flat photo does not count as blurred, and less the part that
    rounding adds, so that a flat and blurred one does not count as sharp.

    Args:
        crop: RGB, uint8, ``(H, W, 3)``, of one size for all that are compared.

    Returns:
        0 or more; 0 for a crop of one colour.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    # The Laplacian in whole numbers, which fit into 16 bits, takes a fraction of the time.
    contrast, detail = (
        float(cv2.meanStdDev(pixels)[1][0, 0]) ** 2
        for pixels in (grey, cv2.Laplacian(grey, cv2.CV_16S))
    )
    return max(0.0, detail - _ROUNDING) / contrast if contrast else 0.0


def is_blurred(crop: ImageArray) -> bool:
    """Whether a crop, RGB, uint8, ``(H, W, 3)``, is too blurred to trust its embedding."""
    return sharpness(crop) < BLURRED_BELOW


@dataclass(frozen=True, eq=False)
class LabelledPhotos:
    """The photos of a folder as arrays, and the limits of similarity that follow from them.

    Attributes:
        photos: N paths.
        names: The people, in ascending order.
        owner: ``(N,)``, the person of each photo as an index of ``names``.
        rows: The photos of each person, in ascending order.
        units: float32 ``(N, D)``, of length 1.
        far: Similarity to a person's other photos below which a photo is in doubt.
        certain: Similarity to another person that is hardly ever chance.
        usual: Median similarity of two photos of one person.
        alike: Similarity of two photos of all but the least alike quarter of people.
    """

    photos: Sequence[str]
    names: Sequence[str]
    owner: npt.NDArray[np.intp]
    rows: Sequence[npt.NDArray[np.intp]]
    units: Embeddings
    far: float
    certain: float
    usual: float
    alike: float


def label_photos(
    photos: Sequence[str], names: Sequence[str], embeddings: Embeddings
) -> LabelledPhotos | None:
    """Compute the limits of a folder.

    Args:
        photos: N paths.
        names: N people.
        embeddings: float32 ``(N, D)``, finite and none of length zero.

    Returns:
        None where the folder is too small for limits.

    Raises:
        InputError: The arguments have different lengths, or an embedding cannot be compared.
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
    order = np.argsort(owner, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(owner))[:-1])
    strangers = _stranger_sample(units, rows)
    medians = [
        float(np.median((units[own] @ units[own].T)[np.triu_indices(len(own), 1)]))
        for own in rows
        if len(own) > 1
    ]
    return LabelledPhotos(
        photos=photos,
        names=people.tolist(),
        owner=owner,
        rows=rows,
        units=units,
        far=float(np.quantile(strangers, _STRANGERS_FARTHER)),
        certain=float(np.quantile(strangers, _STRANGERS_CERTAIN)),
        usual=float(np.median(medians)),
        alike=float(np.quantile(medians, _LEAST_ALIKE)),
    )


def _stranger_sample(units: Embeddings, rows: Sequence[npt.NDArray[np.intp]]) -> Similarities:
    """Similarities of photos of two different people, each pair of people equally likely.

    Drawn by people and not by photos: a single photo in the wrong folder makes as many false
    "strangers" as its true person has photos.
    """
    random = np.random.default_rng(0)
    order, sizes = np.concatenate(rows), np.array([len(own) for own in rows])
    starts = np.cumsum(sizes) - sizes
    first, second = random.integers(0, len(sizes), (2, _SAMPLE))
    first, second = first[first != second], second[first != second]
    one, other = (
        order[starts[who] + (random.random(len(who)) * sizes[who]).astype(np.intp)]
        for who in (first, second)
    )
    similarities = np.empty(len(first), np.float32)
    for start in range(0, len(first), _TILE):
        part = slice(start, start + _TILE)
        np.einsum("nd,nd->n", units[one[part]], units[other[part]], out=similarities[part])
    return similarities


def compare_all(
    labelled: LabelledPhotos,
) -> tuple[npt.NDArray[np.intp], list[tuple[int, int]], list[tuple[int, int]]]:
    """Compare every photo with every other, a tile of rows and columns at a time, each pair once.

    Returns:
        The nearest photo of another person for each photo; pairs of identical photos; pairs of
        people of whom at least two photos are as near as one person's usually are.
    """
    count = len(labelled.owner)
    nearest = np.zeros(count, np.intp)
    nearness = np.full(count, -np.inf, np.float32)
    doubles: list[tuple[int, int]] = []
    # A pair of people as one number, which takes a tenth of the memory of a pair.
    near_people = np.empty(0, np.int64)
    same_photo = 1 - (1 - labelled.usual) / _SAME_PHOTO
    # Only the tiles on and above the diagonal.
    tiles = [(row, column) for row in range(0, count, _TILE) for column in range(row, count, _TILE)]
    for start, other in tiles:
        rows, columns = slice(start, start + _TILE), slice(other, other + _TILE)
        tile = labelled.units[rows] @ labelled.units[columns].T
        if len(doubles) < _MAX_PAIRS:
            alike = np.triu(tile >= same_photo, 1) if start == other else tile >= same_photo
            found = np.argwhere(alike) + np.array([start, other])
            doubles += [(row, column) for row, column in found.tolist()]
        own = labelled.owner[rows, None] == labelled.owner[columns]
        tile[own] = -np.inf
        for turned, own_rows, offset in ((tile, rows, other), (tile.T, columns, start)):
            best = turned.argmax(axis=1)
            reached = turned[np.arange(len(turned)), best]
            nearer = reached > nearness[own_rows]
            nearest[own_rows][nearer] = best[nearer] + offset
            nearness[own_rows][nearer] = reached[nearer]
        if len(near_people) < _MAX_PAIRS:
            first, second = np.nonzero(tile >= labelled.alike)
            owners = labelled.owner[first + start], labelled.owner[second + other]
            codes = np.minimum(*owners) * len(labelled.names) + np.maximum(*owners)
            near_people = np.union1d(near_people, codes)
    pairs = [divmod(code, len(labelled.names)) for code in near_people[:_MAX_PAIRS].tolist()]
    return nearest, sorted(doubles)[:_MAX_PAIRS], pairs


def _mislabelled(labelled: LabelledPhotos, nearest: npt.NDArray[np.intp]) -> Iterator[LabelProblem]:
    """Photos that are as far from their person's others as strangers are."""
    photos = labelled.photos
    toward = np.einsum("nd,nd->n", labelled.units, labelled.units[nearest])
    for rows in labelled.rows:
        if len(rows) == 1:
            continue
        mutual = labelled.units[rows] @ labelled.units[rows].T
        np.fill_diagonal(mutual, np.nan)
        own = np.nanmedian(mutual, axis=1)
        doubtful = []
        for place in np.flatnonzero(own < labelled.far).tolist():
            # Of two photos either may be the wrong one, unless one is somebody else's.
            if len(rows) == 2:
                here, there = toward[rows[place]], toward[rows[1 - place]]
                innocent = there >= labelled.certain and there > here
            else:
                others = np.delete(np.delete(mutual, place, 0), place, 1)
                innocent = np.nanmedian(others) <= own[place]
            if not innocent:
                doubtful.append(place)
        name = labelled.names[labelled.owner[rows[0]]]
        if len(rows) == 2 and len(doubtful) == 2:
            first, second = photos[rows[0]], photos[rows[1]]
            text = (
                f"{first} and {second}: the two photos of {name} are unlike each other "
                f"(similarity {own[0]:.3f})"
            )
            yield LabelProblem("mislabelled", (first, second), (name,), text)
            continue
        for place in doubtful:
            row = rows[place]
            people: tuple[str, ...] = (name,)
            text = f"{photos[row]}: unlike the other photos of {name} (similarity {own[place]:.3f})"
            if toward[row] >= labelled.certain and toward[row] > own[place]:
                other = labelled.names[labelled.owner[nearest[row]]]
                text += f"; rather {other} ({toward[row]:.3f})"
                people = (name, other)
            yield LabelProblem("mislabelled", (photos[row],), people, text)


def _one_person_twice(
    labelled: LabelledPhotos, near_people: Sequence[tuple[int, int]]
) -> Iterator[LabelProblem]:
    """Pairs of people whose photos are as near each other as one person's are."""
    for first, second in near_people:
        rows, columns = labelled.rows[first], labelled.rows[second]
        similarities = labelled.units[rows] @ labelled.units[columns].T
        middle = float(np.median(similarities))
        if middle >= labelled.alike:
            row, column = divmod(int(similarities.argmax()), len(columns))
            photos = (labelled.photos[int(rows[row])], labelled.photos[int(columns[column])])
            people = (labelled.names[first], labelled.names[second])
            text = f"{people[0]} and {people[1]} may be one person (similarity {middle:.3f})"
            yield LabelProblem("one person twice", photos, people, text)
