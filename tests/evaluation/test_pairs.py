from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import DatasetError
from face_encode.evaluation.metrics import fold_accuracy, verification_accuracy
from face_encode.evaluation.pairs import PairList, read_pairs, verification_numbers


def scored_pairs(count: int, folds: int | None, seed: int = 0) -> tuple[Any, PairList]:
    """Scores that overlap a little, and pairs that they may be of."""
    random = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    scores = random.normal(np.where(same, 0.95, 0.8), 0.04)
    photos = tuple(Path(f"{number}.jpg") for number in range(count))
    fold_of = None if folds is None else np.arange(count) * folds // count
    people = tuple(f"person {number % 300}" for number in range(count))
    return scores, PairList(photos, photos, same, fold_of, people)


def test_without_folds_the_threshold_is_the_best_single_one() -> None:
    scores, pairs = scored_pairs(2200, None)
    numbers = verification_numbers(scores, pairs, replicates=50)
    best = verification_accuracy(scores, pairs.same)
    assert (numbers.accuracy, numbers.threshold) == (best.accuracy, best.threshold)
    # A binomial over 220 pairs has this deviation.
    expected = np.sqrt(best.accuracy * (1 - best.accuracy) / 220)
    assert numbers.accuracy_std == pytest.approx(expected, rel=0.6)


def test_with_folds_the_threshold_is_that_of_the_other_folds() -> None:
    scores, pairs = scored_pairs(2000, 10)
    numbers = verification_numbers(scores, pairs, replicates=50)
    assert pairs.folds is not None
    folds = fold_accuracy(scores, pairs.same, pairs.folds)
    assert numbers.accuracy == folds.accuracy
    assert numbers.accuracy_std == folds.standard_deviation
    assert numbers.threshold == pytest.approx(folds.thresholds.mean())
    assert numbers.accuracy in numbers.intervals["accuracy"]


def test_rates_are_given_where_there_are_different_pairs_enough() -> None:
    numbers = verification_numbers(*scored_pairs(2000, None), replicates=20)
    assert [rate for rate, tar in numbers.tar_at_far.items() if tar is not None] == [0.1, 0.01]
    assert set(numbers.intervals) == {
        "accuracy",
        "auc",
        "eer",
        "tar_at_far_0.1",
        "tar_at_far_0.01",
    }


def test_intervals_hold_the_numbers_and_a_face_not_found_lowers_them() -> None:
    scores, pairs = scored_pairs(2000, None)
    whole = verification_numbers(scores, pairs, replicates=200)
    for name in ("auc", "eer"):
        assert getattr(whole, name) in whole.intervals[name]
    scores[:40] = np.nan
    holed = verification_numbers(scores, pairs, replicates=20)
    # Forty pairs of 2,000 more are wrong, but for those that were wrong before.
    assert whole.accuracy - 0.021 < holed.accuracy < whole.accuracy - 0.017
    assert holed.auc < whole.auc
    assert holed.eer > whole.eer


