"""Measure enrolment, encoding and search as sizes grow; write numbers, plots and tables.

Run as ``python -m benchmarks.scale PHOTO_DIR -o results/``; see README.md in benchmarks/.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.scale.encoding import measure_encoding
from benchmarks.scale.enrolment import RIVALS, measure_memory, measure_rates
from benchmarks.scale.plots import draw_all
from benchmarks.scale.recall import measure_recall
from benchmarks.scale.results import Results
from benchmarks.scale.search import DIMENSIONS, LOOP, SEARCH_KINDS, measure_search
from benchmarks.scale.tables import markdown
from face_encode.cli.options import positive
from face_encode.errors import InputError
from face_encode.files import replacing
from face_encode.terminal import exit_code_of

PARTS = ("enrolment", "memory", "encoding", "search", "recall")
NEED_PHOTOS = ("enrolment", "memory", "recall")
# On two cores the whole run takes a quarter of an hour.
MEMORY_PHOTOS = (500, 2_000, 9_000)
SIZES = (1_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
ENCODERS = ("dlib_resnet", "vgg_embedding", "facenet_vggface2")
ENGINES = ("tensorflow", "onnx", "openvino")
RECALL_SIZES = (0, 1_000_000)
TABLES = "scale.md"


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__.splitlines()[0]
    )
    made.add_argument(
        "photos", metavar="PHOTO_DIR", type=Path, nargs="?", help="a sub-folder a person"
    )
    made.add_argument("-o", "--output", metavar="DIR", type=Path, required=True)
    made.add_argument(
        "--parts",
        nargs="*",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help=f"of {', '.join(PARTS)}; none only draws again what was measured before",
    )
    made.add_argument("--turns", type=positive, default=3, help="turns that count (3)")
    group = made.add_argument_group("enrolment")
    group.add_argument("--enrolled", type=positive, default=2_000, help="photos (2000)")
    group.add_argument(
        "--alone-photos", type=positive, default=500, help="for rivals in one process (500)"
    )
    group.add_argument("--deepface-photos", type=positive, default=90, help="its share (90)")
    names = [rival.name for rival in RIVALS]
    group.add_argument("--rivals", nargs="*", choices=names, default=names, metavar="NAME")
    made.add_argument_group("memory").add_argument(
        "--memory-photos", type=positive, nargs="+", default=list(MEMORY_PHOTOS), metavar="N"
    )
    group = made.add_argument_group("encoding")
    group.add_argument("--encoders", nargs="+", default=list(ENCODERS), metavar="NAME")
    group.add_argument("--engines", nargs="+", default=list(ENGINES), metavar="NAME")
    group.add_argument("--batches", type=positive, nargs="+", default=list(BATCHES), metavar="N")
    group = made.add_argument_group("search")
    group.add_argument("--sizes", type=positive, nargs="+", default=list(SIZES), metavar="N")
    kinds = [each.kind for each in SEARCH_KINDS]
    every = [*kinds, LOOP.kind]
    group.add_argument("--kinds", nargs="+", choices=every, default=every, metavar="KIND")
    group.add_argument(
        "--most",
        type=_limit,
        nargs="+",
        default=[],
        metavar="KIND=N",
        help="measure a kind with up to N faces, such as milvus=300000: minutes to build",
    )
    group = made.add_argument_group("recall")
    group.add_argument(
        "--recall-sizes", type=int, nargs="+", default=list(RECALL_SIZES), metavar="N"
    )
    group.add_argument(
        "--gallery",
        type=Path,
        help="a float32 .npz gallery of real people; without it, the photos are enrolled",
    )
    return made


def _limit(text: str) -> tuple[str, int]:
    """A way to search and the most faces, such as ``milvus=300000``."""
    kind, _, number = text.partition("=")
    if kind not in [each.kind for each in SEARCH_KINDS]:
        raise argparse.ArgumentTypeError(f"KIND=N with a known kind, not {text!r}")
    return kind, positive(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and draw; gives the exit code."""
    made = parser()
    options = made.parse_args(arguments)
    if find_spec("matplotlib") is None:
        made.error("the plots need matplotlib: pip install matplotlib")
    for part in options.parts:
        if (
            part in NEED_PHOTOS
            and options.photos is None
            and not (part == "recall" and options.gallery)
        ):
            made.error(f"the part {part} takes a PHOTO_DIR")
    return exit_code_of(lambda: run(options))


def run(options: argparse.Namespace) -> int:
    """All parts that were asked for."""
    results = Results(options.output)
    with tempfile.TemporaryDirectory() as folder:
        galleries = Path(folder)
        for part in (each for each in PARTS if each in options.parts):
            print(f"{time.strftime('%H:%M:%S')} {part} …", file=sys.stderr, flush=True)
            with results.measured(part) as (found, skipped):
                if part == "enrolment":
                    found |= measure_rates(
                        options.photos,
                        photos=options.enrolled,
                        turns=options.turns,
                        alone_photos=options.alone_photos,
                        deepface_photos=options.deepface_photos,
                        rivals=options.rivals,
                        skipped=skipped,
                    )
                elif part == "memory":
                    sizes = sorted(options.memory_photos)
                    found["rows"] = list(measure_memory(options.photos, sizes, galleries, skipped))
                elif part == "encoding":
                    found |= measure_encoding(
                        options.encoders, options.engines, options.batches, options.turns, skipped
                    )
                elif part == "search":
                    found |= measure_search(
                        options.sizes, options.kinds, options.turns, skipped, dict(options.most)
                    )
                    found["dimensions"] = DIMENSIONS
                else:
                    gallery = options.gallery or _largest_gallery(options, galleries)
                    found |= measure_recall(
                        gallery, options.recall_sizes, options.kinds, skipped, dict(options.most)
                    )
    if not results.parts:
        raise InputError(f"nothing was measured, and {options.output} holds no numbers")
    with replacing(options.output / TABLES, InputError) as temporary:
        temporary.write_text(markdown(results.parts), encoding="utf-8")
    drawn = draw_all(results.parts, options.output)
    print(markdown(results.parts))
    print(
        f"{time.strftime('%H:%M:%S')} written: {options.output / TABLES}, "
        + ", ".join(map(str, drawn)),
        file=sys.stderr,
    )
    return 0


def _largest_gallery(options: argparse.Namespace, folder: Path) -> Path:
    """The gallery with the most photos that was enrolled; enrolled now if none was."""
    made = sorted(folder.glob("*.npz"), key=lambda path: int(path.stem))
    if made:
        return made[-1]
    from face_encode.photos.folders import people_in

    count = sum(map(len, people_in(options.photos).values()))
    list(measure_memory(options.photos, [count], folder, []))
    return folder / f"{count}.npz"


if __name__ == "__main__":
    sys.exit(main())
