"""The terminal: progress bars on standard error, exit codes, and native code kept quiet."""

from __future__ import annotations

import os
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TextIO, TypeVar

from face_encode.errors import FaceEncodeError
from face_encode.forking import use_keras

Item = TypeVar("Item")

# Libraries of the system that opencv-python takes, and Debian's packages of them.
_SYSTEM_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
}


def with_progress(
    items: Iterable[Item], total: int, description: str, *, show: bool = True, done: int = 0
) -> Iterator[Item]:
    """Pass items on behind a progress bar: count, rate and time left.

    Args:
        items: The items, passed on one by one.
        total: Number of items.
        description: The words beside the bar.
        show: False for silence.
        done: Items of the total that an earlier run did.
    """
    if not show or total == 0:
        yield from items
        return
    with progress_bar(total, description, done=done) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def progress_bar(total: int, description: str, *, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how many items are done, how fast, and the time left.

    Gives a function that takes the number of items that have just been done.

    Args:
        total: How many there will be.
        description: What is being done.
        done: How many of the total were done before.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
    )
    from rich.text import Text

    # The mean rate of the whole run. Rich takes the time between two items, which is close to zero
    # for items that come in batches.
    def mean_rate(task: Task) -> float:
        return (task.completed - done) / task.elapsed if task.elapsed else 0.0

    class Rate(ProgressColumn):
        """Items a second."""

        def render(self, task: Task) -> Text:
            """The mean rate, empty before the first item."""
            rate = mean_rate(task)
            text = f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
            return Text(text if rate else "", style="progress.data.speed")

    class TimeLeft(ProgressColumn):
        """Hours, minutes and seconds."""

        def render(self, task: Task) -> Text:
            """The time left at the mean rate, unknown before the first item."""
            rate = mean_rate(task)
            left = "-:--:--" if not rate else timedelta(seconds=round((task.remaining or 0) / rate))
            return Text(f"{left} left", style="progress.remaining")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeLeft(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


@contextmanager
def counted_bytes(
    total: int | None, start: int, description: str, *, show: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for a download.

    Yields a function that is called with the size of each block, in bytes.

    Args:
        total: Size in bytes; None where it is not known.
        start: Bytes that were there before.
        description: The words beside the bar.
        show: False for silence.
    """
    if not show:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, completed=start)
        yield lambda count: bar.advance(task, count)


def exit_code_of(action: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Run a program's work and turn its errors into an exit code.

    Args:
        action: The work; returns the exit code.
        interrupted: The message after Ctrl-C.

    Returns:
        The action's exit code; 1 for an error of this package, printed in one line on standard
        error; 130 after Ctrl-C.
    """
    # TensorFlow writes pages of notices to standard error. This is a program, not a library, so it
    # may set a variable for the whole process.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return action()
    except FaceEncodeError as error:
        print(f"face-encode: {printable(str(error))}", file=sys.stderr)
        return 1
    except ImportError as error:
        # A library of the system, of which pip knows nothing.
        missing = next((each for each in _SYSTEM_LIBRARIES if each in str(error)), None)
        if missing is None:
            raise
        print(
            f"face-encode: OpenCV needs {missing}, which this system lacks: install "
            f"{_SYSTEM_LIBRARIES[missing]} (apt-get install libgl1 libglib2.0-0), or replace "
            "OpenCV: pip uninstall opencv-python, then pip install opencv-python-headless",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"face-encode: {interrupted}", file=sys.stderr)
        return 130


def printable(text: str) -> str:
    """Escape the characters of a text that could steer a terminal, or show nothing.

    These are control characters and marks of the direction of writing; joiners, with which Persian,
    Hindi and emoji are written, stay.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        and character not in "\u200c\u200d"
        else character
        for character in text
    )


def print_line(text: str, file: TextIO | None = None) -> None:
    """Print a line in one piece, so that those of other threads and processes stay apart.

    Args:
        text: The line; see ``printable``.
        file: Standard output if it is None.
    """
    # Where output is not buffered, ``print`` writes an end of its own apart.
    print(f"{printable(text)}\n", end="", file=file, flush=True)


def print_notice(text: str) -> None:
    """Print a line for people on standard error, beside what the command gives."""
    print_line(f"face-encode: {text}", sys.stderr)


def print_safely(text: object) -> None:
    """Print lines that may hold names from outside; see ``printable``."""
    print("\n".join(map(printable, str(text).split("\n"))))


_SILENCING = threading.RLock()


@contextmanager
def without_native_notices() -> Iterator[None]:
    """Silence native code on standard error; Python's exceptions pass.

    TensorFlow 2.21 prints four lines that none of its own switches turns off. One thread at a time:
    of two at once, the last would restore what the first had silenced.
    """
    with _SILENCING:
        # Without standard error, as in a service, there is nothing to silence.
        kept = None
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()
            # Without it, 2 may be any file that was opened since.
            kept = os.dup(2)
        try:
            if kept is not None:
                with open(os.devnull, "wb") as nothing:
                    os.dup2(nothing.fileno(), 2)
            yield
        finally:
            if kept is not None:
                os.dup2(kept, 2)
                os.close(kept)


def import_keras() -> None:
    """Import Keras, quietly where ``TF_CPP_MIN_LOG_LEVEL`` asks for that.

    Raises:
        EngineError: This process is forked from one that used Keras.
    """
    use_keras()
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3" and "keras" not in sys.modules:
        import_keras_quietly()


def import_keras_quietly() -> None:
    """Import Keras and its backend without the notices that they print."""
    with without_native_notices():
        import keras  # noqa: F401


def import_onnx_runtime() -> Any:
    """Import ONNX Runtime, which is to tell nobody that, and where, it is used.

    From 1.32 on it writes a number for the machine to disk and reports to Microsoft as soon as it
    is imported; only the environment keeps it from that. ``ORT_DISABLE_TELEMETRY=0`` allows it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    # Of releases that do not know the variable, and on Windows.
    if os.environ["ORT_DISABLE_TELEMETRY"] != "0":
        onnxruntime.disable_telemetry_events()
    return onnxruntime
