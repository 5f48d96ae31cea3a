"""How fast this package is beside ``face_recognition`` and the original project's matching.

Run as ``python -m benchmarks.speed PHOTO_DIR``; see README.md beside this file.

All run on the same photos in one process and take turns, so that whatever else the machine does
hits each of them. A time is the median over the turns. Loading libraries and models, the first
call and the start of worker processes are left out of it and shown apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import describe_machine, load_average, processor_seconds
from benchmarks.photo_folders import FACE_RECOGNITION_LINE, copy_photos
from benchmarks.speedups import Speedup, compared, print_table
from benchmarks.timing import seconds, take_turns

if TYPE_CHECKING:
    from face_encode import Encoder

GALLERY_SIZES = (1_000, 100_000)
# The original's loop takes minutes over more comparisons than the first; of those, this many
# are timed.
LOOP_WHOLE, LOOP_SAMPLE = 1_000, 300
FACES_ENCODED = 100
# One package encodes this many single faces before it is the next one's turn.
FACES_AT_A_TIME = 20
# face_recognition enrols the folder in this many parts, one per turn: the turns of both packages
# then take about the same time, and idle workers are not stopped between them.
PARTS = 3


def encode_as_rival(photos: Sequence[Path]) -> None:
    """Read photos, find the faces and encode them, as face_recognition's documentation shows."""
    import face_recognition

    for photo in photos:
        face_recognition.face_encodings(face_recognition.load_image_file(photo))


def compare_enrolment(
    folder: Path, photos: Sequence[Path], encoder: Encoder, detector: str | None, turns: int
) -> list[Speedup]:
    """(a) Enrol a folder: read, find the faces, encode them."""
    import loky

    from face_encode import Face_Encode_Model

    cores = loky.cpu_count()
    # Not the executor that this package uses for its own workers.
    executor = loky.ProcessPoolExecutor(cores, env={"OMP_NUM_THREADS": "1"})
    computed: list[list[float]] = [[], []]

    def counted(who: int, action: Callable[[], object]) -> None:
        """Do something, and note the time that this process and its workers have computed."""
        before = processor_seconds(os.getpid())
        action()
        computed[who].append((processor_seconds(os.getpid()) - before) * 1e3)

    def ours(_: int) -> None:
        # A new model each time: one that has the photos already would not encode them again.
        model = Face_Encode_Model(encoder, detector)
        counted(0, lambda: model.fit_dataset(folder, progress=False))

    def rival(turn: int) -> None:
        counted(1, lambda: encode_as_rival(photos[turn % PARTS :: PARTS]))

    def shared(turn: int) -> None:
        part = photos[turn % PARTS :: PARTS]
        list(executor.map(encode_as_rival, [part[core::cores] for core in range(cores)]))

    times = take_turns(turns * PARTS, ours, rival, shared)
    executor.shutdown()
    what, rows = f"(a) enrol a folder of {len(photos)} photos, time a photo", []
    # The first of each does not count, as among the times.
    for who, own, others, rival_name, note in (
        (what, times[0], times[1], "face_recognition", "in one process, as it is commonly used"),
        (what, times[0], times[2], f"face_recognition, {cores} processes", ""),
        (f"{what}, of the processor", computed[0][1:], computed[1][1:], "face_recognition", ""),
    ):
        wholes, means = (
            [sum(each[start : start + PARTS]) for start in range(0, turns * PARTS, PARTS)]
            for each in (others, own)
        )
        row = compared(who, own, rival_name, wholes, divisor=len(photos), note=note)
        # The shortest of many against the shortest of few would favour the many.
        rows.append(replace(row, ratio_of_shortest=min(wholes) / (min(means) / PARTS)))
    return rows


def encoding_once(encoder: Encoder, folder: Path) -> Encoder:
    """The same encoder on the same engine, without the mirror image; saved in a folder."""
    from face_encode import load_encoder
    from face_encode.encoders.contract import save_encoder

    path, contract = folder / "once.keras", replace(encoder.contract, mirror=False)
    save_encoder(encoder.model, path, contract, quality_head=encoder.quality_head)
    return load_encoder(path, engine=encoder.engine)


def compare_encoding(photos: Sequence[Path], encoder: Encoder) -> list[Speedup]:
    """(b) Encode one face, from the box that both are given, and from the finished crop."""
    import face_recognition
    from face_recognition.api import face_encoder

    from face_encode import Face
    from face_encode.detectors.alignment import crop_faces
    from face_encode.encoders.dlib_resnet import DLIB_RESNET_CONTRACT
    from face_encode.types import Box, ImageArray

    recipe = encoder.contract.crop
    items: list[tuple[ImageArray, tuple[int, int, int, int], Face, ImageArray, ImageArray]] = []
    for photo in photos:
        image = face_recognition.load_image_file(photo)
        for top, right, bottom, left in face_recognition.face_locations(image)[:1]:
            # dlib's right and bottom are the last pixels inside.
            face = Face(Box(left, top, right - left + 1, bottom - top + 1), score=1.0)
            crop = crop_faces(image, [face], recipe)
            (chip,) = crop_faces(image, [face], DLIB_RESNET_CONTRACT.crop)
            items.append((image, (top, right, bottom, left), face, crop, chip))
        if len(items) == FACES_ENCODED:
            break
    mean_of_both = encoder.contract.mirror
    with tempfile.TemporaryDirectory() as folder:
        once = encoding_once(encoder, Path(folder)) if mean_of_both else encoder

    def ours(turn: int) -> None:
        image, _, face, _, _ = items[turn]
        encoder.encode(crop_faces(image, [face], recipe))

    def rival(turn: int) -> None:
        image, location, _, _, _ = items[turn]
        face_recognition.face_encodings(image, [location])

    times = take_turns(
        len(items),
        ours,
        rival,
        lambda turn: encoder.encode(items[turn][3]),
        lambda turn: once.encode(items[turn][3]) if mean_of_both else None,
        lambda turn: face_encoder.compute_face_descriptor(items[turn][4]),
        at_a_time=FACES_AT_A_TIME,
    )
    mirrored = "twice through the network (mirror image averaged), dlib once"
    rows = [
        compared(
            "(b) encode one face from its box",
            times[0],
            "face_recognition",
            times[1],
            note=f"{len(items)} faces; landmarks, crop and network; ours on {encoder.engine}"
            + (f", {mirrored}" if mean_of_both else ""),
        ),
        compared(
            "(b) encode one finished crop",
            times[2],
            "dlib",
            times[4],
            note=f"the network alone; ours on {encoder.engine}"
            + (f", {mirrored}" if mean_of_both else ""),
        ),
    ]
    if mean_of_both:
        what = "(b) the same, each once through the network"
        note = f"ours on {once.engine}, without the mirror image"
        rows.append(compared(what, times[3], "dlib", times[4], note=note))
    return rows


