"""``face-encode remove``: a person out of a gallery file."""

from __future__ import annotations

import argparse

from face_encode.cli.opening import add_model_options, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "Take a person out of a gallery; the others stay as they are."
    parser.add_argument("gallery", metavar="GALLERY", help="a gallery file, or one in Milvus")
    parser.add_argument("name", metavar="NAME")
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Remove, save, and tell how many remain."""
    model = open_model(options)
    model.load_gallery(options.gallery)
    count = model.remove_person(options.name)
    model.gallery.close()
    print(f"{options.name} removed: {count} photos; {len(model.gallery)} remain")
    return 0
