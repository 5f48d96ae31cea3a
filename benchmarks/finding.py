"""Measure what the default detector finds: small, many, cut off and turned faces, and no others.

Builds its pictures of photos of one person each, the face in the middle, as LFW has them::

    python -m benchmarks.finding LFW_DIR -o benchmarks/FINDING.md

Each photo is scaled until the face has the side wanted, as dlib's HOG detector frames it, and
pasted on grey. A face counts as found where a box has about its middle and its side; other boxes
are counted beside it: most of them are people in the background of the photos.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from face_encode.cli.options import positive
from face_encode.detectors.base import Detector
from face_encode.detectors.dlib_detector import DlibDetector
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.detectors.registry import DEFAULT_DETECTOR, KNOWN_DETECTORS, load_detector
from face_encode.encoders.registry import load_encoder
from face_encode.errors import FaceEncodeError, InputError
from face_encode.photos.folders import photos_in
from face_encode.photos.reading import read_image
from face_encode.pipeline.embedding import embed_photos
from face_encode.types import Box, Embeddings, Face, ImageArray, Photo

Row = list[str]
Middle = tuple[float, float, float]
TURNS = (0, 90, 180, 270)


@dataclass(frozen=True, eq=False)
class Portrait:
    """A photo of one person and the face in its middle."""

    path: Path
    image: ImageArray
    box: Box


def portraits_of(photos: Sequence[Path]) -> Iterator[Portrait]:
    """The photos in whose middle dlib's HOG detector finds a face."""
    for path in photos:
        image = read_image(path)
        height, width = image.shape[:2]
        for face in DlibHogDetector().detect(image):
            middle = (face.box.left + face.box.width / 2, face.box.top + face.box.height / 2)
            if abs(middle[0] / width - 0.5) < 0.1 and abs(middle[1] / height - 0.5) < 0.1:
                yield Portrait(path, image, face.box)
                break


