"""``face-encode export``: an encoder as one file for other programs."""

from __future__ import annotations

import argparse

from face_encode.console import add_json_option, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Write an encoder as one file that runs without Keras and without this package, and beside "
        "it JSON that says how it is to be used. The file is compared with Keras first."
    )
    parser.add_argument("model", metavar="MODEL", help="a known encoder or a .keras file")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="the file to write: .onnx or .tflite",
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Export, and say what was written."""
    from face_encode.encoders.exporting import check_export_path, export_encoder
    from face_encode.encoders.loading import load_encoder
    from face_encode.files import as_path

    # Before the seconds that loading a model takes.
    check_export_path(as_path(options.output))
    encoder = load_encoder(options.model, engine="tensorflow")
    written = export_encoder(encoder, options.output)
    if options.json:
        print_json(
            {
                "output": str(written.path),
                "note": str(written.note_path),
                "fingerprint": encoder.fingerprint,
                "largest_difference_from_keras": written.difference,
            }
        )
    else:
        print(f"{written.path}: {encoder.name}, within {written.difference:.1e} of Keras")
        print(f"{written.note_path}: how it is to be used")
    return 0
