"""What the commands share: options, opening the models they describe, and lists."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from face_encode.errors import InputError
from face_encode.terminal import (
    ROWS_SHOWN,
    add_detector_option,
    add_encoder_option,
    add_threshold_option,
    positive,
    printable,
)

if TYPE_CHECKING:
    from face_encode.detectors.base import Detector
    from face_encode.encoders.encoder import Encoder
    from face_encode.model import Face_Encode_Model


def add_model_options(parser: argparse.ArgumentParser, *, threshold: bool = True) -> None:
    """The choices that every command with a model has, and those that compare faces."""
    group = parser.add_argument_group("model")
    add_encoder_option(group)
    add_detector_option(group)
    if threshold:
        add_threshold_option(group)


def add_people(model: Face_Encode_Model, people: str, *, approximate: bool = False) -> None:
    """Enrol a folder of people, or open a gallery; photos left out are told of.

    Args:
        model: Takes them in the place of whoever was enrolled.
        people: A folder with a sub-folder a person, or a gallery: an ``.npz`` file, or one in
            Milvus.
        approximate: Whether to search a gallery's file by an approximate index.

    Raises:
        InputError: An approximate index of a folder.
    """
    from face_encode.gallery.opening import names_gallery

    if names_gallery(people):
        model.load_gallery(people, approximate=approximate)
        return
    if approximate:
        raise InputError(f"an approximate index is of a gallery's .npz file. Received: {people}")
    for item in model.fit_dataset(people).left_out:
        row = printable(f"{item.photo}: {item.reason}")
        print(f"face-encode: left out: {row}", file=sys.stderr)


def open_model(options: argparse.Namespace) -> Face_Encode_Model:
    """The model that the options describe."""
    from face_encode.model import Face_Encode_Model

    threshold = getattr(options, "threshold", None)
    return Face_Encode_Model(
        options.model, options.detector, threshold, engine=options.encoder_engine
    )


def add_measurement_options(parser: argparse.ArgumentParser) -> None:
    """The choices that every command with an encoder and a detector has."""
    group = parser.add_argument_group("model")
    add_encoder_option(group)
    add_detector_option(group)
    group.add_argument(
        "--workers", type=positive, metavar="N", help="processes that read photos and find faces"
    )


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """``--report``."""
    parser.add_argument(
        "--report", metavar="OUT.html", help="write a report with curves and pictures, one file"
    )


def rate(text: str) -> float:
    """A number between 0 and 1, both excluded."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"a number between 0 and 1, not {text!r}")
    return number


def open_models(options: argparse.Namespace) -> tuple[Detector, Encoder]:
    """The detector and the encoder that the options name."""
    from face_encode.detectors.registry import load_detector
    from face_encode.encoders.registry import load_encoder

    encoder = load_encoder(options.model, engine=options.encoder_engine)
    return load_detector(options.detector), encoder


def print_lines(title: str, lines: Sequence[str]) -> None:
    """A list under a title, its first rows."""
    if not lines:
        return
    print(f"\n{title}")
    for line in lines[:ROWS_SHOWN]:
        print(f"  {printable(line)}")
    if len(lines) > ROWS_SHOWN:
        print(f"  … and {len(lines) - ROWS_SHOWN} more (--json tells all)")


def percent(share: float) -> str:
    """A share as percent."""
    return f"{100 * share:.2f} %"
