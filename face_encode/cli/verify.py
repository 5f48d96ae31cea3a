"""``face-encode verify``: whether two photos show the same person."""

from __future__ import annotations

import argparse

from face_encode.cli.opening import add_model_options, open_model
from face_encode.errors import ImageError
from face_encode.terminal import add_json_option, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "Compare the largest faces of two photos."
    parser.add_argument("photo_a", metavar="PHOTO_A")
    parser.add_argument("photo_b", metavar="PHOTO_B")
    add_json_option(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Compare, and print the verdict."""
    from face_encode.pipeline.embedding import embed_photos

    model = open_model(options)
    pair = list(embed_photos([options.photo_a, options.photo_b], model.detector, model.encoder))
    for photo in pair:
        if photo.error is not None:
            raise ImageError(f"{photo.photo}: {photo.error}")
    similarity, is_match = model.compare_encodings(pair[0].embeddings[0], pair[1].embeddings[0])
    if options.json:
        print_json(
            {
                "photo_a": options.photo_a,
                "photo_b": options.photo_b,
                "similarity": similarity,
                "is_match": is_match,
                "threshold": model.threshold,
            }
        )
    else:
        verdict = "the same person" if is_match else "different people"
        print(f"{verdict}: similarity {similarity:.3f}, threshold {model.threshold:.3f}")
    return 0