def compare_matching(size: int, encoder: Encoder, turns: int) -> list[Speedup]:
    """(c) Find the nearest of ``size`` enrolled embeddings to one."""
    import face_recognition
    import keras

    from face_encode.gallery.memory import MemoryGallery

    generator = np.random.default_rng(0)
    enrolled = generator.standard_normal((size, encoder.embedding_size), np.float32)
    probes = generator.standard_normal((turns, encoder.embedding_size), np.float32)
    gallery = MemoryGallery(encoder)
    gallery.add([f"person {index // 4}" for index in range(size)], enrolled)
    # face_recognition gives double precision.
    doubles: npt.NDArray[np.float64] = enrolled.astype(np.float64)
    sample = enrolled[: size if size <= LOOP_WHOLE else LOOP_SAMPLE]

    def rival(turn: int) -> int:
        return int(np.argmin(face_recognition.face_distance(doubles, probes[turn])))

    def original(turn: int) -> int:
        # A new metric a comparison: it would average over all that it has seen.
        similarities = [
            float(keras.metrics.CosineSimilarity()(probes[turn], each)) for each in sample
        ]
        return int(np.argmax(similarities))

    quick = take_turns(turns, lambda turn: gallery.search(probes[turn : turn + 1]), rival)
    # The loop takes seconds a turn; between its turns this package's time is taken again.
    slow = take_turns(2, lambda turn: gallery.search(probes[turn : turn + 1]), original)
    scale = size / len(sample)
    note = "" if scale == 1 else f"{len(sample)} comparisons timed, scaled linearly to {size:,}"
    what = f"(c) match one embedding against {size:,}"
    return [
        compared(what, quick[0], "face_recognition", quick[1], note="face_distance and argmin"),
        compared(
            what,
            quick[0] + slow[0],
            "the original's loop",
            slow[1],
            rival_factor=scale,
            note=note,
        ),
    ]


def run(
    source: Path, count: int, turns: int, model: str | None
) -> tuple[dict[str, str], list[Speedup]]:
    """Hold all contests, by a named choice or an encoder; None for the default."""

    def start_ours() -> Encoder:
        from face_encode import load_encoder

        encoder = load_encoder(model)
        crop = encoder.contract.crop
        encoder.encode(np.zeros((1, crop.height, crop.width, 3), np.uint8))
        return encoder

    def start_rival() -> Any:
        import face_recognition

        return face_recognition

    from face_encode.encoders.registry import detector_for

    facts = {**describe_machine(), "load at the start": load_average()}
    rival_start, _ = seconds(start_rival)
    our_start, encoder = seconds(start_ours)
    facts["start-up, not counted below"] = (
        f"{our_start:.1f} s (TensorFlow, encoder, compilation); "
        f"face_recognition {rival_start:.1f} s"
    )
    with tempfile.TemporaryDirectory() as folder:
        photos = copy_photos(source, count, Path(folder))
        print(f"enrolling {len(photos)} photos …", file=sys.stderr)
        detector = detector_for(model, None)
        results = compare_enrolment(Path(folder), photos, encoder, detector, turns)
        print("encoding single faces …", file=sys.stderr)
        results += compare_encoding(photos, encoder)
    for size in GALLERY_SIZES:
        print(f"matching against {size:,} …", file=sys.stderr)
        results += compare_matching(size, encoder, turns=30)
    facts["load at the end"] = load_average()
    return facts, results


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description="Compare speeds with face_recognition.")
    parser.add_argument("photo_dir", type=Path, help="folder with one sub-folder a person")
    parser.add_argument("--photos", type=int, default=300, help="photos enrolled (300)")
    parser.add_argument("--turns", type=int, default=3, help="times it is enrolled (3)")
    parser.add_argument("--model", help="a named choice or an encoder (the default)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if arguments.photos < PARTS or arguments.turns < 1:
        parser.error(f"at least {PARTS} photos and 1 turn")
    # pkg_resources left setuptools with release 81; face_recognition's models import it.
    for module in ("face_recognition", "face_recognition_models", "pkg_resources"):
        if find_spec(module) is None:
            print(f"{module} is missing, install it by: {FACE_RECOGNITION_LINE}", file=sys.stderr)
            return 1
    from face_encode import FaceEncodeError

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        facts, results = run(
            arguments.photo_dir, arguments.photos, arguments.turns, arguments.model
        )
    except FaceEncodeError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({**facts, "results": [asdict(each) for each in results]}, indent=2))
    else:
        print_table(facts, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
