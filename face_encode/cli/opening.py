"""The model that a command's options describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from face_encode.console import without_native_notices

if TYPE_CHECKING:
    from face_encode.model import Face_Encode_Model


def add_model_options(parser: argparse.ArgumentParser, *, threshold: bool = True) -> None:
    """The choices that every command with a model has, and those that compare faces."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="MODEL", help="a known encoder or a .keras file")
    group.add_argument("--detector", metavar="NAME", help="a known detector")
    if threshold:
        group.add_argument(
            "--threshold",
            type=float,
            metavar="X",
            help="cosine similarity from which two faces count as one person",
        )


def open_model(options: argparse.Namespace) -> Face_Encode_Model:
    """The model that the options describe."""
    from face_encode.model import Face_Encode_Model

    with without_native_notices():
        import keras  # noqa: F401 - imports TensorFlow, or whatever Keras runs on

    threshold = getattr(options, "threshold", None)
    return Face_Encode_Model(options.model, options.detector, threshold)
