"""``face-encode cluster``: sort the faces of unnamed photos into people."""

from __future__ import annotations

import argparse

from face_encode.evaluation.commands import shared
from face_encode.terminal import ROWS_SHOWN, add_json_option, positive, print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("photos", metavar="DIR", help="photos, in sub-folders too")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT_DIR",
        required=True,
        help="a new folder: one sub-folder a person with the faces cut out, ready to be named "
        "and enrolled",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="mean similarity from which two groups are one person (default: the encoder's)",
    )
    parser.add_argument(
        "--min-faces",
        type=positive,
        default=2,
        metavar="N",
        help="write groups of at least so many faces (default: 2)",
    )
    add_json_option(parser)
    shared.add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Group, write the faces, and print the groups."""
    from face_encode.evaluation.clustering import check_output_folder, group_photos, write_groups

    check_output_folder(options.output)
    detector, encoder = shared.open_models(options)
    result = group_photos(
        options.photos, detector, encoder, threshold=options.threshold, workers=options.workers
    )
    written = write_groups(result, options.output, options.min_faces)
    if options.json:
        print_json(result.as_dict(options.min_faces))
        return 0
    faces = sum(len(group) for group in result.groups)
    kept = sum(len(group) for group in result.groups[:written])
    print(
        f"{faces:,} faces in {result.photos:,} photos: {written:,} people with at least "
        f"{options.min_faces} faces ({kept:,} faces) written to {options.output}"
    )
    print_table(
        ["folder", "faces"],
        [
            [result.name_of(number), str(len(group))]
            for number, group in enumerate(result.groups[:written])
        ][:ROWS_SHOWN],
    )
    shared.print_lines("left out", [f"{photo}: {why}" for photo, why in result.left_out])
    return 0
