"""The commands that say how far to trust a match.

For each command one function adds its parser and one runs it and returns the exit code. Nothing
heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, TypeAlias

from face_encode.cli.gallery import check_database
from face_encode.cli.options import (
    ROWS_SHOWN,
    add_json_option,
    add_model_options,
    days,
    open_models,
    percent,
    positive,
    print_json,
    print_lines,
    print_table,
    rate,
)
from face_encode.errors import GalleryError, InputError
from face_encode.outputs import add_overwrite_option, check_output
from face_encode.terminal import print_safely

if TYPE_CHECKING:
    from face_encode.evaluation.pairs import PairsResult
    from face_encode.gallery.thresholds import Calibration

_REPORT = "write a report with curves and pictures, one file"

Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(commands: Parsers) -> None:
    """Add ``evaluate pairs``, ``evaluate people``, ``calibrate``, ``check`` and ``cluster``.

    Args:
        commands: The value of the program's ``add_subparsers``. Each parser sets ``run``, a
            function from the parsed options to the exit code.
    """
    evaluate = commands.add_parser("evaluate", help="measure how often a match is right")
    measurements = evaluate.add_subparsers(title="measurements", metavar="WHAT", required=True)
    _add_pairs(measurements)
    _add_people(measurements)
    _add_calibrate(commands)
    _add_check(commands)
    _add_cluster(commands)


def _add_command(
    parsers: Parsers, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    description = f"{summary[0].upper()}{summary[1:]}."
    parser = parsers.add_parser(name, help=summary, description=description)
    parser.set_defaults(run=run)
    return parser


def _add_shared_options(parser: argparse.ArgumentParser, report: str | None = None) -> None:
    add_json_option(parser)
    if report is not None:
        parser.add_argument("--report", metavar="OUT.html", help=report)
        add_overwrite_option(parser)
    add_model_options(parser, threshold=False, workers=True)


def _add_pairs(parsers: Parsers) -> None:
    summary = "verification on a list of pairs of photos (LFW's formats or CSV)"
    parser = _add_command(parsers, "pairs", run_pairs, summary)
    parser.add_argument(
        "--photos", metavar="DIR", required=True, help="the folder that the photos lie in"
    )
    parser.add_argument(
        "--pairs",
        metavar="FILE",
        required=True,
        help="pairs in LFW's format (View 1 or View 2), or a CSV: photo_a,photo_b,same",
    )
    parser.add_argument(
        "--metric", choices=("cosine", "euclidean"), default="cosine", help="default: cosine"
    )
    _add_shared_options(parser, _REPORT)


def run_pairs(options: argparse.Namespace) -> int:
    """Measure, print, and write the report if one is asked for."""
    from face_encode.evaluation.faces import measure_speeds
    from face_encode.evaluation.html import check_report_path
    from face_encode.evaluation.pairs import evaluate_pairs, read_pairs
    from face_encode.evaluation.report import write_pairs_report

    pairs = read_pairs(options.pairs, options.photos)
    if options.report is not None:
        check_report_path(options.report, charts=True)
        check_output(options.report, "report", inputs=[options.pairs], overwrite=options.overwrite)
    detector, encoder = open_models(options)
    result = evaluate_pairs(
        pairs, detector, encoder, metric=options.metric, workers=options.workers
    )
    if options.report is not None:
        speeds = measure_speeds(pairs.photos(), detector, encoder)
        write_pairs_report(result, options.report, speeds)
    if options.json:
        print_json(result.as_dict())
    else:
        _print_pairs(result)
    return 0


def _print_pairs(result: PairsResult) -> None:
    print_table(["measure", "value", "95 % interval", ""], result.rows())
    mirrored = "mirror image averaged in" if result.mirrored else "no mirror image"
    print(
        f"{len(result.pairs):,} pairs, {int((~result.pairs.same).sum()):,} of them different, "
        f"{result.photos:,} photos; encoder {result.encoder} ({mirrored}), "
        f"detector {result.detector}, {1000 * result.seconds_a_photo:.0f} ms a photo"
    )
    found = percent(1 - len(result.not_found) / result.photos)
    print(f"a face was found in {found} of the photos; pairs without one count as errors")
    _print_photos("photos without a face", result.not_found)


def _print_photos(title: str, photos: Any) -> None:
    print_lines(title, [f"{photo}: {reason}" for photo, reason in photos])


def _add_people(parsers: Parsers) -> None:
    summary = "identification: a folder of people to enrol, and a folder of probes"
    parser = _add_command(parsers, "people", run_people, summary)
    parser.add_argument(
        "gallery", metavar="GALLERY_DIR", help="people to enrol, a sub-folder a person"
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
        type=rate,
        metavar="R",
        help="calibrate the threshold on the enrolled people for this rate a search",
    )
    parser.add_argument(
        "--contact-sheet",
        metavar="OUT.png",
        help="draw each probe's face with its true name, the name given and the similarity; "
        "further pages are OUT-2.png and so on",
    )
    _add_shared_options(parser, _REPORT)


def run_people(options: argparse.Namespace) -> int:
    """Measure, print, and write the report and the contact sheet if they are asked for."""
    from face_encode.evaluation.contact_sheet import (
        check_sheet_path,
        sheet_pages,
        write_contact_sheet,
    )
    from face_encode.evaluation.html import check_report_path
    from face_encode.evaluation.people import evaluate_people
    from face_encode.evaluation.report import write_people_report
    from face_encode.photos.folders import people_in

    if options.report is not None:
        check_report_path(options.report, charts=True)
        check_output(options.report, "report", overwrite=options.overwrite)
    if options.contact_sheet is not None:
        check_sheet_path(options.contact_sheet)
        probes = people_in(options.probes)
        for page in sheet_pages(options.contact_sheet, sum(map(len, probes.values()))):
            check_output(page, "picture", overwrite=options.overwrite)
    detector, encoder = open_models(options)
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
    sheets = []
    if options.contact_sheet is not None:
        sheets = [str(page) for page in write_contact_sheet(result, options.contact_sheet)]
    if options.json:
        print_json(result.as_dict() | ({"contact_sheets": sheets} if sheets else {}))
        return 0
    print_safely(result.summary())
    print_table(["measure", "value"], result.rows())
    confusions = [
        f"{name} was called {named}" + (f" ({count} times)" if count > 1 else "")
        for (name, named), count in result.identification.confusions.items()
    ]
    print_lines("confused", confusions)
    _print_photos("left out", result.not_used())
    if sheets:
        print_safely(
            f"\ncontact sheet: {sheets[0]}" + (f" to {sheets[-1]}" if len(sheets) > 1 else "")
        )
    return 0


def _add_calibrate(parsers: Parsers) -> None:
    summary = "learn the threshold for a stated rate of false matches from your own people"
    parser = _add_command(parsers, "calibrate", run_calibrate, summary)
    parser.add_argument(
        "people",
        metavar="PEOPLE",
        help="your own people: a folder with a sub-folder a person, or a gallery (which "
        "then keeps the calibration)",
    )
    parser.add_argument(
        "-g",
        "--gallery",
        metavar="GALLERY",
        help="a gallery that is to keep what is learnt from a folder",
    )
    parser.add_argument(
        "--false-match-rate",
        type=rate,
        default=1e-3,
        metavar="R",
        help="share of searches for a stranger that may name someone (default: 0.001)",
    )
    _add_shared_options(parser)


def run_calibrate(options: argparse.Namespace) -> int:
    """Calibrate, keep the calibration in the gallery if there is one, and print."""
    from face_encode.evaluation.calibration import calibrate
    from face_encode.evaluation.faces import embed_people, one_spelling
    from face_encode.gallery.opening import gallery_label, names_gallery, open_gallery

    from_gallery = names_gallery(options.people)
    if from_gallery and options.gallery is not None:
        raise InputError(
            "-g is for what is learnt from a folder; a gallery keeps its own calibration. "
            f"Received: the gallery {options.people} and -g {options.gallery}"
        )
    path = options.people if from_gallery else options.gallery
    detector, encoder = open_models(options)
    # The gallery is opened before the work, so that a wrong one is refused in time.
    gallery = None if path is None else open_gallery(path, encoder=encoder, create=False)
    if gallery is not None and not len(gallery):
        raise GalleryError(
            f"{gallery_label(path)} keeps a calibration once somebody is enrolled in it. "
            "Received: a gallery without photos"
        )
    left_out: Sequence[tuple[str, str]] = ()
    if from_gallery and gallery is not None:
        people = gallery.rows()
        names, embeddings = people.names, people.embeddings
    else:
        names, faces = embed_people(options.people, detector, encoder, workers=options.workers)
        left_out = faces.left_out()
        names, embeddings = one_spelling(names)[faces.fit], faces.embeddings[faces.fit]
    learnt = calibrate(embeddings, names, options.false_match_rate)
    enrolled = len(names)
    if gallery is not None:
        enrolled = len(gallery)
        gallery.calibration = learnt
        gallery.close()
        path = gallery_label(path)
    if options.json:
        values = json.loads(learnt.to_json())
        told = [{"photo": photo, "reason": why} for photo, why in left_out]
        threshold = learnt.threshold(enrolled)
        print_json({**values, "gallery": path, "threshold": threshold, "left_out": told})
    else:
        _print_calibration(learnt, enrolled, path)
        _print_photos("left out", left_out)
    return 0


def _print_calibration(learnt: Calibration, enrolled: int, path: str | None) -> None:
    print(
        f"learnt from {learnt.photos:,} photos of {learnt.people:,} people, for a false match "
        f"rate of {learnt.false_match_rate:g} a search"
    )
    intervals = {1: learnt.verification_interval, learnt.enrolled[-1]: learnt.search_interval}
    rows = []
    for size in sorted({*learnt.enrolled, enrolled}):
        threshold = learnt.threshold(size)
        rows.append(
            [
                "two photos compared" if size == 1 else f"{size:,} photos enrolled",
                f"{threshold:.4f}",
                "{:.4f} to {:.4f}".format(*intervals[size]) if size in intervals else "",
                f"{100 * float(learnt.probability(threshold, size)):.0f} %",
            ]
        )
    print_table(["search of", "threshold", "95 % interval", "probability at the threshold"], rows)
    if learnt.extrapolated:
        print(
            "so small a rate cannot be counted on so few people: the thresholds for searches "
            "continue the tail of what was measured, to the safe side"
        )
    if path is not None:
        print_safely(
            f"kept in {path}: {learnt.threshold(enrolled):.4f} for its {enrolled:,} photos"
        )


def _add_check(parsers: Parsers) -> None:
    summary = "name likely mistakes in a folder of people: mislabelled, doubled, blurred photos"
    parser = _add_command(parsers, "check", run_check, summary)
    parser.add_argument("people", metavar="DIR", help="a folder with a sub-folder a person")
    _add_shared_options(parser, "show what was noticed with its pictures, one file")


def run_check(options: argparse.Namespace) -> int:
    """Look for mistakes, print, and show the pictures if a report is asked for."""
    from face_encode.evaluation.checking import check_people, write_check_report
    from face_encode.evaluation.html import check_report_path

    if options.report is not None:
        check_report_path(options.report)
        check_output(options.report, "report", overwrite=options.overwrite)
    detector, encoder = open_models(options)
    result = check_people(options.people, detector, encoder, workers=options.workers)
    if options.report is not None:
        write_check_report(result, options.report)
    if options.json:
        print_json(result.as_dict())
        return 0
    print_safely(result)
    if result.suspicions:
        print_table(["kind", "what"], [[each.kind, each.text] for each in result.suspicions])
    _print_photos("left out", result.left_out)
    return 0


def _add_cluster(parsers: Parsers) -> None:
    summary = "sort the faces of unnamed photos into people"
    parser = _add_command(parsers, "cluster", run_cluster, summary)
    parser.add_argument("photos", metavar="DIR", help="photos, in sub-folders too")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "-g",
        "--gallery",
        metavar="GALLERY",
        help="a gallery database, people.sqlite: keeps the best faces of each person as unknown-7, "
        "to be named there; who is enrolled in it is left out",
    )
    place.add_argument(
        "-o",
        "--output",
        metavar="OUT_DIR",
        help="a new folder: one sub-folder a person with the faces cut out, ready to be named "
        "and enrolled",
    )
    parser.add_argument(
        "--keep-unknown",
        type=days,
        metavar="DAYS",
        help="with -g: for how many days the faces wait for a name (default: 30)",
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
        help="write, or keep, groups of at least this many faces (default: 2)",
    )
    _add_shared_options(parser)


def run_cluster(options: argparse.Namespace) -> int:
    """Group, keep or write the faces, and print the groups."""
    from face_encode.evaluation.clustering import (
        KEEP_DAYS_OF_PHOTOS,
        check_output_folder,
        group_photos,
        keep_groups,
        write_groups,
    )
    from face_encode.gallery.database import DatabaseGallery

    if options.gallery is None:
        check_output_folder(options.output)
    else:
        check_database(options.gallery)
    if options.keep_unknown is not None and not (options.gallery and options.keep_unknown):
        raise InputError("--keep-unknown is for -g, and more than 0 days")
    detector, encoder = open_models(options)
    with ExitStack() as stack:
        gallery = None
        if options.gallery is not None:
            gallery = stack.enter_context(closing(DatabaseGallery(options.gallery, encoder)))
        result = group_photos(
            options.photos,
            detector,
            encoder,
            threshold=options.threshold,
            gallery=gallery,
            workers=options.workers,
        )
        if gallery is None:
            names = write_groups(result, options.output, options.min_faces)
        else:
            names = keep_groups(
                result,
                gallery,
                options.photos,
                detector,
                min_faces=options.min_faces,
                keep_days=options.keep_unknown or KEEP_DAYS_OF_PHOTOS,
            )
    if options.json:
        print_json(result.as_dict(names))
        return 0
    sizes = [len(group) for group in result.groups]
    place = f"kept in {options.gallery}" if options.gallery else f"written to {options.output}"
    faces = sum(sizes) + sum(result.enrolled.values())
    print_safely(
        f"{faces:,} faces in {result.photos:,} photos: {len(names):,} people with at "
        f"least {options.min_faces} faces ({sum(sizes[: len(names)]):,} faces) {place}"
    )
    shown = [[name, str(size)] for name, size in zip(names, sizes, strict=False)]
    print_table(["who" if options.gallery else "folder", "faces"], shown[:ROWS_SHOWN])
    print_lines(
        "enrolled already", [f"{name}: {count} faces" for name, count in result.enrolled.items()]
    )
    _print_photos("left out", result.left_out)
    return 0
