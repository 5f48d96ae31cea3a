"""Work that goes on ahead: a thread takes items while the caller is busy with former ones."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")

# How often a thread that waits for its caller looks whether the caller still wants anything.
_LOOK_SECONDS = 0.1
# How long a caller that gives up waits for the thread to notice.
_PATIENCE_SECONDS = 10


class _End:
    """What comes behind the last item."""


def prefetched(
    items: Iterator[Item],
    depth: int,
    *,
    while_waiting: Callable[[float], None] | None = None,
    look_seconds: float = 10.0,
) -> Generator[Item, None, None]:
    """Take items in a thread of its own, ahead of whoever goes through them.

    Args:
        items: Gone through, and closed where it can be closed, in that thread alone.
        depth: How many items wait at the most; then the thread waits.
        while_waiting: Called now and then with the seconds for which no item has come; what it
            raises ends the waiting.
        look_seconds: How long before, and between, such calls.

    Returns:
        The same items in the same order; what taking one raises is raised here. Where the caller
        stops early, the thread stops as soon as it has the item that it is at.
    """
    waiting: queue.Queue[Item | BaseException | type[_End]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(outcome: Item | BaseException | type[_End]) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(outcome, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue

    def take() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    break
            if isinstance(items, Generator):
                items.close()
        # Whatever it is, the caller has to hear of it, or would wait for ever.
        except BaseException as error:
            put(error)
        put(_End)

    def get() -> Item | BaseException | type[_End]:
        if while_waiting is None:
            return waiting.get()
        begun = time.monotonic()
        while True:
            try:
                return waiting.get(timeout=look_seconds)
            except queue.Empty:
                while_waiting(time.monotonic() - begun)

    thread = threading.Thread(target=take, daemon=True, name="face_encode prefetching")
    thread.start()
    try:
        while (outcome := get()) is not _End:
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join(_PATIENCE_SECONDS)
