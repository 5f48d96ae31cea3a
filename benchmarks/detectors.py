"""Measure every detector: time, faces found, faces missed, boxes drawn where no face is.

Takes photos of one person each, the face in the middle, as LFW has them, and if wanted photos of
groups with a list of the faces in them, counted by eye::

    python -m benchmarks.detectors LFW_DIR --groups GROUPS_DIR --faces faces.csv

``faces.csv`` has the columns ``photo``, ``x`` and ``y``: a file's name, and in pixels a point
between the eyes of each face in it.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from face_encode.cli.options import positive, print_table
from face_encode.detectors.base import Detector
from face_encode.detectors.registry import KNOWN_DETECTORS, load_detector
from face_encode.errors import FaceEncodeError, InputError
from face_encode.photos.folders import photos_in
from face_encode.photos.reading import read_image
from face_encode.types import Face, ImageArray

Point = tuple[float, float]


@dataclass
class Tally:
    """What one detector did.

    Attributes:
        seconds: Wall-clock time of each photo of one person.
        processor_seconds: Time of the processor, all cores together.
        found: Photos of one person where a box holds the middle.
        largest: Photos where the largest box does.
        group_found: Marked faces of the groups that a box holds.
        group_wrong: Boxes on groups that hold no marked face, or one that has a box already.
    """

    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    found: int = 0
    largest: int = 0
    group_found: int = 0
    group_wrong: int = 0


def holds(face: Face, point: Point) -> bool:
    """Whether the face's box holds the point."""
    x, y = point
    box = face.box
    return box.left <= x < box.left + box.width and box.top <= y < box.top + box.height


def count_group(faces: Sequence[Face], marks: Sequence[Point]) -> tuple[int, int]:
    """How many marked faces have a box, and how many boxes have no face of their own."""
    waiting = list(marks)
    wrong = 0
    for face in faces:
        held = [point for point in waiting if holds(face, point)]
        if held:
            waiting.remove(held[0])
        else:
            wrong += 1
    return len(marks) - len(waiting), wrong


def read_marks(path: Path) -> dict[str, list[Point]]:
    """Photo's name -> the faces marked in it.

    Raises:
        InputError: The file cannot be read, or has other columns.
    """
    marks: dict[str, list[Point]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                marks.setdefault(row["photo"], []).append((float(row["x"]), float(row["y"])))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is a CSV with the columns photo, x and y: {error!r}") from error
    return marks


def measure(
    detectors: Mapping[str, Detector],
    photos: Sequence[Path],
    groups: Mapping[Path, Sequence[Point]],
) -> dict[str, Tally]:
    """Let every detector look at every photo, one after the other at each photo."""
    tallies = {name: Tally() for name in detectors}
    warm_up = read_image(photos[0])
    for detector in detectors.values():
        detector.detect(warm_up)
    for path in photos:
        image = read_image(path)
        middle = (image.shape[1] / 2, image.shape[0] / 2)
        for name, detector in detectors.items():
            faces = _timed(detector, image, tallies[name])
            tallies[name].found += any(holds(face, middle) for face in faces)
            tallies[name].largest += bool(faces) and holds(faces[0], middle)
    for path, marks in groups.items():
        image = read_image(path)
        for name, detector in detectors.items():
            found, wrong = count_group(detector.detect(image), marks)
            tallies[name].group_found += found
            tallies[name].group_wrong += wrong
    return tallies


def _timed(detector: Detector, image: ImageArray, tally: Tally) -> list[Face]:
    """Detect, and note the times."""
    wall, processor = time.perf_counter(), time.process_time()
    faces = detector.detect(image)
    tally.seconds.append(time.perf_counter() - wall)
    tally.processor_seconds.append(time.process_time() - processor)
    return faces


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", metavar="LFW_DIR", type=Path, help="one sub-folder a person")
    parser.add_argument("--count", type=positive, default=200, help="photos taken (default: 200)")
    parser.add_argument("--groups", metavar="DIR", type=Path, help="photos of groups")
    parser.add_argument("--faces", metavar="FACES.csv", type=Path, help="the faces in them")
    parser.add_argument("--detectors", nargs="+", default=list(KNOWN_DETECTORS), metavar="NAME")
    options = parser.parse_args(arguments)
    if (options.groups is None) != (options.faces is None):
        parser.error("--groups and --faces go together")
    try:
        photos = sorted(
            photo for person in options.photos.glob("*/") for photo in photos_in(person)
        )
        if not photos:
            raise InputError(f"no photos in sub-folders of {options.photos}")
        random.Random(0).shuffle(photos)
        marks = {} if options.faces is None else read_marks(options.faces)
        groups = {options.groups / name: points for name, points in marks.items()}
        detectors = {name: load_detector(name) for name in options.detectors}
        tallies = measure(detectors, photos[: options.count], groups)
    except FaceEncodeError as error:
        print(error, file=sys.stderr)
        return 1
    total = sum(map(len, groups.values()))
    fastest = min(median(tally.processor_seconds) for tally in tallies.values())
    rows = [
        [
            name,
            f"{1000 * median(tally.seconds):.0f}",
            f"{1000 * median(tally.processor_seconds):.0f}",
            f"{median(tally.processor_seconds) / fastest:.1f}",
            f"{100 * tally.found / len(tally.seconds):.1f} %",
            f"{100 * tally.largest / len(tally.seconds):.1f} %",
            f"{tally.group_found} of {total}" if total else "",
            str(tally.group_wrong) if total else "",
        ]
        for name, tally in tallies.items()
    ]
    print_table(
        ["detector", "ms", "processor ms", "ratio", "found", "largest", "groups", "wrong"], rows
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
