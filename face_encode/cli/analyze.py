"""``face-encode analyze``: age, gender and expression of the faces in photos."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from face_encode.cli.options import (
    add_detector_option,
    add_json_option,
    add_liveness_option,
    add_min_face_option,
    add_work_options,
    open_detector,
    positive,
    print_folder_report,
    print_json,
    print_notes,
    print_table,
    resumption_notice,
    write_annotated,
)
from face_encode.errors import ImageError, InputError
from face_encode.outputs import add_overwrite_option, check_output

if TYPE_CHECKING:
    from face_encode.attributes.network import AttributeNetwork
    from face_encode.detectors.base import Detector
    from face_encode.photos.drawing import Marks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Tell how old the people in photos look, their gender and their expression, each with the "
        "chance that it is right. Guesses from looks: docs/attributes.md says how good they are "
        "for whom, and for what they must not be used."
    )
    parser.add_argument(
        "photos",
        metavar="PHOTO|DIR",
        nargs="+",
        help="photos, and folders whose photos are taken with those in folders below them",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT.parquet",
        help="write a table of one folder instead of printing; the same command resumes an "
        "interrupted run (pip install 'face_encode[parquet]')",
    )
    parser.add_argument(
        "--annotate", metavar="OUT_DIR", help="write the photos there, with boxes and ages drawn"
    )
    parser.add_argument(
        "--max-faces",
        type=positive,
        metavar="N",
        help="the N largest faces of each photo only (default: all)",
    )
    add_liveness_option(parser, effect="")
    add_work_options(parser)
    add_overwrite_option(parser)
    add_json_option(parser)
    group = parser.add_argument_group("model")
    group.add_argument(
        "--attributes",
        metavar="FILE.keras",
        help="a network of face-encode train attributes (default: the one of this package)",
    )
    group.add_argument(
        "--encoder-engine",
        metavar="NAME",
        help="what runs it: tensorflow (Keras itself), onnx, openvino, int8, auto, or fastest (the "
        "default): int8 where its answers are near enough, else auto",
    )
    add_detector_option(group)
    add_min_face_option(group)


def run(options: argparse.Namespace) -> int:
    """Analyze, draw where asked to, and print or write."""
    from face_encode.attributes.network import load_attributes
    from face_encode.functions import analyze

    if options.output is not None and (
        options.annotate is not None
        or len(options.photos) != 1
        or not os.path.isdir(options.photos[0])
    ):
        raise InputError(
            "a table is written of one folder, without --annotate. "
            f"Received: {' '.join(options.photos)}"
        )
    if options.restart and options.output is None:
        raise InputError("--restart is for a table: give --output too")
    if options.output is not None:
        check_output(options.output, "table of attributes", overwrite=options.overwrite)
    network = load_attributes(options.attributes, options.encoder_engine)
    detector = open_detector(options)
    if options.output is not None:
        return _write_table(options, detector, network)
    results = analyze(
        options.photos,
        attributes=network,
        detector=detector,
        max_faces=options.max_faces,
        liveness=options.liveness,
        workers=options.workers,
        batch_size=options.batch_size,
    )
    if options.annotate is not None:
        write_annotated(results, options.annotate, _marks, overwrite=options.overwrite)
    if options.json:
        print_json(results)
    else:
        _print(results)
    # As for match: broken photos among others are rows.
    if all(result["error"] is not None for result in results):
        raise ImageError(f"none of the {len(results)} photos can be read")
    return 0


def _write_table(options: argparse.Namespace, detector: Detector, network: AttributeNetwork) -> int:
    """Write the table of a folder, and report."""
    from face_encode.liveness.judging import default_judge
    from face_encode.pipeline.analysis import analyze_folder

    with resumption_notice():
        report = analyze_folder(
            options.photos[0],
            options.output,
            detector,
            network,
            max_faces=options.max_faces,
            restart=options.restart,
            workers=options.workers,
            batch_size=options.batch_size,
            judge=default_judge() if options.liveness else None,
        )
    print_folder_report(report, options, "table", "the file tells all")
    return 0 if report.faces else 1


def _marks(faces: list[dict[str, Any]]) -> Marks:
    """Boxes, labels and colours of what faces show."""
    from face_encode.photos.drawing import KNOWN_COLOUR, UNKNOWN_COLOUR
    from face_encode.types import Box

    sides = ("x", "y", "width", "height")
    return (
        [Box(*(face["bounding_box"][side] for side in sides)) for face in faces],
        [" ".join(_cells(face)[:3]) for face in faces],
        [UNKNOWN_COLOUR if face["age"] is None else KNOWN_COLOUR for face in faces],
    )


def _print(results: list[dict[str, Any]]) -> None:
    """Print a row for each face, and one for each photo without a face."""
    rows = []
    for result in results:
        for face in result["faces"]:
            box = face["bounding_box"]
            place = f"{box['x']},{box['y']} {box['width']}x{box['height']}"
            rows.append([result["photo"], *_cells(face), place, _life(face)])
        if not result["faces"]:
            rows.append([result["photo"], result["error"] or "no face found", *[""] * 5])
    header = ["photo", "age", "gender", "expression", "quality", "box", "liveness"]
    # The last only where it was asked for.
    width = len(header) if any(row[-1] for row in rows) else len(header) - 1
    print_table(header[:width], [row[:width] for row in rows])
    print_notes(results)


def _life(face: dict[str, Any]) -> str:
    """Liveness in words; empty where it was not judged."""
    if "is_live" not in face:
        return ""
    return f"{face['liveness']:.2f}" + ("" if face["is_live"] else " (not live)")


def _cells(face: dict[str, Any]) -> list[str]:
    """Age, gender, expression and quality in words."""
    quality = "" if face["quality"] is None else f"{face['quality']:.2f}"
    if face["age"] is None:
        return [f"cannot be told: {face['quality_reason']}", "", "", quality]
    low, high = face["age_interval"]
    likelier = max(face["gender_probabilities"].values())
    felt = face["expression_probabilities"][face["expression"]]
    return [
        f"{face['age']:.0f} ({low:.0f} to {high:.0f})",
        f"{face['gender']} {likelier:.0%}",
        f"{face['expression']} {felt:.0%}",
        quality,
    ]
