"""``face-encode evaluate pairs``: verification on a list of pairs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from face_encode.evaluation.commands import shared
from face_encode.terminal import add_json_option, print_json, print_table

if TYPE_CHECKING:
    from face_encode.evaluation.pairs import PairsResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    shared.add_report_option(parser)
    shared.add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, print, and write the report where one is asked for."""
    from face_encode.evaluation.faces import measure_speeds
    from face_encode.evaluation.html import check_report_path
    from face_encode.evaluation.pairs import evaluate_pairs, read_pairs
    from face_encode.evaluation.report import write_pairs_report

    pairs = read_pairs(options.pairs, options.photos)
    if options.report is not None:
        check_report_path(options.report)
    detector, encoder = shared.open_models(options)
    result = evaluate_pairs(
        pairs, detector, encoder, metric=options.metric, workers=options.workers
    )
    if options.report is not None:
        speeds = measure_speeds(pairs.photos(), detector, encoder)
        write_pairs_report(result, options.report, speeds)
    if options.json:
        print_json(result.as_dict())
    else:
        _print(result)
    return 0


def _print(result: PairsResult) -> None:
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
            f"{shared.percent(numbers.accuracy)} ± {shared.percent(numbers.accuracy_std)}",
            _interval(result, "accuracy"),
            how,
        ],
        ["area under the ROC", f"{numbers.auc:.5f}", _interval(result, "auc", 5), ""],
        ["equal error rate", shared.percent(numbers.eer), _interval(result, "eer"), ""],
    ]
    different = int((~result.pairs.same).sum())
    for rate, tar in numbers.tar_at_far.items():
        value = "" if tar is None else shared.percent(tar)
        note = f"needs {round(10 / rate):,} different pairs" if tar is None else ""
        interval = _interval(result, f"tar_at_far_{rate}")
        rows.append([f"TAR at FAR {rate:g}", value, interval, note])
    rows.append(["threshold", f"{numbers.threshold:.4f}", "", result.metric])
    print_table(["measure", "value", "95 % interval", ""], rows)
    mirrored = "mirror image averaged in" if result.mirrored else "no mirror image"
    print(
        f"{len(result.pairs):,} pairs, {different:,} of them different, {result.photos:,} photos; "
        f"encoder {result.encoder} ({mirrored}), detector {result.detector}, "
        f"{1000 * result.seconds_a_photo:.0f} ms a photo"
    )
    found = 1 - len(result.not_found) / result.photos
    print(
        f"a face was found in {shared.percent(found)} of the photos; "
        "pairs without one count as errors"
    )
    shared.print_lines(
        "photos without a face", [f"{photo}: {reason}" for photo, reason in result.not_found]
    )


def _interval(result: PairsResult, name: str, digits: int = 0) -> str:
    """An interval, in percent or to so many digits, empty where there is none."""
    interval = result.numbers.intervals.get(name)
    if interval is None:
        return ""
    if digits:
        return f"{interval.lower:.{digits}f} to {interval.upper:.{digits}f}"
    return f"{100 * interval.lower:.2f} to {shared.percent(interval.upper)}"