def collage(
    portraits: Iterator[Portrait], size: tuple[int, int], columns: int, sides: Sequence[int]
) -> tuple[ImageArray, list[Middle]]:
    """Paste portraits in rows on grey; gives the middles and sides of their faces too."""
    rows = -(-len(sides) // columns)
    wide, high = size[0] // columns, size[1] // rows
    canvas = np.full((size[1], size[0], 3), 128, np.uint8)
    middles: list[Middle] = []
    for number, side in enumerate(sides):
        portrait = next(portraits)
        scale = side / portrait.box.width
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(portrait.image, None, fx=scale, fy=scale, interpolation=method)
        left = number % columns * wide + max(0, wide - small.shape[1]) // 2
        top = number // columns * high + max(0, high - small.shape[0]) // 2
        part = canvas[top : top + min(high, small.shape[0]), left : left + small.shape[1]]
        part[:] = small[: part.shape[0], : part.shape[1]]
        box = portrait.box
        x = left + (box.left + box.width / 2) * scale
        middles.append((x, top + (box.top + box.height / 2) * scale, float(side)))
    return np.asarray(canvas, np.uint8), middles


def found_of(faces: Sequence[Face], middles: Sequence[Middle]) -> int:
    """How many of the faces have a box."""
    return sum(
        any(
            abs(face.box.left + face.box.width / 2 - x) < 0.35 * side
            and abs(face.box.top + face.box.height / 2 - y) < 0.35 * side
            and 0.5 * side < max(face.box.width, face.box.height) < 2 * side
            for face in faces
        )
        for x, y, side in middles
    )


def measure_collages(detector: Detector, photos: Sequence[Path]) -> Iterator[Row]:
    """Rows of the table of collages."""
    spread = [90, 100, 110, 120, 130, 140, 150, 160, 165, 170] * 6
    for name, times, size, columns, sides in (
        ("24 faces of 40 px in 1200x800", 6, (1200, 800), 6, [40] * 24),
        ("24 faces of 45 px in 1200x800", 10, (1200, 800), 6, [45] * 24),
        ("24 faces of 60 px in 1200x800", 6, (1200, 800), 6, [60] * 24),
        ("one of 45 px beside one of 110 px, 600x300", 60, (600, 300), 2, [45, 110]),
        ("60 faces of 90 to 170 px in 6000x4000", 4, (6000, 4000), 10, spread),
        ("six faces of 100 px in 12000x2000", 4, (12_000, 2_000), 6, [100] * 6),
    ):
        portraits = portraits_of(photos)
        total = found = others = 0
        seconds = []
        for _ in range(times):
            image, middles = collage(portraits, size, columns, sides)
            start = time.process_time()
            faces = detector.detect(image)
            seconds.append(time.process_time() - start)
            hits = found_of(faces, middles)
            total, found, others = total + len(middles), found + hits, others + len(faces) - hits
        yield [name, f"{found} of {total}", str(others), f"{median(seconds):.2f} s"]


def measure_edges(detector: Detector, photos: Sequence[Path]) -> Iterator[Row]:
    """Rows of the table of faces that the photo's edge cuts off."""
    portraits = list(islice(portraits_of(photos), 60))
    for cut in (0.15, 0.3):
        row = [f"{cut:.0%} of the face"]
        for edge in ("left", "right", "top", "bottom"):
            found = 0
            for portrait in portraits:
                image, box = portrait.image, portrait.box
                gone = round(cut * box.width)
                left, top = (box.left + gone) * (edge == "left"), (box.top + gone) * (edge == "top")
                right = box.left + box.width - gone if edge == "right" else image.shape[1]
                bottom = box.top + box.height - gone if edge == "bottom" else image.shape[0]
                faces = detector.detect(image[top:bottom, left:right])
                # The middle of what is left of the face lies in a box.
                x = (max(box.left, left) + min(box.left + box.width, right)) / 2 - left
                y = (max(box.top, top) + min(box.top + box.height, bottom)) / 2 - top
                found += any(
                    0 <= x - face.box.left < face.box.width
                    and 0 <= y - face.box.top < face.box.height
                    for face in faces
                )
            row.append(f"{found} of {len(portraits)}")
        yield row


def measure_turned(detector: Detector, folder: Path, people: int) -> Iterator[Row]:
    """Rows of the table of turned photos: how many are named, and how many strangers are."""
    encoder = load_encoder()
    threshold = encoder.contract.threshold
    several = [photos for each in sorted(folder.iterdir()) if len(photos := photos_in(each)) > 1]
    random.Random(1).shuffle(several)
    chosen = several[:people]
    for rotation in TURNS:
        sets = []
        for number in range(2):
            # The enrolled photo stands upright; strangers are compared both turned.
            turned = (np.rot90(read_image(each[number]), -rotation // 90) for each in chosen)
            images: list[Photo] = [np.ascontiguousarray(image) for image in turned]
            sets.append(list(embed_photos(images, detector, encoder, workers=1)))
        if rotation == 0:
            enrolled = np.array([photo.embeddings[0] for photo in sets[0]])
        rows = [row for row, photo in enumerate(sets[1]) if photo.error is None]
        probes = np.array([sets[1][row].embeddings[0] for row in rows])
        similar = unit(probes) @ unit(enrolled).T
        named = sum(
            similar[at].argmax() == row and similar[at, row] >= threshold
            for at, row in enumerate(rows)
        )
        others = np.array([p.embeddings[0] for p in sets[0] if p.error is None])
        owners = [row for row, photo in enumerate(sets[0]) if photo.error is None]
        strangers = (unit(probes) @ unit(others).T)[np.array(rows)[:, None] != np.array(owners)]
        yield [
            f"{rotation}°",
            f"{len(rows)} of {len(chosen)}",
            f"{named} of {len(chosen)}",
            f"{(strangers >= threshold).sum()} of {strangers.size:,} "
            f"({100 * (strangers >= threshold).mean():.2f} %)",
        ]


def unit(rows: Embeddings) -> Embeddings:
    """Scale rows to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def letters(random: np.random.Generator) -> ImageArray:
    """A page of letters of many sizes."""
    signs = list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789&%@?!#   ")
    dark, light = random.integers(0, 100, 3).tolist(), random.integers(150, 256, 3).tolist()
    page = np.full((480, 640, 3), light, np.uint8)
    top = 0
    while top < 480:
        scale = float(random.uniform(0.4, 4))
        top += int(26 * scale)
        line = "".join(random.choice(signs, 60))
        thick = max(1, int(scale * random.uniform(1, 3)))
        cv2.putText(page, line, (0, top), int(random.integers(0, 8)), scale, dark, thick)
    return blurred(page, random)


def shapes(random: np.random.Generator) -> ImageArray:
    """Discs, rings, boxes and bows, on clouds."""
    picture = np.zeros((480, 640, 3))
    for octave in range(7):
        size = (480 // 2**octave + 2, 640 // 2**octave + 2, 3)
        picture += cv2.resize(random.normal(0, 1, size), (640, 480)) * 2 ** (octave * 0.8)
    picture = np.ascontiguousarray(np.clip(128 + 45 * picture / picture.std(), 0, 255))
    for _ in range(int(random.integers(0, 150))):
        colour = random.uniform(0, 255, 3).tolist()
        x, y = int(random.integers(0, 640)), int(random.integers(0, 480))
        axes = (int(random.integers(3, 70)), int(random.integers(3, 70)))
        thick = int(random.integers(-1, 6)) or 1
        if random.random() < 0.3:
            cv2.rectangle(picture, (x, y), (x + axes[0], y + axes[1]), colour, thick)
        else:
            end = float(random.choice([180, 360]))
            cv2.ellipse(picture, (x, y), axes, float(random.uniform(0, 180)), 0, end, colour, thick)
    return blurred(picture.astype(np.uint8), random)


def blurred(picture: ImageArray, random: np.random.Generator) -> ImageArray:
    """Blur half of the pictures a little."""
    sigma = float(random.uniform(-2, 2))
    return picture if sigma <= 0 else np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


def backgrounds(photos: Sequence[Path]) -> Iterator[ImageArray]:
    """Photos with everything that looks like a face painted over."""
    for path in photos:
        image = read_image(path)
        height, width = image.shape[:2]
        faint = cv2.resize(cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA), (width, height))
        mask = np.zeros((height, width), np.float32)
        searching = DlibDetector(min_score=-0.7, thorough=False, min_face=24)
        for found in (*searching.find(image), *DlibHogDetector().find(image)):
            middle = (int(found.left + found.width / 2), int(found.top + 0.45 * found.height))
            axes = (int(0.75 * found.width), int(0.9 * found.height))
            cv2.ellipse(mask, middle, axes, 0, 0, 360, 1.0, -1)
        share = cv2.GaussianBlur(mask, (0, 0), 2)[..., None]
        yield (image * (1 - share) + faint * share).astype(np.uint8)


def measure_false(
    detector: Detector, photos: Sequence[Path], count: int, sheet: Path | None
) -> Iterator[Row]:
    """Rows of the table of faces found where none is; the sheet shows each of them."""
    cuts = []
    kinds: tuple[tuple[str, Callable[[], ImageArray]], ...] = (
        ("letters", partial(letters, np.random.default_rng(7))),
        ("shapes on clouds", partial(shapes, np.random.default_rng(7))),
        ("photos with faces painted over", backgrounds(photos).__next__),
    )
    for name, make in kinds:
        boxes = 0
        for _ in range(count):
            image = make()
            for face in detector.detect(image):
                boxes += 1
                box = face.box
                cut = image[box.top : box.top + box.height, box.left : box.left + box.width]
                turned = np.ascontiguousarray(np.rot90(cut, -face.rotation // 90))
                cuts.append(cv2.resize(turned, (100, 100)))
                cv2.putText(cuts[-1], f"{face.score:.2f}", (2, 96), 0, 0.5, (255, 255, 0), 1)
        yield [name, str(count), str(boxes)]
    if sheet is not None and cuts:
        cuts += [np.zeros_like(cuts[0])] * (-len(cuts) % 10)
        rows = [np.hstack(cuts[start : start + 10]) for start in range(0, len(cuts), 10)]
        cv2.imwrite(str(sheet), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def measure_speed(detector: Detector, photos: Sequence[Path], count: int) -> Iterator[Row]:
    """Rows of the table of times: each photo by both detectors, in turns, the better of two."""
    former = DlibHogDetector()
    detector.detect(np.zeros((250, 250, 3), np.uint8))  # loads all that it has
    seconds: dict[str, list[list[float]]] = {}
    for path in photos[:count]:
        image = read_image(path)
        of_photo = []
        for one in (former, detector):
            best = []
            for _ in range(2):
                start = time.process_time()
                faces = one.detect(image)
                best.append(time.process_time() - start)
            of_photo.append(min(best))
            if one is former:
                kind = "with a face that `dlib_hog` finds" if faces else "without"
        seconds.setdefault(kind, []).append(of_photo)
    for kind, times in sorted(seconds.items()):
        means = [sum(each) / len(times) for each in zip(*times, strict=True)]
        yield [
            kind,
            str(len(times)),
            *(f"{1000 * mean:.1f} ms" for mean in means),
            f"{means[1] / means[0]:.2f}",
            f"{median(one[1] / one[0] for one in times):.2f}",
        ]


def table(title: str, header: Row, rows: Iterator[Row], output: Path | None) -> None:
    """Print a table, and append it to a file, row by row."""
    lines = [f"\n## {title}\n", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for line in chain(lines, (f"| {' | '.join(row)} |" for row in rows)):
        print(line, flush=True)
        if output is not None:
            with output.open("a", encoding="utf-8") as file:
                print(line, file=file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print tables."""
    parts = ["collages", "edges", "turned", "false", "speed"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", metavar="LFW_DIR", type=Path, help="one sub-folder a person")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--detector", choices=list(KNOWN_DETECTORS), default=DEFAULT_DETECTOR)
    parser.add_argument("--people", type=positive, default=150, help="people turned (default: 150)")
    parser.add_argument(
        "--pictures", type=positive, default=250, help="pictures of each kind without a face"
    )
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw the boxes found there")
    parser.add_argument("-o", "--output", type=Path, metavar="MD", help="append the tables")
    options = parser.parse_args(arguments)
    try:
        photos = sorted(
            photo for person in options.photos.glob("*/") for photo in photos_in(person)
        )
        if not photos:
            raise InputError(f"no photos in sub-folders of {options.photos}")
        random.Random(0).shuffle(photos)
        detector = load_detector(options.detector)
        cv2.setNumThreads(1)
        tables: tuple[tuple[str, Row, str, Callable[[], Iterator[Row]]], ...] = (
            (
                "Collages",
                ["picture", "found", "other boxes", "processor time"],
                "collages",
                lambda: measure_collages(detector, photos),
            ),
            (
                "Cut off by the edge",
                ["gone", "left", "right", "top", "bottom"],
                "edges",
                lambda: measure_edges(detector, photos),
            ),
            (
                "Turned",
                ["turned by", "found", "named", "strangers that pass"],
                "turned",
                lambda: measure_turned(detector, options.photos, options.people),
            ),
            (
                "Where no face is",
                ["pictures", "number", "boxes"],
                "false",
                lambda: measure_false(detector, photos, options.pictures, options.sheet),
            ),
            (
                "Time for a photo",
                [
                    "photos",
                    "number",
                    "`dlib_hog`",
                    f"`{detector.name}`",
                    "ratio of the means",
                    "median of the ratios",
                ],
                "speed",
                lambda: measure_speed(detector, photos, 300),
            ),
        )
        for title, header, part, rows in tables:
            if part in options.parts:
                table(title, header, rows(), options.output)
    except FaceEncodeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
