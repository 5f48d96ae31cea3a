from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from face_encode.errors import FaceEncodeError
from face_encode.pipeline.workers import in_processes, sensible_workers, sensible_workers_for


def squares(numbers: list[int]) -> list[int]:
    return [number * number for number in numbers]


def deadly(numbers: list[int]) -> list[int]:
    import os

    os._exit(1)


def test_results_come_in_order_and_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(500):
            taken.append(number)
            yield number

    ahead = 0
    results = []
    for result in in_processes(squares, items(), 2):
        results.append(result)
        ahead = max(ahead, len(taken) - len(results))
    assert results == [number * number for number in range(500)]
    # Four chunks of eight for each of two workers, and the one in hand.
    assert ahead <= 9 * 8


def test_a_worker_that_dies_is_told_and_the_next_call_starts_afresh() -> None:
    with pytest.raises(FaceEncodeError, match="ended abruptly"):
        list(in_processes(deadly, range(3), 2))
    assert list(in_processes(squares, range(3), 2)) == [0, 1, 4]


def read(paths: list[str]) -> list[str]:
    return [Path(path).read_text() for path in paths]


def test_relative_paths_are_those_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "note.txt").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        assert list(in_processes(read, ["note.txt"], 2)) == [name]


def test_few_items_are_not_worth_a_process() -> None:
    assert sensible_workers(199) == 1
    assert sensible_workers(200) >= 1
    workers, items = sensible_workers_for(iter(range(10)))
    assert (workers, list(items)) == (1, list(range(10)))
    workers, items = sensible_workers_for(iter(range(1000)))
    assert (workers, list(items)) == (sensible_workers(1000), list(range(1000)))
