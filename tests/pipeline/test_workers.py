from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from face_encode.errors import FaceEncodeError, InputError
from face_encode.pipeline.workers import (
    in_processes,
    prefetched,
    workers_for,
)
from tests.conftest import REPOSITORY


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
    cores, _ = workers_for(None, range(1000))
    assert cores >= 1
    for photos in (range(199), iter(range(199))):
        count, all_of_them = workers_for(None, photos)
        assert count == 1 and list(all_of_them) == list(range(199))
    for photos in (range(200), iter(range(200))):
        count, all_of_them = workers_for(None, photos)
        assert count == cores and list(all_of_them) == list(range(200))
    assert workers_for(3, range(10)) == (3, range(10))
    with pytest.raises(InputError, match="workers is a whole number"):
        workers_for(0, range(1000))


def counting(taken: list[int], closed: list[str], count: int = 100) -> Iterator[int]:
    try:
        for number in range(count):
            taken.append(number)
            yield number
    finally:
        closed.append(threading.current_thread().name)


def test_items_come_in_their_order_from_a_thread_that_ends() -> None:
    taken: list[int] = []
    closed: list[str] = []
    before = threading.active_count()
    assert list(prefetched(counting(taken, closed), 3)) == list(range(100))
    assert closed == ["face_encode prefetching"]
    assert threading.active_count() == before


def test_no_more_items_are_taken_ahead_than_allowed() -> None:
    taken: list[int] = []
    items = prefetched(counting(taken, []), 3)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(taken) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    # One in hand here, three that wait, one in the hand of the thread.
    assert taken == [0, 1, 2, 3, 4]
    items.close()


def test_whoever_stops_early_stops_the_thread_which_closes_the_source() -> None:
    closed: list[str] = []
    before = threading.active_count()
    for number in prefetched(counting([], closed), 3):
        if number == 10:
            break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert closed == ["face_encode prefetching"]


def test_what_goes_wrong_in_the_thread_is_raised_behind_what_came_before() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    items = prefetched(failing(), 3)
    assert next(items) == 1
    with pytest.raises(KeyError, match="gone"):
        next(items)


def test_whoever_waits_too_long_may_end_it() -> None:
    release = threading.Event()
    waited: list[float] = []

    def slow() -> Iterator[int]:
        yield 1
        release.wait(5)

    def watch(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            release.set()
            raise TimeoutError

    items = prefetched(slow(), 1, while_waiting=watch, look_seconds=0.02)
    assert next(items) == 1
    with pytest.raises(TimeoutError):
        next(items)
    assert waited == sorted(waited) and waited[0] >= 0.02


FROM_A_FORKED_PROCESS = """
import multiprocessing, sys
from face_encode.pipeline.workers import in_processes, workers_for
from tests.pipeline.test_workers import squares
daemon, parent_has_some = sys.argv[1] == "daemon", sys.argv[2] == "some"
def work(results):
    workers, items = workers_for(2, range(300))
    found = squares(items) if workers == 1 else list(in_processes(squares, items, workers))
    results.put((workers, workers_for(None, range(300))[0] > 1, sum(found)))
if parent_has_some:
    assert list(in_processes(squares, range(3), 2)) == [0, 1, 4]
context = multiprocessing.get_context("fork")
results = context.SimpleQueue()
process = context.Process(target=work, args=(results,), daemon=daemon)
process.start()
print(*results.get())
process.join()
assert process.exitcode == 0
assert not parent_has_some or list(in_processes(squares, range(3), 2)) == [0, 1, 4]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.parametrize(
    ("arguments", "workers"),
    [(("daemon", "none"), 1), (("no daemon", "none"), 2), (("no daemon", "some"), 2)],
)
def test_a_forked_process_has_workers_of_its_own_and_a_daemon_works_alone(
    arguments: tuple[str, str], workers: int
) -> None:
    command = [sys.executable, "-c", FROM_A_FORKED_PROCESS, *arguments]
    # Sooner than idle workers end by themselves.
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=55, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
    told, more_than_one, total = done.stdout.split()
    assert int(told) == workers and int(total) == sum(number * number for number in range(300))
    if workers == 1:
        assert more_than_one == "False"
