from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image


def test_enrolled_people_strangers_and_a_photo_without_a_face(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    gallery = link(tmp_path / "gallery", several[:6], 0, 2)
    probes = link(tmp_path / "probes", several, 2, 4)
    Image.new("RGB", (200, 200), "teal").save(probes / several[0].name / "empty.jpg")
    report = tmp_path / "report.html"
    told = run("evaluate", "people", gallery, probes, "--json", "--report", report)
    assert (told["people"], told["enrolled"]) == (6, 12)
    assert (told["probes"], told["stranger_probes"]) == (17, 4)
    assert told["not_found"] == [str(probes / several[0].name / "empty.jpg")]
    # Twelve probes of enrolled people have a face; at most one may be told wrong.
    assert told["rank_1"] >= 11 / 13
    assert told["rank_5"] >= told["rank_1"]
    right = told["probes"] - told["wrong_name"] - told["missed"] - told["false_alarms"]
    assert told["correct"] == right
    assert report.read_text(encoding="utf-8").count("<svg") == 1
    printed = run("evaluate", "people", gallery, probes, "--threshold", "0")
    assert "strangers given a name" in printed
    assert "4 of 4 (100.00 %" in printed
    assert "empty.jpg: no face found" in printed


def test_the_threshold_can_be_calibrated_on_the_enrolled(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    gallery = link(tmp_path / "gallery", several, 0, 3)
    probes = link(tmp_path / "probes", several[:1], 3, 4)
    loose, strict = (
        run("evaluate", "people", gallery, probes, "--false-match-rate", rate, "--json")
        for rate in (0.2, 0.001)
    )
    assert 0.7 < loose["threshold"] < strict["threshold"]
