"""Worker processes: started clean, one core each, bounded, ended with their parent; prefetching."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from face_encode.errors import FaceEncodeError
from face_encode.forking import never_destroy
from face_encode.types import check_count

if TYPE_CHECKING:
    import loky

Item = TypeVar("Item")
Result = TypeVar("Result")

# A worker takes one core: libraries that would each start as many threads as there are cores
# only get into each other's way.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# Below this many photos, starting processes takes longer than they save.
ENOUGH_FOR_WORKERS = 200
# Items that travel to a worker together: enough to hide the trip, few enough that the first results
# come soon and no worker is left with much when the others are done.
_CHUNK = 8
# Chunks for each worker that wait for it, or are done and wait to be taken.
_CHUNKS_AHEAD = 4
# A worker without work ends after this time.
_IDLE_SECONDS = 60
# How often a worker looks whether its parent still lives.
_LOOK_SECONDS = 1.0


def workers_for(workers: int | None, photos: Iterable[Item]) -> tuple[int, Iterable[Item]]:
    """The number of processes for some photos, as many as cores or 1 for few; and the photos.

    In a daemonic process, which may not start others, it is 1 whatever was asked for.

    Photos without a length are counted by looking ahead, so all of them are given back.

    The encoder takes part of the cores too. But workers wait whenever they are far enough ahead,
    so that the cores need not be shared out beforehand: how they are best shared depends on the
    size of the photos.

    Raises:
        InputError: ``workers``, which None leaves to this function, is no whole number from 1 on.
    """
    if workers is not None:
        check_count(workers, "workers")
    if multiprocessing.current_process().daemon:
        return 1, photos  # such a process may not start others
    if workers is not None:
        return workers, photos
    if isinstance(photos, Sized):
        count = len(photos)
    else:
        rest = iter(photos)
        first = list(itertools.islice(rest, ENOUGH_FOR_WORKERS))
        count, photos = len(first), itertools.chain(first, rest)
    if count < ENOUGH_FOR_WORKERS:
        return 1, photos
    import loky

    return int(loky.cpu_count()), photos


def in_processes(
    work: Callable[[list[Item]], list[Result]], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Let workers do something with many items, which are taken a bounded number ahead.

    Args:
        work: From a list of items to as many results; it travels to the workers.
        items: The items.
        workers: The number of processes.

    Returns:
        The results in the order of the items; they may be taken in another thread. Taking them
        raises a FaceEncodeError where a worker has died.
    """
    # loky starts clean processes: forking one in which TensorFlow runs can deadlock, and the
    # standard library's clean start would run the user's own script again in each.
    import loky

    # Here and not where the items are taken: loky keeps workers for further calls from the same
    # thread only.
    _forget_those_of_the_parent()
    executor = loky.get_reusable_executor(
        max_workers=workers,
        timeout=_IDLE_SECONDS,
        initializer=end_with,
        initargs=(os.getpid(),),
        env=ONE_THREAD,
    )
    _end_with_this_child(executor)
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = ""  # deleted
    there = partial(_in_folder, folder, work)
    return _results(executor, there, iter(items), _CHUNKS_AHEAD * workers)


_executor_process: int | None = None
_ending: WeakSet[Any] = WeakSet()


def _forget_those_of_the_parent() -> None:
    """Let loky start workers of this process's own, if it is forked from one that had some."""
    global _executor_process
    if _executor_process not in (None, os.getpid()):
        from loky import reusable_executor

        storage = reusable_executor._executor_storage
        if getattr(storage, "executor", None) is not None:
            # Its end would be that of the parent's workers.
            never_destroy(storage.executor)
            storage.executor = None
    _executor_process = os.getpid()


def _end_with_this_child(executor: loky.ProcessPoolExecutor) -> None:
    """End the workers with this process, if ``multiprocessing`` started it.

    It would wait for all its children at its end, and so for workers that nobody gives work to.
    """
    if multiprocessing.parent_process() is not None and executor not in _ending:
        _ending.add(executor)
        end = {"wait": True, "kill_workers": True}
        Finalize(None, executor.shutdown, kwargs=end, exitpriority=100)


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
    """End this process when its parent, by the number of that process, is gone.

    Without this, a worker whose parent was killed would wait without end for a result to be taken.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="face_encode parent watch").start()


@contextmanager
def limited_memory(more_bytes: int) -> Iterator[None]:
    """Let this process take at most this much more memory inside the block, on Linux.

    What asks for more gets a ``MemoryError``, as on a machine without it.
    """
    former = None
    with suppress(ImportError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        former = resource.getrlimit(resource.RLIMIT_AS)
        bound = pages * resource.getpagesize() + more_bytes
        if former[0] == resource.RLIM_INFINITY or bound < former[0]:
            resource.setrlimit(resource.RLIMIT_AS, (bound, former[1]))
    try:
        yield
    finally:
        if former is not None:
            resource.setrlimit(resource.RLIMIT_AS, former)


# How often a thread that waits for its caller looks whether the caller still wants anything.
_PREFETCHING_LOOK_SECONDS = 0.1
# How long a caller that gives up waits for the thread to notice.
_PATIENCE_SECONDS = 10


class _End:
    """The mark behind the last item."""


def prefetched(
    items: Iterator[Item],
    depth: int,
    *,
    while_waiting: Callable[[float], None] | None = None,
    look_seconds: float = 10.0,
) -> Generator[Item, None, None]:
    """Take items in a thread of its own, ahead of the caller.

    Args:
        items: Taken, and closed where it can be closed, in that thread alone.
        depth: At most this many items wait; then the thread waits.
        while_waiting: Called now and then with the seconds for which no item has come; an error
            that it raises ends the waiting.
        look_seconds: The time before, and between, such calls.

    Returns:
        The same items in the same order; an error of taking one is raised here. Where the caller
        stops early, the thread stops as soon as it has the item that it is at.
    """
    waiting: queue.Queue[Item | BaseException | type[_End]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(outcome: Item | BaseException | type[_End]) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(outcome, timeout=_PREFETCHING_LOOK_SECONDS)
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
        # Whatever it is, the caller has to get it, or would wait without end.
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
