"""The machine: what it is, how busy, and the memory of processes (of these Linux only)."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# A page that two processes share counts half for each of them in the proportional set size, so
# that the sum over processes is what the machine gives; the resident sizes count it twice.
_PROPORTIONAL = "Pss:"
# Adding up a process's pages takes the kernel some milliseconds.
_SAMPLE_SECONDS = 0.25


def describe_machine(packages: Sequence[str] = ()) -> dict[str, str]:
    """Processor, cores, memory and versions, without which a time says nothing.

    Args:
        packages: Whose versions count beside those of every measurement.
    """
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    described = {
        "date": date.today().isoformat(),
        "processor": f"{processor}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }
    usual = ("tensorflow", "keras", "numpy", "dlib", "dlib-bin", "face_recognition")
    for package in (*usual, *packages):
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            continue
    return described


def load_average() -> str:
    """Processes that wanted a core over the last minute, where the system tells."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def available_bytes() -> int | None:
    """Memory that can be taken without anything being swapped out; None where unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return sizes[0] * 1024 if sizes else None


def family(process: int) -> dict[int, list[str]]:
    """A process and all that it started, and all that those did.

    Returns:
        Process -> the fields of ``/proc/PID/stat`` from the state on.
    """
    fields: dict[int, list[str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
    found: dict[int, list[str]] = {}
    newest = [process]
    while newest:
        found.update({each: fields[each] for each in newest if each in fields})
        newest = [each for each, values in fields.items() if int(values[1]) in newest]
    return found


def resident_megabytes(process: int) -> float:
    """Memory of a process and of all that it started; what they share counts for each."""
    pages = sum(int(fields[21]) for fields in family(process).values())
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def proportional_megabytes(process: int) -> float:
    """Memory of a process and of all that it started; what they share counts once."""
    total = 0
    for each in family(process):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(_PROPORTIONAL))
    return total * 1024 / 1_000_000


def processor_seconds(process: int) -> float:
    """Time that a process and all that it started have computed."""
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in family(process).values())
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass
class PeakMemory:
    """The most memory that was seen.

    Attributes:
        proportional: Megabytes of all processes together; what they share counts once.
        resident: The same, what they share counting for each.
        samples: How often it was looked at.
    """

    proportional: float = 0.0
    resident: float = 0.0
    samples: int = 0


@contextmanager
def watched_memory(process: int) -> Iterator[PeakMemory]:
    """Watch the memory of a process and of all that it starts, four times a second."""
    peak, stop = PeakMemory(), threading.Event()

    def watch() -> None:
        while True:
            peak.proportional = max(peak.proportional, proportional_megabytes(process))
            peak.resident = max(peak.resident, resident_megabytes(process))
            peak.samples += 1
            if stop.wait(_SAMPLE_SECONDS):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()
