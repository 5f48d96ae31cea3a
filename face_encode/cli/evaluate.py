"""The commands that say how far to trust a match.

For each command one function declares its arguments and one runs it and returns the exit code.
Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from face_encode.cli.options import (
    ROWS_SHOWN,
    add_json_option,
    add_model_options,
    add_report_option,
    open_models,
    percent,
    positive,
    print_json,
    print_lines,
    print_table,
    rate,
)

if TYPE_CHECKING:
    from face_encode.evaluation.pairs import PairsResult
    from face_encode.evaluation.people import PeopleResult
    from face_encode.gallery.thresholds import Calibration


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``evaluate pairs``, ``evaluate people``, ``calibrate``, ``check`` and ``cluster``.

    Args:
        commands: What ``add_subparsers`` of the program's parser returned. Each parser sets
            ``run``, a function from the parsed options to the exit code.
    """
    evaluate = commands.add_parser("evaluate", help="measure how often a match is right")
    measurements = evaluate.add_subparsers(title="measurements", metavar="WHAT", required=True)
    for parsers, table in ((measurements, _MEASUREMENTS), (commands, _COMMANDS)):
        for name, (add_arguments, run, summary) in table.items():
            parser = parsers.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
            add_arguments(parser)
            parser.set_defaults(run=run)


def add_pairs_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
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
    add_json_option(parser)
    add_report_option(parser)
    add_model_options(parser, threshold=False, workers=True)


def run_pairs(options: argparse.Namespace) -> int:
    """Measure, print, and write the report where one is asked for."""
    from face_encode.evaluation.faces import measure_speeds
    from face_encode.evaluation.html import check_report_path
    from face_encode.evaluation.pairs import evaluate_pairs, read_pairs
    from face_encode.evaluation.report import write_pairs_report

    pairs = read_pairs(options.pairs, options.photos)
    if options.report is not None:
        check_report_path(options.report)
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
    """The numbers for people, with their intervals."""
    numbers = result.numbers
    folds = result.pairs.folds
    how = (
        "threshold chosen on the same pairs; deviation over ten parts"
        if folds is None
        else f"threshold chosen on the other folds; {folds.max() + 1} folds"
    )
    rows = [
        [
            "accuracy",
            f"{percent(numbers.accuracy)} ± {percent(numbers.accuracy_std)}",
            _interval(result, "accuracy"),
            how,
        ],
        ["area under the ROC", f"{numbers.auc:.5f}", _interval(result, "auc", 5), ""],
        ["equal error rate", percent(numbers.eer), _interval(result, "eer"), ""],
    ]
    different = int((~result.pairs.same).sum())
    for far, tar in numbers.tar_at_far.items():
        value = "" if tar is None else percent(tar)
        note = f"needs {round(10 / far):,} different pairs" if tar is None else ""
        interval = _interval(result, f"tar_at_far_{far}")
        rows.append([f"TAR at FAR {far:g}", value, interval, note])
    rows.append(["threshold", f"{numbers.threshold:.4f}", "", result.metric])
    print_table(["measure", "value", "95 % interval", ""], rows)
    mirrored = "mirror image averaged in" if result.mirrored else "no mirror image"
    print(
        f"{len(result.pairs):,} pairs, {different:,} of them different, {result.photos:,} photos; "
        f"encoder {result.encoder} ({mirrored}), detector {result.detector}, "
        f"{1000 * result.seconds_a_photo:.0f} ms a photo"
    )
    found = 1 - len(result.not_found) / result.photos
    print(f"a face was found in {percent(found)} of the photos; pairs without one count as errors")
    print_lines(
        "photos without a face", [f"{photo}: {reason}" for photo, reason in result.not_found]
    )


def _interval(result: PairsResult, name: str, digits: int = 0) -> str:
    """An interval, in percent or to so many digits, empty where there is none."""
    interval = result.numbers.intervals.get(name)
    if interval is None:
        return ""
    if digits:
        return f"{interval.lower:.{digits}f} to {interval.upper:.{digits}f}"
    return f"{100 * interval.lower:.2f} to {percent(interval.upper)}"


def add_people_arguments(parser: argparse.ArgumentParser) -> None:
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
    add_json_option(parser)
    add_report_option(parser)
    add_model_options(parser, threshold=False, workers=True)


def run_people(options: argparse.Namespace) -> int:
    """Measure, print, and write the report where one is asked for."""
    from face_encode.evaluation.contact_sheet import check_sheet_path, write_contact_sheet
    from face_encode.evaluation.html import check_report_path
    from face_encode.evaluation.people import evaluate_people
    from face_encode.evaluation.report import write_people_report

    if options.report is not None:
        check_report_path(options.report)
    if options.contact_sheet is not None:
        check_sheet_path(options.contact_sheet)
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
    sheets = (
        []
        if options.contact_sheet is None
        else [str(page) for page in write_contact_sheet(result, options.contact_sheet)]
    )
    if options.json:
        print_json(result.as_dict() | ({"contact_sheets": sheets} if sheets else {}))
    else:
        _print_people(result)
        if sheets:
            more = f" to {sheets[-1]}" if len(sheets) > 1 else ""
            print(f"\ncontact sheet: {sheets[0]}{more}")
    return 0


