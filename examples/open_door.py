r"""Open a door for some people: reads the events of ``face-encode watch --events -``.

    face-encode watch rtsp://camera/1 --people people.sqlite --headless --events - \
        | python examples/open_door.py "Ada Lovelace" "Mei Oshara" -- gpioset -t 3s door=1

The command after ``--`` runs when one of these people arrives, or is recognised at last, and then
not again for ten seconds. A photo held up to the camera is a face, too: for a door that matters,
let a second thing decide with the face, such as a PIN or a card.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

PAUSE_SECONDS = 10.0


def main(arguments: list[str]) -> int:
    """Read events until they end."""
    if "--" not in arguments or arguments[0] == "--" or arguments[-1] == "--":
        print("usage: open_door.py NAME... -- COMMAND...", file=sys.stderr)
        return 2
    place = arguments.index("--")
    allowed, command = set(arguments[:place]), arguments[place + 1 :]
    opened_at = float("-inf")
    for line in sys.stdin:
        event = json.loads(line)
        if event["event"] not in ("arrived", "renamed") or event["name"] not in allowed:
            continue
        if time.monotonic() - opened_at < PAUSE_SECONDS:
            continue
        opened_at = time.monotonic()
        print(f"{event['source']}: opens for {event['name']}", flush=True)
        subprocess.run(command, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
