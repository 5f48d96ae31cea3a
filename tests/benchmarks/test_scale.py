"""``python -m benchmarks.scale``: its parts, and each measurement once, small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.machine import watched_memory
from benchmarks.scale import search
from benchmarks.scale.__main__ import main
from benchmarks.scale.contestant import Contestant, MissingContestantError
from benchmarks.scale.embeddings import Population
from benchmarks.scale.encoding_contestants import random_facenet_weights
from benchmarks.scale.growth import Growth
from benchmarks.scale.results import Results, Skipped
from benchmarks.timing import Times
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.facenet import inception_resnet
from face_encode.errors import InputError
from tests.conftest import VERIFY_DATASET


def measured(folder: Path, part: str) -> dict[str, Any]:
    return Results(folder).parts[part]


def test_times_are_kept_as_median_and_minimum() -> None:
    assert Times.of([3.0, 1.0, 2.0], factor=10) == Times(median=20.0, minimum=10.0, repeats=3)


def test_growth_is_the_slope_on_logarithms() -> None:
    growth = Growth.of([10, 100, 1000], [2 * size**1.5 for size in (10, 100, 1000)])
    assert growth.exponent == pytest.approx(1.5)
    assert growth.factor == pytest.approx(2)
    assert growth.margin == pytest.approx(0, abs=1e-9)
    # By hand: on logarithms to base e the points are (0, 0), (1, 2), (2, 2). The slope is 1, the
    # residuals are -1/3, 2/3, -1/3, the standard error is sqrt(6/9 / 1 / 2), t is 12.706.
    growth = Growth.of(np.exp([0, 1, 2]).tolist(), np.exp([0, 2, 2]).tolist())
    assert growth.exponent == pytest.approx(1)
    assert growth.margin == pytest.approx(12.706 * 3**-0.5)
    assert str(growth) == "n^1.00 ± 7.34"
    assert str(Growth.of([1, 2], [1, 2])) == "n^1.00"
    for sizes, times in (([5], [1]), ([5, 5], [1, 2]), ([0, 1], [1, 2]), ([1, 2], [1, 0])):
        with pytest.raises(InputError, match="two sizes"):
            Growth.of(sizes, times)


def test_drawn_embeddings_are_like_those_they_are_drawn_after() -> None:
    invented = Population.invented(32)
    drawn = invented.draw(70_000, seed=3)
    assert np.array_equal(drawn, invented.draw(70_000, seed=3))
    assert not np.array_equal(drawn[:5], drawn[65_536:65_541]), "each block has a seed of its own"
    units = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    assert (units[:1000] @ units[1000:2000].T).mean() == pytest.approx(0.8, abs=0.02)
    again = Population.of(drawn).draw(70_000, seed=4)
    assert again.mean(axis=0) == pytest.approx(drawn.mean(axis=0), abs=0.002)
    assert np.cov(again.T) == pytest.approx(np.cov(drawn.T), abs=1e-3)


def test_memory_is_that_of_a_process_and_all_that_came_of_it() -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell the memory of processes")
    grandchild = "block = b'x' * 150_000_000; print(len(block), flush=True); input()"
    child = (
        "import subprocess, sys; block = b'x' * 50_000_000\n"
        f"subprocess.run([sys.executable, '-c', {grandchild!r}])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline().strip() == b"150000000"
        with watched_memory(process.pid) as peak:
            pass
        process.stdin.close()
    assert 200 < peak.proportional <= peak.resident < 300
    assert peak.samples >= 1


def test_facenet_without_its_weights_gives_numbers() -> None:
    model = inception_resnet(random_facenet_weights(), "fixed", "facenet")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 160, 160, 3)).astype(np.float32)
    first, second = np.asarray(model(pixels))
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    # Weights too small or too large would give the same for all, or nothing finite.
    assert 0.001 < np.abs(first - second).max() < 1


def test_a_contestant_says_what_it_lacks(tmp_path: Path) -> None:
    options = {"faces": 10_000_000_000}
    with pytest.raises(MissingContestantError, match="GB to build"):
        Contestant("too large", "benchmarks.scale.search_contestants", "float32", options)
    with pytest.raises(RuntimeError, match=r"broken ended abruptly:[\s\S]*KeyError"):
        Contestant("broken", "benchmarks.scale.search_contestants", "float32", {})


@pytest.mark.slow
def test_search_is_measured_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "ARRAY_BYTES", 1 << 26)
    run = ["-o", str(tmp_path), "--parts", "search", "--turns", "1"]
    assert main([*run, "--sizes", "20000", "10000", "--kinds", "float32", "int8"]) == 0
    part = measured(tmp_path, "search")
    assert [(row["kind"], row["faces"]) for row in part["rows"]] == [
        (kind, size) for size in (10_000, 20_000) for kind in ("reading", "float32", "int8")
    ]
    for row in part["rows"]:
        assert 0 < row["milliseconds"]["minimum"] <= row["milliseconds"]["median"] < 1000
    assert part["bytes_a_second"] > 1e8
    assert set(part["growth"]) == {"float32", "int8"}
    printed = capsys.readouterr().out
    assert printed.strip() == (tmp_path / "scale.md").read_text(encoding="utf-8").strip()
    assert "| 20,000 |" in printed
    for name in ("search_time.png", "search_memory.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            assert np.ptp(np.asarray(picture.convert("L"))) == 255
    # What was measured stays, and is drawn anew without measuring.
    (tmp_path / "search_time.png").unlink()
    before = (tmp_path / "scale.json").read_bytes()
    assert main(["-o", str(tmp_path), "--parts"]) == 0
    assert (tmp_path / "search_time.png").is_file()
    assert (tmp_path / "scale.json").read_bytes() == before


@pytest.mark.slow
def test_memory_is_measured_and_faster_searches_are_compared_with_the_exact_one(
    tmp_path: Path, encoder: Encoder
) -> None:
    run = [str(VERIFY_DATASET), "-o", str(tmp_path), "--parts", "memory", "recall"]
    options = ["--memory-photos", "24", "100", "--recall-sizes", "0", "500"]
    assert main([*run, *options, "--kinds", "indexed", "int8"]) == 0
    part = measured(tmp_path, "memory")
    (row,) = part["rows"]
    assert row["photos"] == 24
    assert 100 < row["peak_megabytes"] < 8_000
    assert [each["why"] for each in part["skipped"]] == ["the folder holds 24 photos only"]
    rows = measured(tmp_path, "recall")["rows"]
    assert [(row["kind"], row["faces"]) for row in rows] == [
        (kind, faces) for faces in (12, 500) for kind in ("float32", "indexed", "int8")
    ]
    for row in rows:
        assert row["probes"] == row["probes_of_enrolled"] == 12
        assert 0 < row["milliseconds"]["minimum"] <= row["milliseconds"]["median"]
        assert row["same_person_share"] == 1 or row["kind"] == "int8"
        # The invented people are far apart; those drawn come between them.
        assert row["right_person_share_of_enrolled"] == 1 or row["faces"] == 500


@pytest.mark.slow
def test_encoding_is_measured(tmp_path: Path) -> None:
    options = ["--encoders", "vgg_embedding", "--engines", "tensorflow", "nonsense"]
    run = ["-o", str(tmp_path), "--parts", "encoding", "--turns", "1", "--batches", "1", "4"]
    assert main([*run, *options]) == 0
    part = measured(tmp_path, "encoding")
    assert [(row["engine"], row["batch"]) for row in part["rows"]] == [
        ("tensorflow", 1),
        ("tensorflow", 4),
    ]
    assert not any(row["random_weights"] for row in part["rows"])
    assert [each["what"] for each in part["skipped"]] == ["vgg_embedding on nonsense"]


@pytest.mark.slow
def test_enrolment_is_measured_beside_whoever_is_installed(
    tmp_path: Path, encoder: Encoder
) -> None:
    options = ["--rivals", "face_recognition", "--enrolled", "24", "--turns", "1"]
    assert main([str(VERIFY_DATASET), "-o", str(tmp_path), "--parts", "enrolment", *options]) == 0
    part = measured(tmp_path, "enrolment")
    ours, single = part["rows"][:2]
    assert single["ratio_to_single"] == 1
    assert single["is_ours"] and ours["is_ours"]
    assert (ours["contestant"], ours["photos"], ours["faces"]) == ("face_encode", 24, 24)
    assert ours["ratio"] == 1
    others = [row["contestant"] for row in part["rows"][2:]]
    others += [each["what"] for each in part["skipped"] if "pip install" in each["why"]]
    assert others == ["face_recognition"]


@pytest.mark.slow
def test_ways_of_searching_without_room_beside_each_other_are_measured_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_now: list[str] = []

    class NeedsAllMemory(Contestant):
        def __init__(self, name: str, module: str, kind: str, options: dict[str, Any]) -> None:
            if kind != "reading" and open_now:
                raise MissingContestantError(f"no room beside {open_now[0]}")
            super().__init__(name, module, kind, options)
            open_now.extend([kind] * (kind != "reading"))

        def close(self) -> None:
            super().close()
            open_now.clear()

    monkeypatch.setattr(search, "Contestant", NeedsAllMemory)
    skipped: list[Skipped] = []
    found = search.measure_search([1_000], ["float32", "indexed", "int8"], 1, skipped)
    kinds = [row["kind"] for row in found["rows"]]
    assert kinds == ["reading", "float32", "indexed", "int8"]
    assert not skipped


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--parts", "enrolment"], "takes a PHOTO_DIR"),
        (["--parts", "nonsense"], "invalid choice"),
        (["--kinds", "nonsense"], "invalid choice"),
    ],
)
def test_wrong_options_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit):
        main(["-o", str(tmp_path), *options])
    assert said in capsys.readouterr().err


def test_nothing_is_drawn_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", str(tmp_path), "--parts"]) == 1
    assert "nothing was measured" in capsys.readouterr().err
    (tmp_path / "scale.json").write_text(json.dumps(["no", "numbers"]))
    assert main(["-o", str(tmp_path), "--parts"]) == 1
    assert "holds no numbers" in capsys.readouterr().err
