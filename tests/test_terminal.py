from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from face_encode.terminal import (
    exit_code_of,
    print_safely,
    printable,
    with_progress,
    without_native_notices,
)


def test_items_pass_through_and_the_bar_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(with_progress(iter("abc"), 3, "Working")) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Working" in captured.err
    assert "3/3" in captured.err


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress(iter("abc"), 3, "Working", show=False)) == ["a", "b", "c"]
    assert list(with_progress(iter(""), 0, "Working")) == []
    assert capsys.readouterr() == ("", "")


def test_the_rate_is_that_of_the_whole_also_where_items_come_in_batches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def batches() -> Iterator[int]:
        time.sleep(0.5)
        yield from range(20)

    start = time.perf_counter()
    list(with_progress(batches(), 20, "Working"))
    took = time.perf_counter() - start
    (rate,) = re.findall(r"([\d.]+)/s", capsys.readouterr().err.splitlines()[-1])
    assert 0.9 * 20 / took < float(rate) <= 40


def test_the_time_left_is_that_of_the_whole_also_where_items_come_in_batches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    def batches() -> Iterator[int]:
        time.sleep(0.5)
        yield from range(20)
        time.sleep(0.5)

    start = time.perf_counter()
    list(with_progress(batches(), 420, "Working", done=200))
    took = time.perf_counter() - start
    frames = re.findall(r"220/420.*?(\d):(\d\d):(\d\d) left", capsys.readouterr().err)
    assert frames
    # 20 in so much time, and 200 to come; the last frame may be drawn a little before the end.
    hours, minutes, seconds = map(int, frames[-1])
    assert 5 <= 3600 * hours + 60 * minutes + seconds <= 10 * took + 1


@pytest.mark.parametrize("mark", ["\u200e", "\u202e", "\u061c", "\u200b", "\x1b", "\u2028"])
def test_what_is_printed_neither_steers_a_terminal_nor_hides(
    mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_safely(f"Ada{mark}\nBo")
    out = capsys.readouterr().out
    assert mark not in out and out.splitlines()[1] == "Bo"
    assert printable("می\u200cخواهم 👩🏽\u200d🚀") == "می\u200cخواهم 👩🏽\u200d🚀"


@pytest.mark.parametrize(
    ("library", "package"),
    [("libGL.so.1", "libgl1"), ("libgthread-2.0.so.0", "libglib2.0-0")],
)
def test_a_library_of_the_system_that_opencv_lacks_is_named_with_its_package(
    library: str, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise ImportError(f"{library}: cannot open shared object file: No such file or directory")

    assert exit_code_of(work) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"OpenCV needs {library}" in line and f"install {package}" in line
    assert "opencv-python-headless" in line


@pytest.mark.parametrize("missing", ["sys.stderr", "its file"])
def test_without_standard_error_work_goes_on(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(number: int) -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(
        *((sys, "stderr", None) if missing == "sys.stderr" else (os, "dup", closed))
    )
    with without_native_notices():
        done = True
    assert done


def test_another_import_that_fails_is_not_hidden() -> None:
    def work() -> int:
        raise ImportError("No module named 'nothing'")

    with pytest.raises(ImportError, match="nothing"):
        exit_code_of(work)


def test_onnx_runtime_tells_nobody_that_it_is_used(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    work = "from face_encode.terminal import import_onnx_runtime; import_onnx_runtime()"
    home = {**kept, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", work], env=home, check=True, timeout=100)
    assert not list(tmp_path.rglob("deviceid*")) + list(tmp_path.rglob("*.db"))


def test_notices_of_several_threads_are_lines_each() -> None:
    program = """
from concurrent.futures import ThreadPoolExecutor
from face_encode.terminal import print_notice

with ThreadPoolExecutor(4) as threads:
    list(threads.map(print_notice, ["gate: away"] * 2_000))
"""
    # Programs in containers often run so.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert run.stderr.splitlines() == ["face-encode: gate: away"] * 2_000
