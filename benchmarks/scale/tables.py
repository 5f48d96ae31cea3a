"""The numbers as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.scale.growth import Growth
from benchmarks.scale.search import LOOP, READING, SEARCH_KINDS
from benchmarks.timing import number_of

_LABELS = {each.kind: each.label for each in (READING, *SEARCH_KINDS, LOOP)}


def markdown(parts: dict[str, dict[str, Any]]) -> str:
    """All parts that there are, each with the conditions of its measurement."""
    sections = []
    conditions = [found["conditions"] for found in parts.values()]
    shared = {
        name: value
        for name, value in (conditions[0] if conditions else {}).items()
        if all(each.get(name) == value for each in conditions)
    }
    for part, title, tell in (
        ("enrolment", "Enrolment beside other packages", _enrolment),
        ("memory", "Memory of an enrolment", _memory),
        ("encoding", "Milliseconds per face", _encoding),
        ("search", "Search", _search),
        ("recall", "The same person as the exact search", _recall),
    ):
        if part not in parts:
            continue
        found = parts[part]
        lines = [f"## {title}", "", *tell(found)]
        for why, what in _by_reason(found["skipped"]).items():
            lines += ["", f"Not measured: {'; '.join(what)}: {why}."]
        own = {key: value for key, value in found["conditions"].items() if key not in shared}
        if own:
            lines += ["", f"Conditions: {_listed(own)}."]
        sections.append("\n".join(lines))
    head = ["# Speed and memory as sizes grow"]
    if shared:
        head.append(f"All on one machine: {_listed(shared)}.")
    return "\n\n".join([*head, *sections]) + "\n"


def _by_reason(skipped: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for each in skipped:
        reasons.setdefault(each["why"], []).append(each["what"])
    return reasons


def _listed(facts: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in facts.items())


def _enrolment(part: dict[str, Any]) -> list[str]:
    rows = [
        [
            row["contestant"],
            f"{row['photos']:,}",
            f"{100 * row['faces'] / row['photos']:.1f} %",
            f"{row['photos_a_second']:.3g}",
            _milliseconds(row["seconds_a_photo"], 1e3),
            f"{row['ratio']:.2f} ({row['ratio_of_shortest']:.2f})",
            f"{row['ratio_to_single']:.2f} ({row['ratio_to_single_of_shortest']:.2f})",
            f"{row['start_seconds']:.1f} s",
        ]
        for row in part["rows"]
    ]
    header = ["", "photos", "with a face", "photos per second", "ms per photo, median (shortest)"]
    header += ["face_encode is this many times as fast (by the shortest times)"]
    header += ["with `dlib_resnet_single`", "start, not counted"]
    return [*_table(header, rows), "", f"face_encode's encoder ran on {part['engine']}."]


def _memory(part: dict[str, Any]) -> list[str]:
    least = min((row["peak_megabytes"] for row in part["rows"]), default=1)
    rows = [
        [
            f"{row['photos']:,}",
            f"{row['peak_megabytes']:,.0f} MB",
            f"{row['peak_megabytes'] / least:.2f}",
            f"{row['peak_resident_megabytes']:,.0f} MB",
            f"{row['seconds_with_start']:.0f} s",
        ]
        for row in part["rows"]
    ]
    header = ["photos", "peak, shared pages counted once", "ratio to the smallest"]
    return _table([*header, "peak, shared pages counted per process", "time, start included"], rows)


def _encoding(part: dict[str, Any]) -> list[str]:
    batches = sorted({row["batch"] for row in part["rows"]})
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in part["rows"]:
        name = row["encoder"] + (" (random weights)" if row["random_weights"] else "")
        times = _milliseconds(row["milliseconds_a_face"])
        cells.setdefault((name, row["engine"]), {})[row["batch"]] = times
    rows = [
        [encoder, engine, *(found.get(batch, "") for batch in batches)]
        for (encoder, engine), found in cells.items()
    ]
    lines = _table(["encoder", "engine", *(f"{batch} at once" for batch in batches)], rows)
    return [*lines, "", "Milliseconds per face: median (shortest)."]


def _search(part: dict[str, Any]) -> list[str]:
    kinds = [kind for kind in _LABELS if any(row["kind"] == kind for row in part["rows"])]
    sizes = sorted({row["faces"] for row in part["rows"]})
    by_place = {(row["kind"], row["faces"]): row for row in part["rows"]}

    def cells(size: int, tell: Any) -> list[str]:
        found = [by_place.get((kind, size)) for kind in kinds]
        return [f"{size:,}", *("" if row is None else tell(row) for row in found)]

    header = ["faces", *(_LABELS[kind] for kind in kinds)]
    lines = _table(header, [cells(size, _time_of_search) for size in sizes])
    growths = [f"{_LABELS[kind]} {Growth(**growth)}" for kind, growth in part["growth"].items()]
    lines += ["", "Milliseconds for one embedding: median (shortest)."]
    lines += ["", f"Memory is read at up to {part['bytes_a_second'] / 1e9:.3g} GB/s."]
    if growths:
        lines += ["", "Growth, with 95 % intervals: " + "; ".join(growths) + "."]
    lines += ["", "Memory of the gallery, and the time to build it:", ""]
    return lines + _table(header, [cells(size, _memory_of_search) for size in sizes])


def _time_of_search(row: dict[str, Any]) -> str:
    return _milliseconds(row["milliseconds"])


def _memory_of_search(row: dict[str, Any]) -> str:
    if "megabytes" not in row:
        return ""
    return f"{max(0, row['megabytes']):,.0f} MB, {row['build_seconds']:.1f} s"


def _recall(part: dict[str, Any]) -> list[str]:
    rows = [
        [
            _LABELS[row["kind"]],
            f"{row['faces']:,}",
            f"{row['probes']:,}",
            f"{row['same_person_share']:.3%}",
            _percent(row["same_person_share_of_enrolled"]),
            _percent(row["right_person_share_of_enrolled"]),
            _milliseconds(row["milliseconds"]),
        ]
        for row in part["rows"]
    ]
    header = ["", "faces enrolled", "probes", "same person", "of probes whose person is enrolled"]
    real = max((row["real_faces"] for row in part["rows"]), default=0)
    return [
        *_table([*header, "and it is the right one", "ms, median (shortest)"], rows),
        "",
        f"{real:,} of the enrolled faces and all probes are real; the other faces are drawn with "
        "their mean and covariance.",
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.3%}"


def _milliseconds(times: dict[str, Any], factor: float = 1.0) -> str:
    return f"{number_of(times['median'] * factor)} ({number_of(times['minimum'] * factor)})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]
