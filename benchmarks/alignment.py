"""Measure which points align faces best for an encoder that crops in ArcFace's frame.

Takes photos of one person each, the face in the middle, one sub-folder a person, as LFW has them::

    python -m benchmarks.alignment LFW_DIR
    python -m benchmarks.alignment LFW_DIR --pairs pairsDevTrain.txt

Without pairs: the most turned heads of all photos, each against photos from the front of the same
person; strangers are all turned heads against the front photos of other people. With LFW's pairs:
the same people of the list; strangers are all photos of different people in it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.cli.options import positive, print_table
from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.base import Detector
from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import load_encoder
from face_encode.errors import FaceEncodeError, InputError
from face_encode.evaluation.pairs import read_pairs
from face_encode.gallery.distances import unit_length
from face_encode.photos.folders import photos_in
from face_encode.photos.reading import read_image
from face_encode.types import Embeddings, Face, ImageArray

FALSE_MATCH_RATES = (1e-3, 1e-4)

# By whose points a face is cut out: detector, and what of its face is left.
_KEPT: dict[str, Callable[[Face], Face]] = {
    "landmarks": lambda face: replace(face, points=None),
    "points": lambda face: replace(face, landmarks=None),
    "both": lambda face: face,
}
VARIANTS = [
    ("dlib", "landmarks"),
    *((detector, kept) for detector in ("yunet", "retinaface") for kept in _KEPT),
]


def face_in_the_middle(detector: Detector, image: ImageArray) -> Face | None:
    """The largest face whose box holds the middle of the photo."""
    x, y = image.shape[1] / 2, image.shape[0] / 2
    for face in detector.detect(image):
        box = face.box
        if box.left <= x < box.left + box.width and box.top <= y < box.top + box.height:
            return face
    return None


def turn_of(points: npt.NDArray[np.float32]) -> float:
    """How far the head is turned aside, by the detector's points; 0 for a face from the front.

    The tip of the nose lies so far beside the line from the middle of the eyes to that of the
    mouth, as a share of the line's length.
    """
    places = points.astype(np.float64) @ (1, 1j)
    eyes, mouth = places[:2].mean(), places[3:].mean()
    return abs(float(((places[2] - (eyes + mouth) / 2) / (eyes - mouth)).imag))


def embed(encoder: Encoder, photos: Sequence[Path]) -> npt.NDArray[np.float32]:
    """Embed each photo's face by every variant; NaN where a detector finds none.

    Returns:
        float32 ``(len(VARIANTS), len(photos), D)``, of length 1.
    """
    detectors = {name: load_detector(name) for name, _ in VARIANTS}
    size = encoder.embedding_size
    embeddings = np.full((len(VARIANTS), len(photos), size), np.nan, np.float32)
    for index, path in enumerate(photos):
        image = read_image(path)
        faces = {name: face_in_the_middle(each, image) for name, each in detectors.items()}
        crops = {
            row: crop_faces(image, [_KEPT[kept](face)], encoder.contract.crop)
            for row, (name, kept) in enumerate(VARIANTS)
            if (face := faces[name]) is not None
        }
        if crops:
            received = encoder.encode(np.concatenate(list(crops.values())))
            embeddings[list(crops), index] = unit_length(received)
    return embeddings


def accept_rates(
    same: npt.NDArray[np.floating[Any]], strangers: npt.NDArray[np.floating[Any]]
) -> list[float]:
    """Share of the same people's pairs above the threshold of each of ``FALSE_MATCH_RATES``.

    Args:
        same: Similarities; NaN, where a face was not found, is not accepted.
        strangers: Similarities of found faces.
    """
    ordered = np.sort(strangers)
    thresholds = [ordered[-max(1, int(len(ordered) * rate))] for rate in FALSE_MATCH_RATES]
    return [float((same >= threshold).mean()) for threshold in thresholds]


def turned_pairs(photos: Sequence[Path], count: int) -> list[tuple[Path, Path]]:
    """The most turned heads, each with up to two photos from the front of the same person."""
    detector = load_detector("retinaface")
    turns: dict[Path, float] = {}
    for path in photos:
        face = face_in_the_middle(detector, read_image(path))
        if face is not None and face.points is not None:
            turns[path] = turn_of(face.points)
    front = float(np.median(list(turns.values())))
    pairs: list[tuple[Path, Path]] = []
    for turned in sorted(turns, key=turns.__getitem__, reverse=True):
        others = [each for each in turns if each.parent == turned.parent and turns[each] < front]
        pairs += [(turned, other) for other in others[:2]]
        count -= bool(others)
        if count == 0:
            break
    return pairs


def rates_of(
    embeddings: Embeddings, people: Sequence[str], pairs: Sequence[tuple[int, int]], across: bool
) -> list[float]:
    """The accept rates of one variant.

    Args:
        embeddings: float32 ``(N, D)``, of length 1.
        people: Each photo's person.
        pairs: Two photos of one person.
        across: Whether strangers are first photos against second ones only.
    """
    first, second = np.array(pairs).T
    same = (embeddings[first] * embeddings[second]).sum(axis=1)
    rows, columns = (np.unique(each if across else [first, second]) for each in (first, second))
    names = np.array(people)
    similarities = embeddings[rows] @ embeddings[columns].T
    strangers = similarities[names[rows][:, np.newaxis] != names[columns]]
    return accept_rates(same, strangers[np.isfinite(strangers)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", metavar="LFW_DIR", type=Path, help="one sub-folder a person")
    parser.add_argument("--pairs", metavar="FILE", type=Path, help="LFW's list of pairs")
    parser.add_argument("--count", type=positive, default=400, help="turned heads (default: 400)")
    parser.add_argument("--encoder", default="mobilefacenet_single", help="of the crop arcface")
    options = parser.parse_args(arguments)
    try:
        encoder = load_encoder(options.encoder)
        if options.pairs is None:
            people = [photos_in(each) for each in sorted(options.photos.glob("*/"))]
            several = [photo for photos in people if len(photos) > 1 for photo in photos]
            pairs = turned_pairs(several, options.count)
        else:
            listed = read_pairs(options.pairs, options.photos)
            pairs = [
                (first, second)
                for first, second, same in zip(
                    listed.photos_a, listed.photos_b, listed.same, strict=True
                )
                if same
            ]
        if not pairs:
            raise InputError(f"no person in {options.photos} has two photos that go together")
        photos = sorted({photo for pair in pairs for photo in pair})
        embeddings = embed(encoder, photos)
    except FaceEncodeError as error:
        print(error, file=sys.stderr)
        return 1
    place = {photo: index for index, photo in enumerate(photos)}
    rows = [(place[first], place[second]) for first, second in pairs]
    names = [photo.parent.name for photo in photos]
    table = []
    for (detector, kept), each in zip(VARIANTS, embeddings, strict=True):
        rates = rates_of(each, names, rows, options.pairs is None)
        missing = int(np.isnan(each[:, 0]).sum())
        table.append([detector, kept, *(f"{100 * rate:.1f} %" for rate in rates), str(missing)])
    heads = [f"TAR at {rate:g}" for rate in FALSE_MATCH_RATES]
    print(f"{len(pairs)} pairs of {len(photos)} photos")
    print_table(["detector", "aligned by", *heads, "not found"], table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
