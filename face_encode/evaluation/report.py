"""The reports on pairs and on people: numbers, charts, the worst mistakes in pictures, settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from face_encode.evaluation.faces import Speeds
from face_encode.evaluation.html import COLOURS, Page, chart_svg, check_report_path, thumbnail
from face_encode.evaluation.intervals import Indices, bootstrap
from face_encode.evaluation.metrics import (
    Flags,
    Scores,
    error_versus_discard,
    roc_curve,
    smallest_meaningful_far,
)
from face_encode.evaluation.pairs import PairsResult
from face_encode.evaluation.people import PeopleResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAND_REPLICATES = 200
_BINS = 60
_MAX_PAIRS_SHOWN = 12
_MAX_WRONG_NAMES_SHOWN = 24


def write_pairs_report(
    result: PairsResult, path: str | os.PathLike[str], speeds: Speeds | None = None
) -> None:
    """Write the report on a list of pairs as one HTML file that loads nothing from outside.

    Args:
        result: The measured list.
        path: Ends in ``.html``.
        speeds: For the table of speeds; None leaves them out.

    Raises:
        InputError: It cannot be written there.
        MissingExtraError: matplotlib is not installed.
    """
    check_report_path(path, charts=True)
    pairs, threshold = result.pairs, result.numbers.threshold
    page = Page(f"Verification: {result.encoder} on {len(pairs):,} pairs")
    folds = 0 if pairs.folds is None else len(np.unique(pairs.folds))
    page.text(
        f"Each of {folds} folds was judged by the threshold that was best on the others."
        if folds
        else "The threshold was chosen on these same pairs, so the accuracy is an upper bound."
    )
    page.table(["measure", "value", "95 % interval", ""], result.rows())
    page.text(
        f"A face was found in {result.photos - len(result.not_found):,} of {result.photos:,} "
        "photos. A pair with a photo without a face counts as an error."
    )
    page.heading("Curves")
    page.charts(
        [
            (
                roc_chart(result.scores, pairs.same, pairs.people),
                "The share of same pairs that match, against the share of different pairs that "
                "do, with the band that holds the curve with 95 % confidence. Left of the marker "
                "there are fewer than ten false matches, and the curve is mostly chance.",
            ),
            (
                scores_chart(
                    "share of pairs",
                    {
                        "same person": result.scores[pairs.same],
                        "different people": result.scores[~pairs.same],
                    },
                    threshold,
                ),
                "How near the two faces of same and of different pairs are.",
            ),
            (
                rates_chart(result.scores, pairs.same, threshold),
                "The cost of a threshold: false matches and misses, as a share of the pairs.",
            ),
        ]
    )
    if result.quality is not None:
        page.heading("Error versus discard")
        page.charts(
            [
                (
                    discard_chart(result.scores, pairs.same, result.quality, threshold),
                    "The share of same pairs that are missed, as those of the lowest quality are "
                    "discarded. The more it falls, the more the quality tells.",
                )
            ]
        )
    # NaN compares false: a pair without a score has no pictures to show.
    scores = np.where(pairs.same, result.scores, -result.scores)
    limit = np.where(pairs.same, threshold, -threshold)
    for title, wrong in (
        ("The worst false matches", ~pairs.same & (scores <= limit)),
        ("The worst misses", pairs.same & (scores < limit)),
    ):
        rows = np.flatnonzero(wrong)
        page.heading(f"{title} ({len(rows)} in all)")
        if len(rows) == 0:
            page.text("None.")
        worst = rows[np.argsort(scores[rows], kind="stable")][:_MAX_PAIRS_SHOWN].tolist()
        page.cards([_pair_card(result, row) for row in worst])
    page.left_out(result.not_found)
    page.heading("Speed")
    timed = [("a photo, everything, in batches over all cores", 1000 * result.seconds_a_photo)]
    if speeds is not None:
        timed += [
            ("reading a photo", speeds.reading),
            ("finding its faces, one process", speeds.detection),
            ("encoding one face", speeds.encoding_one),
            ("encoding a face in a batch of 32", speeds.encoding_batched),
        ]
    page.table(["part", "milliseconds"], [[part, f"{time:.1f}"] for part, time in timed])
    page.heading("Settings")
    page.table(
        ["setting", "value"],
        [
            ["encoder", result.encoder],
            ["mirror image averaged in", "yes" if result.mirrored else "no"],
            ["detector", result.detector],
            ["face of a photo", "the largest nearest the middle"],
            ["metric", result.metric],
            ["folds", str(folds or "none")],
        ],
    )
    page.write(path)


def write_people_report(result: PeopleResult, path: str | os.PathLike[str]) -> None:
    """Write the report on folders of people as one HTML file that loads nothing from outside.

    Args:
        result: The measured folders.
        path: Ends in ``.html``.

    Raises:
        InputError: It cannot be written there.
        MissingExtraError: matplotlib is not installed.
    """
    check_report_path(path, charts=True)
    page = Page(f"Identification: {result.encoder} with {len(result.gallery_names):,} people")
    page.text(f"{result.summary()}.")
    page.table(["measure", "value"], result.rows())
    answers = result.answers()
    nearest = np.array([each.similarity for each in answers])
    if np.isfinite(nearest).any():
        strange = np.array([each.stranger for each in answers])
        rows = [each.row for each in answers]
        nearest_names = np.array(result.gallery_names)[result.similarities[rows].argmax(axis=1)]
        right = nearest_names == np.array(result.true_names)[rows]
        groups = {"right person": right, "stranger": strange, "wrong person": ~right & ~strange}
        chart = scores_chart(
            "share of probes",
            {label: nearest[group] for label, group in groups.items()},
            result.identification.threshold,
            int(np.isfinite(nearest).sum()),
        )
        page.heading("Nearest person")
        page.charts([(chart, "How near the nearest enrolled person is.")])
    wrong = [each for each in answers if each.kind == "wrong"]
    page.heading(f"Wrong names ({len(wrong)} in all)")
    if not wrong:
        page.text("None.")
    page.cards(
        [
            (
                [
                    thumbnail(result.probes.photos[each.row], result.probes.faces[each.row]),
                    thumbnail(result.enrolled[int(result.nearest_photo[each.row])]),
                ],
                f"{each.true_name} called {each.given}: {each.similarity:.3f}",
            )
            for each in wrong[:_MAX_WRONG_NAMES_SHOWN]
        ]
    )
    page.left_out(result.not_used())
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
        points = np.searchsorted(curve.false_match_rate, rates * (1 + 1e-9), side="right") - 1
        return curve.true_match_rate[points]

    samples = bootstrap(at_rates, people, _BAND_REPLICATES)
    lower, upper = np.quantile(samples, [0.025, 0.975], axis=0)
    bottom = max(0.0, np.floor(10 * float(lower.min()) - 1e-9) / 10)

    def draw(axes: Axes) -> None:
        axes.set(xscale="log", xlim=(rates[0], 1), ylim=(min(bottom, 0.9), 1))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.fill_between(rates, lower, upper, color=COLOURS["a"], alpha=0.25, linewidth=0)
        axes.plot(rates, at_rates(np.arange(len(scores))), color=COLOURS["a"])
        _mark(axes, smallest_meaningful_far(int((~same).sum())), "10 false matches")

    return chart_svg("ROC curve", "false match rate", "true match rate", draw)


def scores_chart(
    y_label: str, groups: dict[str, Scores], threshold: float, total: int | None = None
) -> str:
    """Histograms of similarities, and the threshold, as SVG.

    Args:
        y_label: The meaning of the heights.
        groups: The label and the similarities of each histogram, three at most; NaN where a
            face was not found.
        threshold: Similarity from which two faces count as one person.
        total: The number that heights are a share of; None takes each group's own.
    """
    every = np.concatenate(list(groups.values()))
    edges = np.linspace(np.nanmin(every), np.nanmax(every) + 1e-9, _BINS + 1)

    def draw(axes: Axes) -> None:
        for (label, similarities), colour in zip(groups.items(), "abc", strict=False):
            found = similarities[np.isfinite(similarities)]
            shares = np.histogram(found, edges)[0] / (total or max(1, len(similarities)))
            axes.stairs(shares, edges, fill=True, color=COLOURS[colour], alpha=0.25)
            axes.stairs(shares, edges, color=COLOURS[colour], linewidth=2, label=label)
        _mark(axes, threshold, f"threshold {threshold:.3f}")

    return chart_svg("Histogram of similarities", "similarity", y_label, draw)


def discard_chart(scores: Scores, same: Flags, quality: Scores, threshold: float) -> str:
    """The miss rate against the share discarded by quality, as SVG."""
    shares = np.linspace(0, 0.3, 121)
    misses = error_versus_discard(scores, same, quality, threshold, shares)

    def draw(axes: Axes) -> None:
        axes.set(xlim=(0, shares[-1]), ylim=(0, max(float(misses.max()), 1e-6) * 1.1))
        axes.plot(shares, misses, color=COLOURS["a"])

    return chart_svg("Error versus discard", "share discarded", "miss rate", draw)


def rates_chart(scores: Scores, same: Flags, threshold: float) -> str:
    """False match and miss rate against the threshold, as SVG."""
    curve = roc_curve(scores, same)
    thresholds, misses = curve.thresholds[1:], 1 - curve.true_match_rate[1:]

    def draw(axes: Axes) -> None:
        axes.plot(
            thresholds, curve.false_match_rate[1:], color=COLOURS["b"], label="false matches (FAR)"
        )
        axes.plot(thresholds, misses, color=COLOURS["a"], label="misses (FRR)")
        _mark(axes, threshold, f"threshold {threshold:.3f}")

    return chart_svg("Error rates against the threshold", "threshold", "rate", draw)


def _mark(axes: Axes, x: float, label: str) -> None:
    """Draw a dashed vertical line across the chart."""
    axes.axvline(x, color=COLOURS["ink"], linestyle="--", linewidth=1, label=label)


def _pair_card(result: PairsResult, row: int) -> tuple[list[str], str]:
    """The two pictures of a pair, and the text below them."""
    photos = (result.pairs.photos_a[row], result.pairs.photos_b[row])
    names = " / ".join(Path(photo).name for photo in photos)
    return [thumbnail(photo) for photo in photos], f"{result.scores[row]:.3f}: {names}"
