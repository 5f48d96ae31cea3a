"""The report on a list of pairs: curves, histograms, the worst mistakes, settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from face_encode.evaluation.charts import Axis, Chart
from face_encode.evaluation.intervals import Indices, Interval, bootstrap
from face_encode.evaluation.page import Page, check_report_path, thumbnail
from face_encode.evaluation.pairs import PairsResult
from face_encode.evaluation.speed import Speeds
from face_encode.metrics.roc import roc_curve, smallest_meaningful_far
from face_encode.metrics.scored_pairs import Flags, Scores

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