def test_keys_of_the_json_are_text() -> None:
    numbers = verification_numbers(*scored_pairs(400, None), replicates=20)
    text = json.dumps({str(rate): tar for rate, tar in numbers.tar_at_far.items()})
    assert json.loads(text)["0.0001"] is None
    assert set(json.loads(text)) == {"0.1", "0.01", "0.001", "0.0001"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Empty files in LFW's layout: these readers never open a photo."""
    folder = tmp_path / "photos"
    for name, count in {"Ann_Lee": 3, "Bo_Ek": 2, "Cy": 1}.items():
        (folder / name).mkdir(parents=True)
        for number in range(1, count + 1):
            (folder / name / f"{name}_{number:04d}.jpg").touch()
    return folder


def write(folder: Path, text: str) -> Path:
    file = folder / "pairs.txt"
    file.write_text(text, encoding="utf-8")
    return file


def test_view_1(photos: Path, tmp_path: Path) -> None:
    text = "2\nAnn_Lee\t1\t3\nBo_Ek\t1\t2\nAnn_Lee\t2\tBo_Ek\t1\nCy\t1\tAnn_Lee\t1\n"
    pairs = read_pairs(write(tmp_path, text), photos)
    assert len(pairs) == 4
    assert pairs.folds is None
    assert pairs.same.tolist() == [True, True, False, False]
    assert pairs.people == ("Ann_Lee", "Bo_Ek", "Ann_Lee", "Cy")
    assert pairs.photos_a[0] == photos / "Ann_Lee" / "Ann_Lee_0001.jpg"
    assert pairs.photos_b[0] == photos / "Ann_Lee" / "Ann_Lee_0003.jpg"
    assert pairs.photos_b[2] == photos / "Bo_Ek" / "Bo_Ek_0001.jpg"
    assert len(pairs.photos()) == 6


def test_view_2_has_folds(photos: Path, tmp_path: Path) -> None:
    fold = "Ann_Lee 1 2\nAnn_Lee 1 Cy 1\n"
    pairs = read_pairs(write(tmp_path, "3 1\n" + 3 * fold), photos)
    assert pairs.folds is not None
    assert pairs.folds.tolist() == [0, 0, 1, 1, 2, 2]
    assert pairs.same.tolist() == [True, False] * 3


def test_photos_of_another_kind_are_found(photos: Path, tmp_path: Path) -> None:
    (photos / "Cy" / "Cy_0001.jpg").rename(photos / "Cy" / "Cy_0001.png")
    pairs = read_pairs(write(tmp_path, "1\nAnn_Lee 1 2\nAnn_Lee 1 Cy 1\n"), photos)
    assert pairs.photos_b[1].suffix == ".png"


def test_csv(photos: Path, tmp_path: Path) -> None:
    text = (
        "photo_a,photo_b,same\n"
        "Ann_Lee/Ann_Lee_0001.jpg,Ann_Lee/Ann_Lee_0002.jpg,1\n"
        '"Ann_Lee/Ann_Lee_0001.jpg",Bo_Ek/Bo_Ek_0001.jpg,False\n'
    )
    pairs = read_pairs(write(tmp_path, text), photos)
    assert pairs.same.tolist() == [True, False]
    assert pairs.folds is None
    assert pairs.photos_b[1] == photos / "Bo_Ek" / "Bo_Ek_0001.jpg"


def test_csv_with_byte_order_mark_and_folds(photos: Path, tmp_path: Path) -> None:
    row = "Ann_Lee/Ann_Lee_0001.jpg,Ann_Lee/Ann_Lee_0002.jpg,yes"
    text = f"\ufeffphoto_a,photo_b,same,fold\n{row},b\n{row},a\n{row},b\n"
    folds = read_pairs(write(tmp_path, text), photos).folds
    assert folds is not None
    np.testing.assert_array_equal(folds, [1, 0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("photo_a,photo_b,same\n", "empty"),
        ("999999999 0\n", "empty"),
        ("2\nAnn_Lee 1 2\n", "promises 4 pairs"),
        ("1\nAnn_Lee 1 2\nBo_Ek 1 2\n", "as many same as different"),
        ("1\nAnn_Lee one two\nAnn_Lee 1 Bo_Ek 1\n", "line 2"),
        ("1\nAnn_Lee 1\nAnn_Lee 1 Bo_Ek 1\n", "line 2"),
        ("1\nAnn_Lee 1 9\nAnn_Lee 1 Bo_Ek 1\n", "not in"),
        ("first,second,same\na,b,1\n", "columns"),
        ("photo_a,photo_b,same,fold\na,b,1,1\na,b,0, \na,b,0,2\n", "line 3: no fold"),
        ("photo_a,photo_b,same\n" + 140_000 * "a" + ",b,1\n", "field larger"),
        (5_000 * "9", "neither LFW's format"),
        (f"1\nAda 1 {5_000 * '9'}\nAda 1 Bo 2\n", "line 2: a pair is"),
        ("photo_a,photo_b,same\nx.jpg,y.jpg,maybe\n", "line 2"),
        ("photo_a,photo_b,same\nx.jpg\n", "line 2"),
        ("photo_a,photo_b,same\nx.jpg,y.jpg,1\n", "not in"),
    ],
)
def test_a_wrong_list_is_refused(photos: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_pairs(write(tmp_path, text), photos)


def test_missing_files_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot read"):
        read_pairs(tmp_path / "no.txt", photos)
    with pytest.raises(DatasetError, match="does not exist"):
        read_pairs(write(tmp_path, "1\n"), tmp_path / "none")
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DatasetError, match="cannot read"):
        read_pairs(binary, photos)


@pytest.mark.data
def test_the_development_list_of_lfw(lfw_photos: Path, lfw_pairs: Path) -> None:
    pairs = read_pairs(lfw_pairs, lfw_photos)
    assert len(pairs) == 2200
    assert pairs.same.sum() == 1100
    assert pairs.folds is None
    same_person = [
        a.parent == b.parent for a, b in zip(pairs.photos_a, pairs.photos_b, strict=True)
    ]
    np.testing.assert_array_equal(same_person, pairs.same)
