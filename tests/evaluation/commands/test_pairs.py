from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, InputError
from face_encode.evaluation.pairs import evaluate_pairs, read_pairs

PER_KIND = 20


@pytest.fixture
def some_pairs(lfw_pairs: Path, tmp_path: Path) -> Path:
    """The first pairs of each kind of the development list."""
    _, *lines = (lfw_pairs).read_text().splitlines()
    half = len(lines) // 2
    file = tmp_path / "pairs.txt"
    chosen = [str(PER_KIND), *lines[:PER_KIND], *lines[half : half + PER_KIND]]
    file.write_text("\n".join(chosen), encoding="utf-8")
    return file


def test_json_equals_scikit_learn_and_the_report_stands_alone(
    run: Any, some_pairs: Path, lfw_photos: Path, encoder: Encoder, tmp_path: Path
) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    photos, report = lfw_photos, tmp_path / "report.html"
    arguments = ["--photos", photos, "--pairs", some_pairs]
    told = run("evaluate", "pairs", *arguments, "--report", report, "--json")
    pairs = read_pairs(some_pairs, photos)
    measured = evaluate_pairs(pairs, load_detector(), encoder, progress=False)
    false, true, _ = sklearn_metrics.roc_curve(pairs.same, measured.scores, drop_intermediate=False)
    accuracy = np.max(true + 1 - false) / 2
    assert told["pairs"] == 2 * PER_KIND
    assert told["not_found"] == []
    assert told["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert told["auc"] == pytest.approx(sklearn_metrics.auc(false, true), abs=1e-6)
    assert told["accuracy"] > 0.9
    assert told["tar_at_far"] == {"0.1": None, "0.01": None, "0.001": None, "0.0001": None}
    assert (told["encoder"], told["detector"], told["metric"]) == ("dlib_resnet", "dlib", "cosine")
    page = report.read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "http" not in page
    assert "encoding one face" in page


def test_a_photo_without_a_face_is_listed_and_counts_as_an_error(
    run: Any, several: list[Path], tmp_path: Path
) -> None:
    from PIL import Image

    for person in several[:2]:
        for number, photo in enumerate(sorted(person.iterdir())[:2]):
            (tmp_path / f"{person.name}{number}.jpg").symlink_to(photo)
    Image.new("RGB", (200, 200), "teal").save(tmp_path / "empty.jpg")
    first, second = several[0].name, several[1].name
    rows = [
        (f"{first}0.jpg", f"{first}1.jpg", 1),
        (f"{second}0.jpg", f"{second}1.jpg", 1),
        (f"{first}0.jpg", f"{second}0.jpg", 0),
        (f"{first}1.jpg", "empty.jpg", 0),
    ]
    file = tmp_path / "pairs.csv"
    lines = ["photo_a,photo_b,same", *(f"{a},{b},{same}" for a, b, same in rows)]
    file.write_text("\n".join(lines), encoding="utf-8")
    told = run("evaluate", "pairs", "--photos", tmp_path, "--pairs", file, "--json")
    assert told["not_found"] == [str(tmp_path / "empty.jpg")]
    assert told["accuracy"] == pytest.approx(3 / 4)
    printed = run("evaluate", "pairs", "--photos", tmp_path, "--pairs", file)
    assert "75.00 %" in printed
    assert "a face was found in 80.00 % of the photos" in printed
    assert "empty.jpg: no face found" in printed


def test_what_is_wrong_is_told_before_the_work(run: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        run("evaluate", "pairs", "--photos", tmp_path / "none", "--pairs", tmp_path / "none")
    (tmp_path / "a.jpg").touch()
    file = tmp_path / "pairs.csv"
    file.write_text("photo_a,photo_b,same\na.jpg,a.jpg,1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"\.html"):
        run("evaluate", "pairs", "--photos", tmp_path, "--pairs", file, "--report", "out.pdf")
