from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from face_encode.progress import tracked


def test_items_pass_through_and_the_bar_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(tracked(iter("abc"), 3, "Working")) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Working" in captured.err
    assert "3/3" in captured.err


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(iter("abc"), 3, "Working", show=False)) == ["a", "b", "c"]
    assert list(tracked(iter(""), 0, "Working")) == []
    assert capsys.readouterr() == ("", "")


def test_the_rate_is_that_of_the_whole_also_where_items_come_in_batches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def batches() -> Iterator[int]:
        time.sleep(0.5)
        yield from range(20)

    list(tracked(batches(), 20, "Working"))
    (rate,) = re.findall(r"([\d.]+)/s", capsys.readouterr().err.splitlines()[-1])
    assert 10 < float(rate) <= 40


def test_the_time_left_is_that_of_the_whole_also_where_items_come_in_batches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    def batches() -> Iterator[int]:
        time.sleep(0.5)
        yield from range(20)
        time.sleep(0.5)

    list(tracked(batches(), 420, "Working", done=200))
    frames = re.findall(r"220/420.*?(\d):(\d\d):(\d\d) left", capsys.readouterr().err)
    assert frames
    # 20 in half a second, and 200 to come: at the end of the second half, ten seconds.
    hours, minutes, seconds = map(int, frames[-1])
    assert (hours, minutes) == (0, 0)
    assert 5 <= seconds <= 20
