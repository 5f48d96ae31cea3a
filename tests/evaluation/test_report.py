from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from face_encode.evaluation.faces import Speeds
from face_encode.evaluation.pairs import PairList, PairsResult, verification_numbers
from face_encode.evaluation.report import write_pairs_report


def measured(folder: Path, folds: int | None) -> PairsResult:
    """Two hundred pairs, one of them falsely matched, one missed and one without a face."""
    random = np.random.default_rng(0)
    same = np.arange(200) % 2 == 0
    scores = random.normal(np.where(same, 0.95, 0.7), 0.01)
    scores[0], scores[1], scores[3] = 0.71, 0.94, math.nan
    photos = []
    for number in range(200):
        photo = folder / f"photo{number}.png"
        if number < 2:
            Image.new("RGB", (8, 8), "teal").save(photo)
        photos.append(photo)
    fold_of = None if folds is None else np.arange(200) * folds // 200
    people = tuple(map(str, range(200)))
    pairs = PairList(tuple(photos), tuple(photos), same, fold_of, people)
    return PairsResult(
        pairs=pairs,
        scores=scores,
        numbers=verification_numbers(scores, pairs, replicates=50),
        not_found=((str(photos[3]), "no face found"),),
        photos=200,
        encoder="one & only",
        detector="none",
        metric="cosine",
        mirrored=True,
        seconds_a_photo=0.025,
    )


def test_the_report_shows_the_mistakes_and_needs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_pairs_report(measured(tmp_path, None), path, Speeds(1, 2, 3, 4.25))
    text = path.read_text(encoding="utf-8")
    assert "one &amp; only on 200 pairs" in text
    assert "the accuracy is an upper bound" in text
    assert "98.50 %" in text
    assert "The worst false matches (1 in all)" in text
    assert "The worst misses (1 in all)" in text
    assert text.count("data:image/jpeg") == 4
    assert "0.940: photo1.png / photo1.png" in text
    assert "no face found" in text
    assert "4.2" in text
    assert text.count("<svg") == 3
    for label in ("same person", "different people", "misses (FRR)", "10 false matches", ">0.01<"):
        assert label in text
    for outside in ("http:", "https:", "<script", "<link", "url("):
        assert outside not in text


def test_with_folds_the_report_says_how_thresholds_were_chosen(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_pairs_report(measured(tmp_path, 4), path)
    text = path.read_text(encoding="utf-8")
    assert "Each of 4 folds was judged" in text
    assert "encoding one face" not in text
