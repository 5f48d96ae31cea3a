"""The report on identification: the numbers, and whom was taken for whom."""

from __future__ import annotations

import math
import os

import numpy as np

from face_encode.evaluation.charts import Axis, Chart
from face_encode.evaluation.page import Page, check_report_path, thumbnail
from face_encode.evaluation.people import PeopleResult

_BINS = 60
_WORST = 24


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
    _mistakes(page, result)
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


def _mistakes(page: Page, result: PeopleResult) -> None:
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
    for row in rows[np.argsort(-best[rows], kind="stable")][:_WORST].tolist():
        pictures = [
            thumbnail(result.probes.photos[row], result.probes.faces[row]),
            thumbnail(result.enrolled[int(result.nearest_photo[row])]),
        ]
        cards.append((pictures, f"{result.true_names[row]} called {named[row]}: {best[row]:.3f}"))
    page.cards(cards)


def _percent(share: float) -> str:
    """A share as percent; nothing of NaN."""
    return "" if math.isnan(share) else f"{100 * share:.2f} %"
