"""The promise of the README, on real photos where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from face_encode.detectors.loading import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.metrics import verification_accuracy
from face_encode.pipeline import EmbeddedPhoto, embed_photos
from face_encode.types import Embeddings

Pair = tuple[str, str, bool]


def read_pairs(test_data: Path) -> list[Pair]:
    """LFW's list: a name and two numbers, or two names with a number each."""
    pairs: list[Pair] = []
    for line in (test_data / "pairsDevTrain.txt").read_text().splitlines()[1:]:
        first, number, *rest = line.split("\t")
        second, other = (first, rest[0]) if len(rest) == 1 else (rest[0], rest[1])
        one, two = (
            f"{name}/{name}_{int(index):04d}.jpg"
            for name, index in ((first, number), (second, other))
        )
        pairs.append((one, two, len(rest) == 1))
    return pairs


def nearest_the_middle(photo: EmbeddedPhoto) -> Embeddings:
    """LFW's photos are cut so that the person meant is in the middle."""
    middle = np.array(photo.size) / 2

    def prominence(index: int) -> float:
        box = photo.faces[index].box
        centre = np.array([box.left + box.width / 2, box.top + box.height / 2])
        return float(box.area / (1 + ((centre - middle) ** 2).sum()))

    chosen: Embeddings = photo.embeddings[max(range(len(photo.faces)), key=prominence)]
    return chosen


@pytest.fixture(scope="module")
def embedded(test_data: Path, encoder: Encoder) -> dict[str, EmbeddedPhoto]:
    photos = sorted({photo for pair in read_pairs(test_data) for photo in pair[:2]})
    paths = [test_data / "lfw-dev" / photo for photo in photos]
    results = embed_photos(paths, load_detector(), encoder, max_faces=None)
    return dict(zip(photos, results, strict=True))


def test_a_face_is_found_in_nearly_every_photo(embedded: dict[str, EmbeddedPhoto]) -> None:
    found = [photo.error is None for photo in embedded.values()]
    assert np.mean(found) >= 0.999


def test_pairs_are_told_apart(test_data: Path, embedded: dict[str, EmbeddedPhoto]) -> None:
    pairs = read_pairs(test_data)
    assert len(pairs) == 2200

    def score(one: str, two: str) -> float:
        if embedded[one].error or embedded[two].error:
            return float("nan")  # counts as an error
        a, b = nearest_the_middle(embedded[one]), nearest_the_middle(embedded[two])
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    scores = np.array([score(one, two) for one, two, _ in pairs])
    best = verification_accuracy(scores, np.array([same for *_, same in pairs]))
    assert best.accuracy >= 0.988
