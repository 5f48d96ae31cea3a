"""The report on a list of pairs: curves, histograms, the worst mistakes, settings."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from face_encode.evaluation.faces import Speeds
from face_encode.evaluation.html import Axis, Chart, Page, check_report_path, thumbnail
from face_encode.evaluation.intervals import Indices, Interval, bootstrap
from face_encode.evaluation.metrics import Flags, Scores, roc_curve, smallest_meaningful_far
from face_encode.evaluation.pairs import PairsResult
from face_encode.evaluation.people import PeopleResult

_BAND_REPLICATES = 200
_BINS = 60
_WORST = 12


def write_pairs_report(
    result: PairsResult, path: str | os.PathLike[str], speeds: Speeds | None = None
) -> None:
    """Write the report as one HTML file that needs nothing else.

    Args:
        result: What was measured.
        path: Ends in ``.html``.
        speeds: For the table of speeds; left out where None.

    Raises:
        InputError: It cannot be written there.
    """
    check_report_path(path)
    pairs, numbers = result.pairs, result.numbers
    page = Page(f"Verification: {result.encoder} on {len(pairs):,} pairs")
    folds = 0 if pairs.folds is None else len(np.unique(pairs.folds))
    page.text(
        "The threshold was chosen on these same pairs, so the accuracy is an upper bound."
        if not folds
        else f"Each of {folds} folds was judged by the threshold that was best on the others."
    )
    page.table(["measure", "value", "95 % interval"], _number_rows(result))
    page.text(
        f"A face was found in {result.photos - len(result.not_found):,} of {result.photos:,} "
        "photos. A pair with a photo without a face counts as an error."
    )
    page.heading("Curves")
    page.charts(
        [
            (
                roc_chart(result.scores, pairs.same, pairs.people),
                "How many same pairs match, against how many different pairs do, with the band "
                "that holds the curve with 95 % confidence. Left of the marker there are fewer "
                "than ten false matches, and the curve is mostly chance.",
            ),
            (
                histogram_chart(result.scores, pairs.same, numbers.threshold),
                "How near the two faces of same and of different pairs are.",
            ),
            (
                rates_chart(result.scores, pairs.same, numbers.threshold),
                "What a threshold costs: false matches and misses, as a share of the pairs.",
            ),
        ]
    )
    _mistakes(page, result)
    if result.not_found:
        page.heading("Photos without a face")
        page.table(["photo", "reason"], [list(row) for row in result.not_found])
    page.heading("Speed")
    page.table(["part", "milliseconds"], _speed_rows(result, speeds))
    page.heading("Settings")
    page.table(
        ["setting", "value"],
        [
            ["encoder", result.encoder],
            ["mirror image averaged in", "yes" if result.mirrored else "no"],
            ["detector", result.detector],
            ["face of a photo", "the largest nearest the middle"],
            ["metric", result.metric],
            ["folds", str(folds) if folds else "none"],
        ],
    )
    page.write(path)


def roc_chart(scores: Scores, same: Flags, people: Sequence[str]) -> str:
    """The ROC curve over a logarithmic axis, with its 95 % band, as SVG.

    Args:
        scores: float64 ``(N,)``; NaN where a face was not found.
        same: bool ``(N,)``.
        people: N people or photos, the clusters of the bootstrap.
    """
    rates = np.geomspace(1 / (1 + (~same).sum()), 1, 121)

    def at_rates(drawn: Indices) -> Scores:
        curve = roc_curve(scores[drawn], same[drawn])
        place = np.searchsorted(curve.false_match_rate, rates * (1 + 1e-9), side="right") - 1
        return curve.true_match_rate[place]

    whole = at_rates(np.arange(len(scores)))
    samples = bootstrap(at_rates, people, _BAND_REPLICATES)
    lower, upper = np.quantile(samples, [0.025, 0.975], axis=0)
    bottom = max(0.0, np.floor(10 * float(lower.min()) - 1e-9) / 10)
    chart = Chart(
        "ROC curve",
        Axis("false match rate", float(rates[0]), 1, logarithmic=True),
        Axis("true match rate", min(bottom, 0.9), 1),
    )
    chart.band(rates, lower, upper, "a")
    chart.line(rates, whole, "a")
    chart.marker(smallest_meaningful_far(int((~same).sum())), "10 false matches", at_top=False)
    return chart.svg()


def histogram_chart(scores: Scores, same: Flags, threshold: float) -> str:
    """The scores of same and different pairs, and the threshold, as SVG."""
    found = np.isfinite(scores)
    edges = np.linspace(scores[found].min(), scores[found].max() + 1e-9, _BINS + 1)
    shares = [
        np.histogram(scores[found & kind], edges)[0] / max(1, int(kind.sum()))
        for kind in (same, ~same)
    ]
    chart = Chart(
        "Histogram of scores",
        Axis("similarity", float(edges[0]), float(edges[-1])),
        Axis("share of pairs", 0, 1.1 * float(np.max(shares))),
    )
    chart.bars(edges, shares[0], "a", "same person")
    chart.bars(edges, shares[1], "b", "different people")
    chart.marker(threshold, f"threshold {threshold:.3f}")
    return chart.svg()


def rates_chart(scores: Scores, same: Flags, threshold: float) -> str:
    """False match and miss rate against the threshold, as SVG."""
    curve = roc_curve(scores, same)
    chart = Chart(
        "Error rates against the threshold",
        Axis("threshold", float(curve.thresholds[-1]), float(curve.thresholds[1]) + 1e-9),
        Axis("rate", 0, 1),
    )
    chart.line(curve.thresholds[1:], curve.false_match_rate[1:], "b", "false matches (FAR)")
    chart.line(curve.thresholds[1:], 1 - curve.true_match_rate[1:], "a", "misses (FRR)")
    chart.marker(threshold, f"threshold {threshold:.3f}")
    return chart.svg()


def _number_rows(result: PairsResult) -> list[list[str]]:
    """The measures as rows of texts."""
    numbers = result.numbers
    deviation = f"{100 * numbers.accuracy:.2f} % ± {100 * numbers.accuracy_std:.2f} %"
    rows = [
        ["accuracy", deviation, _percents(numbers.intervals["accuracy"])],
        ["equal error rate", f"{100 * numbers.eer:.2f} %", _percents(numbers.intervals["eer"])],
        [
            "area under the ROC curve",
            f"{numbers.auc:.5f}",
            "{0.lower:.5f} to {0.upper:.5f}".format(numbers.intervals["auc"]),
        ],
    ]
    for rate, tar in numbers.tar_at_far.items():
        if tar is not None:
            interval = numbers.intervals[f"tar_at_far_{rate}"]
            rows.append([f"TAR at FAR {rate:g}", f"{100 * tar:.2f} %", _percents(interval)])
    rows.append(["threshold", f"{numbers.threshold:.4f}", ""])
    return rows


def _percents(interval: Interval) -> str:
    """An interval in percent."""
    return f"{100 * interval.lower:.2f} % to {100 * interval.upper:.2f} %"


def _speed_rows(result: PairsResult, speeds: Speeds | None) -> list[list[str]]:
    """The speeds as rows of texts."""
    rows = [
        ["a photo, everything, in batches over all cores", f"{1000 * result.seconds_a_photo:.1f}"]
    ]
    if speeds is not None:
        rows += [
            ["reading a photo", f"{speeds.reading:.1f}"],
            ["finding its faces, one process", f"{speeds.detection:.1f}"],
            ["encoding one face", f"{speeds.encoding_one:.1f}"],
            ["encoding a face in a batch of 32", f"{speeds.encoding_batched:.1f}"],
        ]
    return rows


def _mistakes(page: Page, result: PairsResult) -> None:
    """The worst false matches and misses as pairs of pictures."""
    scores, same = result.scores, result.pairs.same
    threshold = result.numbers.threshold
    found = np.isfinite(scores)
    for title, kind, order in (
        ("The worst false matches", ~same & found & (scores >= threshold), -scores),
        ("The worst misses", same & found & (scores < threshold), scores),
    ):
        places = np.flatnonzero(kind)
        worst = places[np.argsort(order[places], kind="stable")][:_WORST]
        page.heading(f"{title} ({len(places)} in all)")
        if len(worst) == 0:
            page.text("None.")
        page.cards([_pair_card(result, int(place)) for place in worst])


def _pair_card(result: PairsResult, place: int) -> tuple[list[str], str]:
    """The two pictures of a pair, and the text below them."""
    photos = (result.pairs.photos_a[place], result.pairs.photos_b[place])
    names = " / ".join(Path(photo).name for photo in photos)
    return [thumbnail(photo) for photo in photos], f"{result.scores[place]:.3f}: {names}"


_WORST_OF_PEOPLE_REPORT = 24


def summary(result: PeopleResult) -> str:
    """The plain share right, in a sentence."""
    numbers = result.identification
    share = 100 * numbers.correct / numbers.probes
    interval = numbers.correct_interval
    return (
        f"{numbers.correct:,} of {numbers.probes:,} photos answered right ({share:.1f} %, "
        f"95 % interval {100 * interval.lower:.1f} to {100 * interval.upper:.1f} %): "
        f"{len(result.gallery_names):,} people enrolled with {len(result.enrolled):,} photos, "
        f"{numbers.enrolled_probes:,} photos of them and {numbers.stranger_probes:,} of strangers "
        "searched for"
    )


def number_rows(result: PeopleResult) -> list[list[str]]:
    """The measures as rows of two texts."""
    numbers = result.identification
    rows = [
        ["right person nearest (rank 1)", _percent(numbers.rank_1)],
        ["right person among the nearest five (rank 5)", _percent(numbers.rank_5)],
        ["threshold", f"{numbers.threshold:.4f}"],
        ["enrolled, given another name", f"{numbers.wrong_name:,} of {numbers.enrolled_probes:,}"],
        ["enrolled, given no name", f"{numbers.missed:,} of {numbers.enrolled_probes:,}"],
        ["strangers given a name", f"{numbers.false_alarms:,} of {numbers.stranger_probes:,}"],
    ]
    interval = numbers.false_alarm_interval
    if interval is not None:
        share = numbers.false_alarms / numbers.stranger_probes
        ends = f"{100 * interval.lower:.2f} to {100 * interval.upper:.2f} %"
        rows[-1][1] += f" ({_percent(share)}, 95 % interval {ends})"
    rows += [
        [
            f"identified when {each.false_alarm_rate:g} of strangers may raise an alarm",
            f"{_percent(each.identified)} (threshold {each.threshold:.4f})",
        ]
        for each in numbers.at_false_alarm_rate
    ]
    rows += [
        ["probes without a face", f"{numbers.not_found:,}"],
        ["encoder, detector", f"{result.encoder}, {result.detector}"],
    ]
    return rows


def write_people_report(result: PeopleResult, path: str | os.PathLike[str]) -> None:
    """Write the report as one HTML file that needs nothing else.

    Args:
        result: What was measured.
        path: Ends in ``.html``.

    Raises:
        InputError: It cannot be written there.
    """
    check_report_path(path)
    page = Page(f"Identification: {result.encoder} with {len(result.gallery_names):,} people")
    page.text(f"{summary(result)}.")
    page.table(["measure", "value"], number_rows(result))
    page.heading("Nearest person")
    page.charts([(_nearest_chart(result), "How near the nearest enrolled person is.")])
    _mistakes_of_people_report(page, result)
    missing = [*result.left_out, *result.probes.not_found()]
    if missing:
        page.heading("Photos without a face")
        page.table(["photo", "reason"], [list(row) for row in missing])
    page.write(path)


def _nearest_chart(result: PeopleResult) -> str:
    """Histograms of the nearest person's similarity: right, wrong, stranger."""
    found = np.isfinite(result.similarities).all(axis=1)
    similarities = result.similarities[found]
    names = np.array(result.true_names)[found]
    best = similarities.max(axis=1)
    right = np.array(result.gallery_names)[similarities.argmax(axis=1)] == names
    stranger = ~np.isin(names, result.gallery_names)
    if len(best) == 0:
        return ""
    edges = np.linspace(float(best.min()) - 1e-3, float(best.max()) + 1e-3, _BINS + 1)
    kinds = [("right person", right, "a"), ("stranger", stranger, "b")]
    kinds.append(("wrong person", ~right & ~stranger, "c"))
    heights = [np.histogram(best[kind], edges)[0] / len(best) for _, kind, _ in kinds]
    chart = Chart(
        "Similarity of the nearest person",
        Axis("similarity", float(edges[0]), float(edges[-1])),
        Axis("share of probes", 0, 1.1 * float(np.max(heights))),
    )
    for (label, _, colour), height in zip(kinds, heights, strict=True):
        chart.bars(edges, height, colour, label)
    threshold = result.identification.threshold
    chart.marker(threshold, f"threshold {threshold:.3f}")
    return chart.svg()


def _mistakes_of_people_report(page: Page, result: PeopleResult) -> None:
    """Every kind of wrong name with its pictures, the nearest first."""
    best = np.where(np.isnan(result.similarities), -np.inf, result.similarities).max(axis=1)
    named = np.array(result.gallery_names)[
        np.where(np.isnan(result.similarities), -np.inf, result.similarities).argmax(axis=1)
    ]
    wrong = (best >= result.identification.threshold) & (named != np.array(result.true_names))
    page.heading(f"Wrong names ({int(wrong.sum())} in all)")
    if not wrong.any():
        page.text("None.")
    rows = np.flatnonzero(wrong)
    cards = []
    for row in rows[np.argsort(-best[rows], kind="stable")][:_WORST_OF_PEOPLE_REPORT].tolist():
        pictures = [
            thumbnail(result.probes.photos[row], result.probes.faces[row]),
            thumbnail(result.enrolled[int(result.nearest_photo[row])]),
        ]
        cards.append((pictures, f"{result.true_names[row]} called {named[row]}: {best[row]:.3f}"))
    page.cards(cards)


def _percent(share: float) -> str:
    """A share as percent; nothing of NaN."""
    return "" if math.isnan(share) else f"{100 * share:.2f} %"
