"""The model that a command's options describe."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from face_encode.errors import InputError
from face_encode.terminal import (
    add_detector_option,
    add_encoder_option,
    add_threshold_option,
    printable,
)

if TYPE_CHECKING:
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
