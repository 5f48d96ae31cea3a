from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from face_encode.pipeline.workers import prefetched


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
