"""Worker processes: started clean, one core each, and gone when whoever started them is."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from face_encode.errors import FaceEncodeError

if TYPE_CHECKING:
    import loky

Item = TypeVar("Item")
Result = TypeVar("Result")

# A worker takes one core: libraries that would each start as many threads as there are cores
# only get into each other's way.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# Below this many photos, starting processes takes longer than they save.
_ENOUGH_FOR_WORKERS = 200
# Items that travel to a worker together: enough to hide the trip, few enough that the first results
# come soon and no worker is left with much when the others are done.
_CHUNK = 8
# Chunks for each worker that wait for it, or are done and wait to be taken.
_CHUNKS_AHEAD = 4
# A worker that nobody needs ends after so long.
_IDLE_SECONDS = 60
# How often a worker looks whether its parent still lives.
_LOOK_SECONDS = 1.0


def sensible_workers(photos: int) -> int:
    """How many processes suit so many photos: as many as cores, or 1 for few.

    The encoder takes part of the cores too. But workers wait whenever they are far enough ahead, so
    that nobody has to know beforehand how the cores are best shared between the two: that depends
    on the size of the photos.
    """
    if photos < _ENOUGH_FOR_WORKERS:
        return 1
    import loky

    return int(loky.cpu_count())


def sensible_workers_for(items: Iterable[Item]) -> tuple[int, Iterable[Item]]:
    """The same for photos that are not counted yet; gives them too, the first few of them taken."""
    rest = iter(items)
    first = list(itertools.islice(rest, _ENOUGH_FOR_WORKERS))
    return sensible_workers(len(first)), itertools.chain(first, rest)


def in_processes(
    work: Callable[[list[Item]], list[Result]], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Let workers do something with many items.

    Args:
        work: From a list of items to as many results; it travels to the workers.
        items: Taken as they are needed, a bounded number ahead.
        workers: How many processes.

    Returns:
        The results in the order of the items; may be gone through in another thread.

    Raises:
        FaceEncodeError: While they are gone through: a worker died.
    """
    # loky starts clean processes: forking one in which TensorFlow runs can deadlock, and the
    # standard library's clean start would run the user's own script again in each.
    import loky

    # Here and not where the items are gone through: loky keeps workers for further calls from the
    # same thread only.
    executor = loky.get_reusable_executor(
        max_workers=workers,
        timeout=_IDLE_SECONDS,
        initializer=end_with,
        initargs=(os.getpid(),),
        env=ONE_THREAD,
    )
    there = partial(_in_folder, _current_folder(), work)
    return _results(executor, there, iter(items), _CHUNKS_AHEAD * workers)


def _results(
    executor: loky.ProcessPoolExecutor,
    work: Callable[[list[Item]], list[Result]],
    items: Iterator[Item],
    most_pending: int,
) -> Iterator[Result]:
    """Hand out chunks, a few ahead, and take the results in order."""
    import loky

    pending: deque[loky.Future] = deque()
    try:
        while chunk := list(itertools.islice(items, _CHUNK)):
            pending.append(executor.submit(work, chunk))
            if len(pending) > most_pending:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except loky.BrokenProcessPool as error:
        raise FaceEncodeError(
            "a worker process ended abruptly, most often for lack of memory; try workers=1"
        ) from error
    finally:
        for future in pending:
            future.cancel()


def _current_folder() -> str:
    """The folder that this process stands in, empty where that was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _in_folder(
    folder: str, work: Callable[[list[Item]], list[Result]], items: list[Item]
) -> list[Result]:
    """Work on items where the caller stands.

    A worker that was started for an earlier call stands where the caller stood then, and would not
    find files by their relative paths.
    """
    with suppress(OSError):
        os.chdir(folder)
    return work(items)


def end_with(parent: int) -> None:
    """End this process when the one that started it is gone, however it went.

    Without this, a worker whose parent was killed would wait for ever for it to take a result.

    Args:
        parent: The number of that process.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="face_encode parent watch").start()
