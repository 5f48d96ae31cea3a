"""A progress bar for long work, on standard error."""

from __future__ import annotations

import argparse
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from face_encode.errors import FaceEncodeError

Item = TypeVar("Item")


def tracked(
    items: Iterable[Item], total: int, description: str, *, show: bool = True, done: int = 0
) -> Iterator[Item]:
    """Pass items on, and show how many of them there were, how fast, and the time left.

    Args:
        items: Whatever is worked on.
        total: How many there will be.
        description: What is being done.
        show: False for silence.
        done: How many of the total were done before.
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

    # By the mean rate of the whole run, here and for the time left: by the time between two
    # items, as rich reckons, items that come in batches would seem to come in no time.
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
    """Show how many bytes have come, how fast, and the time left.

    Gives a function that takes the number of bytes that have just come.

    Args:
        total: How many there will be; None where that is not known.
        start: How many were there before.
        description: What is coming.
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


# A terminal gets the first so many rows of a long list; JSON gets all.
ROWS_SHOWN = 20

_DETECTOR_HELP = (
    "what finds the faces: dlib (the default), haar, mtcnn … as face-encode models lists"
)


def exit_code_of(action: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Run a program's work, and tell its errors as a program does.

    Args:
        action: What to do; gives the exit code.
        interrupted: What to say after Ctrl-C.

    Returns:
        What the action gave; 1 for an error of ours, told in one line on standard error; 130
        after Ctrl-C.
    """
    # TensorFlow writes pages of notices to standard error; this is a program, not a library, so
    # it may say so for the whole process.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return action()
    except FaceEncodeError as error:
        print(f"face-encode: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"face-encode: {interrupted}", file=sys.stderr)
        return 130


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_encoder_option(parser: argparse._ActionsContainer) -> None:
    """``--model``, and ``--encoder-engine``, what runs it."""
    parser.add_argument("--model", metavar="MODEL", help="a known encoder or a .keras file")
    parser.add_argument(
        "--encoder-engine",
        default="auto",
        metavar="NAME",
        help="what runs the encoder: tensorflow (Keras itself), onnx, openvino, or auto, the "
        "fastest that is installed and gives the same (the default)",
    )


def add_detector_option(
    parser: argparse._ActionsContainer,
    help_text: str = _DETECTOR_HELP,
) -> None:
    """``--detector``."""
    parser.add_argument("--detector", metavar="NAME", help=help_text)


def add_threshold_option(parser: argparse._ActionsContainer) -> None:
    """``--threshold``."""
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="cosine similarity from which two faces count as one person",
    )


def add_work_options(parser: argparse._ActionsContainer) -> None:
    """``--workers``, ``--batch-size`` and ``--restart``, of commands that go on after a kill."""
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="processes that read photos and find faces (default: one a core, for few photos none)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="faces that go through the encoder together (default: 32)",
    )
    parser.add_argument(
        "--restart", action="store_true", help="begin anew where an interrupted run could go on"
    )


@contextmanager
def telling_of_resumption() -> Iterator[None]:
    """Say at Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print("face-encode: the same command goes on from here", file=sys.stderr)
        raise


def positive(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number, at least 1, not {text!r}")
    return number


def printable(text: str) -> str:
    """A text in one line, with control characters, which steer a terminal, spelt out."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        else character
        for character in text
    )


@contextmanager
def without_native_notices() -> Iterator[None]:
    """Keep what native code writes to standard error off it; Python's errors pass as ever.

    TensorFlow 2.21 greets with four lines that none of its own switches turns off.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def import_keras() -> None:
    """Import Keras; quietly where TensorFlow was asked to be quiet, as in our own program."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3" and "keras" not in sys.modules:
        import_keras_quietly()


def import_keras_quietly() -> None:
    """Import Keras, and with it TensorFlow or whatever it runs on, without their greetings."""
    with without_native_notices():
        import keras  # noqa: F401


def print_json(value: Any) -> None:
    """JSON on standard output, alone, with letters of any script as they are."""
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    print(json.dumps(value, indent=2, ensure_ascii=ascii_only))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; whole lines into a pipe, as wide as the terminal on one."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=SIMPLE_HEAD)
    for row in rows:
        # Text, because a name with square brackets in it is no markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    wide = None if sys.stdout.isatty() else 400
    Console(width=wide, soft_wrap=False).print(table)
