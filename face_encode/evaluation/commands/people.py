"""``face-encode evaluate people``: identification on folders of people."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from face_encode.evaluation.commands import shared
from face_encode.terminal import add_json_option, print_json, print_table

if TYPE_CHECKING:
    from face_encode.evaluation.people import PeopleResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "gallery",
        metavar="GALLERY_DIR",
        help="people to enrol, a sub-folder a person",
    )
    parser.add_argument(
        "probes",
        metavar="PROBE_DIR",
        help="photos to search for: sub-folder = true name; names not enrolled are strangers",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--threshold", type=float, metavar="X", help="similarity from which a search names someone"
    )
    choice.add_argument(
        "--false-match-rate",
        type=shared.rate,
        metavar="R",
        help="calibrate the threshold on the enrolled people for this rate a search",
    )
    parser.add_argument(
        "--contact-sheet",
        metavar="OUT.png",
        help="draw each probe's face with its true name, the name given and the similarity; "
        "further pages are OUT-2.png and so on",
    )
    add_json_option(parser)
    shared.add_report_option(parser)
    shared.add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, print, and write the report where one is asked for."""
    from face_encode.evaluation.contact_sheet import check_sheet_path, write_contact_sheet
    from face_encode.evaluation.html import check_report_path
    from face_encode.evaluation.people import evaluate_people
    from face_encode.evaluation.report import write_people_report

    if options.report is not None:
        check_report_path(options.report)
    if options.contact_sheet is not None:
        check_sheet_path(options.contact_sheet)
    detector, encoder = shared.open_models(options)
    result = evaluate_people(
        options.gallery,
        options.probes,
        detector,
        encoder,
        threshold=options.threshold,
        false_match_rate=options.false_match_rate,
        workers=options.workers,
    )
    if options.report is not None:
        write_people_report(result, options.report)
    sheets = (
        []
        if options.contact_sheet is None
        else [str(page) for page in write_contact_sheet(result, options.contact_sheet)]
    )
    if options.json:
        print_json(result.as_dict() | ({"contact_sheets": sheets} if sheets else {}))
    else:
        _print(result)
        if sheets:
            more = f" to {sheets[-1]}" if len(sheets) > 1 else ""
            print(f"\ncontact sheet: {sheets[0]}{more}")
    return 0


def _print(result: PeopleResult) -> None:
    """The numbers for people."""
    from face_encode.evaluation.report import number_rows, summary

    print(summary(result))
    print_table(["measure", "value"], number_rows(result))
    shared.print_lines(
        "confused",
        [
            f"{name} was called {named}" + (f" ({count} times)" if count > 1 else "")
            for (name, named), count in result.identification.confusions.items()
        ],
    )
    shared.print_lines(
        "photos without a face",
        [f"{photo}: {why}" for photo, why in (*result.left_out, *result.probes.not_found())],
    )
