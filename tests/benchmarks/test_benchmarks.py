from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.alignment import VARIANTS, accept_rates, turn_of
from benchmarks.alignment import main as alignment_main
from benchmarks.detectors import count_group
from benchmarks.detectors import main as detectors_main
from benchmarks.photo_folders import copy_photos
from benchmarks.serve_load import Phase
from benchmarks.speed import encoding_once
from benchmarks.speedups import compared, print_table
from benchmarks.timing import number_of, take_turns
from benchmarks.vgg_embedding import accuracy_of, pairs_of
from face_encode import load_encoder
from face_encode.encoders.contract import save_encoder
from face_encode.types import Box, Face
from tests.conftest import EXAMPLES, REPOSITORY, VERIFY_DATASET, place_weights
from tests.tiny_parts import TINY_CONTRACT, save_tiny_encoder


def test_ratios_are_the_others_time_over_ours() -> None:
    row = compared("match", [2.0, 1.0, 9.0], "loop", [30.0, 10.0, 20.0], divisor=2, rival_factor=3)
    assert (row.ours_ms, row.rival_ms) == (1.0, 30.0)
    assert row.ratio == 20 * 3 / 2
    assert row.ratio_of_shortest == 10 * 3 / 1


def test_speedups_are_shown_with_their_notes(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [compared("match", [2.0], "loop", [50.0]), compared("a", [1.0], "b", [3.0], note="once")]
    print_table({"processor": "one"}, rows)
    first, *table, last = capsys.readouterr().out.splitlines()
    assert (first, last) == ("processor: one", "2: once")
    (match,) = (line for line in table if "match" in line)
    assert [cell.strip() for cell in match.split("│")[1:-1]] == [
        *("1", "match", "2 ms", "loop", "50 ms", "25", "25")
    ]


def test_contestants_take_turns_and_the_first_does_not_count() -> None:
    calls: list[tuple[str, int]] = []
    times = take_turns(
        2, lambda turn: calls.append(("a", turn)), lambda turn: calls.append(("b", turn))
    )
    assert calls == [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert [len(each) for each in times] == [2, 2]


def test_photos_are_spread_over_the_folder(tmp_path: Path) -> None:
    for person in "abcdefgh":
        (tmp_path / "from" / person).mkdir(parents=True)
        for index in range(2):
            photo = Image.fromarray(np.zeros((2, 2, 3), np.uint8))
            photo.save(tmp_path / "from" / person / f"{index}.png")
    (tmp_path / "to").mkdir()
    copies = copy_photos(tmp_path / "from", 4, tmp_path / "to")
    assert [path.relative_to(tmp_path / "to").as_posix() for path in copies] == [
        "a/0.png",
        "a/1.png",
        "e/0.png",
        "e/1.png",
    ]
    assert all(path.is_file() for path in copies)


def test_numbers_have_three_digits() -> None:
    assert [number_of(value) for value in (0.03456, 12.34, 123456.7)] == [
        "0.0346",
        "12.3",
        "123,457",
    ]


@pytest.mark.skipif(find_spec("face_recognition") is not None, reason="it is installed here")
def test_says_in_one_line_how_to_get_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("face_recognition is missing")
    assert "pip install --no-deps face_recognition" in line


@pytest.mark.parametrize("engine", ["tensorflow", "onnx"])
def test_once_through_the_network_is_on_the_engine_of_the_model(
    tmp_path: Path, engine: str
) -> None:
    model = load_encoder(save_tiny_encoder(tmp_path / "tiny.keras")).model
    save_encoder(model, tmp_path / "both.keras", replace(TINY_CONTRACT, mirror=True))
    both = load_encoder(tmp_path / "both.keras", engine=engine)
    once = encoding_once(both, tmp_path)
    assert (once.engine, once.name) == (both.engine, both.name) == (engine, TINY_CONTRACT.name)
    crops = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    mean = (once.encode(crops) + once.encode(crops[:, :, ::-1].copy())) / 2
    assert both.encode(crops) == pytest.approx(mean, abs=1e-5)
    assert both.encode(crops) != pytest.approx(once.encode(crops), abs=1e-3)


def face_at(left: int, top: int, side: int) -> Face:
    return Face(Box(left, top, side, side), 1.0)


def test_faces_of_a_group_are_counted_once_each() -> None:
    marks = [(15.0, 15.0), (50.0, 50.0), (90.0, 90.0)]
    faces = [face_at(10, 10, 10), face_at(12, 12, 10), face_at(45, 45, 10), face_at(0, 80, 10)]
    # The second box is on the first face once more, the fourth on none; the third face has none.
    assert count_group(faces, marks) == (2, 2)


def test_the_turn_of_a_head_by_hand() -> None:
    points = np.array([(0, 0), (4, 0), (2, 2), (1, 4), (3, 4)], np.float32)
    assert turn_of(points) == 0
    # A quarter of the way from the eyes to the mouth, whatever the face's size and tilt.
    points[2, 0] = 3
    assert turn_of(points) == pytest.approx(0.25)
    assert turn_of(points[:, ::-1] * 7 + 5) == pytest.approx(0.25)


def test_accept_rates_by_hand() -> None:
    strangers = np.arange(1, 10_001) / 10_001
    # The 10 and the one most similar strangers are let through.
    same = np.array([9_991, 9_990, 10_000, np.nan]) / 10_001
    assert accept_rates(same, strangers) == [0.5, 0.25]


@pytest.mark.data
def test_points_are_measured(public_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("yunet", "retinaface", "mobilefacenet"):
        place_weights(name, public_weights)
    assert alignment_main([str(VERIFY_DATASET), "--count", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "pairs of" in lines[0]
    rows = [line.split()[:2] for line in lines if "%" in line]
    assert rows == [list(each) for each in VARIANTS]


def test_detectors_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marks = tmp_path / "faces.csv"
    marks.write_text("photo,x,y\nstranger.jpg,1,1\n", encoding="utf-8")
    assert (
        detectors_main(
            [
                str(VERIFY_DATASET),
                "--count",
                "2",
                "--detectors",
                "haar",
                "dlib_hog",
                "--groups",
                str(EXAMPLES),
                "--faces",
                str(marks),
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert printed.count("100.0 %") == 4
    assert printed.count("0 of 1") == 2
    assert detectors_main([str(tmp_path)]) == 1
    marks.write_text("face\n1\n", encoding="utf-8")
    assert detectors_main([str(VERIFY_DATASET), "--groups", ".", "--faces", str(marks)]) == 1
    assert "columns photo, x and y" in capsys.readouterr().err


def test_all_pairs_of_one_person_come_first() -> None:
    people = np.array([0, 1, 0, 2, 0])
    first, second = pairs_of(people)
    assert [(int(a), int(b)) for a, b in zip(first[:3], second[:3], strict=True)] == [
        (0, 2),
        (0, 4),
        (2, 4),
    ]
    assert len(first) == 10
    assert (people[first[3:]] != people[second[3:]]).all()


def test_accuracy_is_that_of_the_best_threshold_with_an_interval_over_people() -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.4, 0.2, 0.1] * 20)
    same = np.array([True, True, True, False, False, False] * 20)
    accuracy, low, high = accuracy_of(scores, same, np.repeat(np.arange(20), 6))
    assert accuracy == pytest.approx(5 / 6)
    # All people are alike, so there is no doubt.
    assert [low, high] == pytest.approx([5 / 6, 5 / 6])


def test_a_phase_of_load_is_kept_as_json() -> None:
    phase = Phase("one client", 1, seconds=2.0)
    phase.statuses["match 200"] += 3
    phase.latencies["match"] = [0.01, 0.02, 0.03]
    kept = json.loads(json.dumps(phase.as_dict()))
    assert kept["statuses"] == {"match 200": 3}
    assert kept["rate"] == pytest.approx(1.5)
    assert kept["latencies"]["match"]["p50"] == pytest.approx(20)
