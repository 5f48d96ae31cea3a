"""A progress bar for long work, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

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
        for item in items:
            yield item
            bar.advance(task)


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