def _print_people(result: PeopleResult) -> None:
    """The numbers for people."""
    from face_encode.evaluation.report import number_rows, summary

    print(summary(result))
    print_table(["measure", "value"], number_rows(result))
    print_lines(
        "confused",
        [
            f"{name} was called {named}" + (f" ({count} times)" if count > 1 else "")
            for (name, named), count in result.identification.confusions.items()
        ],
    )
    print_lines(
        "photos without a face",
        [f"{photo}: {why}" for photo, why in (*result.left_out, *result.probes.not_found())],
    )


def add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
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
    add_json_option(parser)
    add_model_options(parser, threshold=False, workers=True)


def run_calibrate(options: argparse.Namespace) -> int:
    """Learn, keep it in the gallery where there is one, and print."""
    import numpy as np

    from face_encode.evaluation.calibration import calibrate
    from face_encode.evaluation.faces import embed_faces
    from face_encode.gallery.opening import gallery_label, names_gallery, open_gallery
    from face_encode.photos.folders import people_in

    from_gallery = names_gallery(options.people)
    path = options.people if from_gallery else options.gallery
    detector, encoder = open_models(options)
    # The gallery is opened before the work, so that a wrong one is refused in time.
    gallery = None if path is None else open_gallery(path, encoder=encoder, create=False)
    if from_gallery and gallery is not None:
        enrolled_people = gallery.copy()
        embeddings, names = enrolled_people.embeddings, enrolled_people.names
    else:
        people = people_in(options.people)
        rows = [(name, photo) for name, photos in people.items() for photo in photos]
        faces = embed_faces(
            [photo for _, photo in rows], detector, encoder, workers=options.workers
        )
        embeddings = faces.embeddings[faces.found]
        names = np.array([name for name, _ in rows])[faces.found]
    learnt = calibrate(embeddings, names, options.false_match_rate)
    enrolled = len(names)
    if gallery is not None:
        enrolled = len(gallery)
        gallery.calibration = learnt
        gallery.close()
        path = gallery_label(path)
    if options.json:
        values = json.loads(learnt.to_json())
        print_json({**values, "gallery": path, "threshold": learnt.threshold(enrolled)})
    else:
        _print_calibration(learnt, enrolled, path)
    return 0


def _print_calibration(learnt: Calibration, enrolled: int, path: str | None) -> None:
    """The thresholds for people."""
    print(
        f"learnt from {learnt.photos:,} photos of {learnt.people:,} people, for a false match "
        f"rate of {learnt.false_match_rate:g} a search"
    )
    sizes = sorted({*learnt.enrolled, enrolled})
    intervals = {
        1: learnt.verification_interval,
        learnt.enrolled[-1]: learnt.search_interval,
    }
    rows = []
    for size in sizes:
        ends = intervals.get(size)
        threshold = learnt.threshold(size)
        rows.append(
            [
                "two photos compared" if size == 1 else f"{size:,} photos enrolled",
                f"{threshold:.4f}",
                "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}",
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
        print(f"kept in {path}: {learnt.threshold(enrolled):.4f} for its {enrolled:,} photos")


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("people", metavar="DIR", help="a folder with a sub-folder a person")
    add_json_option(parser)
    parser.add_argument(
        "--report",
        metavar="OUT.html",
        help="show what was noticed with its pictures, one file",
    )
    add_model_options(parser, threshold=False, workers=True)


def run_check(options: argparse.Namespace) -> int:
    """Look, print, and show the pictures where a report is asked for."""
    from face_encode.evaluation.checking import check_people, write_check_report
    from face_encode.evaluation.html import check_report_path

    if options.report is not None:
        check_report_path(options.report)
    detector, encoder = open_models(options)
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
    print_lines("without a face", [f"{photo}: {why}" for photo, why in result.left_out])
    return 0


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
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
    add_model_options(parser, threshold=False, workers=True)


def run_cluster(options: argparse.Namespace) -> int:
    """Group, write the faces, and print the groups."""
    from face_encode.evaluation.clustering import check_output_folder, group_photos, write_groups

    check_output_folder(options.output)
    detector, encoder = open_models(options)
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
    print_lines("left out", [f"{photo}: {why}" for photo, why in result.left_out])
    return 0


_MEASUREMENTS = {
    "pairs": (
        add_pairs_arguments,
        run_pairs,
        "verification on a list of pairs of photos (LFW's formats or CSV)",
    ),
    "people": (
        add_people_arguments,
        run_people,
        "identification: a folder of people to enrol, and a folder of probes",
    ),
}
_COMMANDS = {
    "calibrate": (
        add_calibrate_arguments,
        run_calibrate,
        "learn the threshold for a stated rate of false matches from your own people",
    ),
    "check": (
        add_check_arguments,
        run_check,
        "name likely mistakes in a folder of people: mislabelled, doubled, blurred photos",
    ),
    "cluster": (
        add_cluster_arguments,
        run_cluster,
        "sort the faces of unnamed photos into people",
    ),
}
