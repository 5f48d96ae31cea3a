"""``face-encode check``: likely mistakes in a folder of people."""

from __future__ import annotations

import argparse

from face_encode.evaluation.commands import shared
from face_encode.terminal import add_json_option, print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("people", metavar="DIR", help="a folder with a sub-folder a person")
    add_json_option(parser)
    parser.add_argument(
        "--report",
        metavar="OUT.html",
        help="show what was noticed with its pictures, one file",
    )
    shared.add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Look, print, and show the pictures where a report is asked for."""
    from face_encode.evaluation.checking import check_people, write_check_report
    from face_encode.evaluation.html import check_report_path

    if options.report is not None:
        check_report_path(options.report)
    detector, encoder = shared.open_models(options)
    result = check_people(options.people, detector, encoder, workers=options.workers)
    if options.report is not None:
        write_check_report(result, options.report)
    if options.json:
        print_json(result.as_dict())
        return 0
    print(
        f"{result.photos:,} photos of {result.people:,} people: "
        f"{len(result.suspicions)} likely mistakes, {len(result.left_out)} photos without a face"
    )
    if result.suspicions:
        rows = [[each.kind, each.text] for each in result.suspicions]
        print_table(["kind", "what"], rows)
    shared.print_lines("without a face", [f"{photo}: {why}" for photo, why in result.left_out])
    return 0
