"""Print who was there on each day, as CSV: reads the events of ``face-encode watch --events``.

python examples/attendance.py seen.jsonl [--unknown]
"""

from __future__ import annotations

import csv
import json
import sys
from datetime import datetime
from pathlib import Path

UNKNOWN = "(unknown)"


def main(arguments: list[str]) -> int:
    """Read the events, and print a row for each day and person."""
    paths = [Path(each) for each in arguments if each != "--unknown"]
    if len(paths) != 1:
        print("usage: attendance.py EVENTS.jsonl [--unknown]", file=sys.stderr)
        return 2
    stays: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
    for line in paths[0].read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut off by a power cut
        # Only cameras know the time of day; an unknown person who was somebody goes on as them.
        if event["event"] != "left" or "from_time" not in event or "continued_as" in event:
            continue
        if event["name"] is None and "--unknown" not in arguments:
            continue
        begin, end = (
            datetime.fromisoformat(event[key]).astimezone() for key in ("from_time", "to_time")
        )
        stays.setdefault((f"{begin:%Y-%m-%d}", event["name"] or UNKNOWN), []).append((begin, end))
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["day", "name", "first", "last", "minutes", "stays"])
    for (day, name), times in sorted(stays.items()):
        minutes = sum((end - begin).total_seconds() for begin, end in times) / 60
        first, last = min(begin for begin, _ in times), max(end for _, end in times)
        row = [day, name, f"{first:%H:%M:%S}", f"{last:%H:%M:%S}", f"{minutes:.1f}", len(times)]
        table.writerow(row)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
