"""A program that enrols people into a gallery, in many steps; it is run several times at once.

``python enrolling.py URI WHO STEPS`` enrols ten embeddings a step, prints a line for each, and
lives until its input is closed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from face_encode.gallery.opening import open_gallery
from tests.gallery.common import SIXTEEN, like_faces

IN_A_STEP = 10


def digests_of(who: str, steps: int) -> list[str]:
    """What the program enrols: ``who-0`` and so on."""
    return [f"{who}-{number}" for number in range(steps * IN_A_STEP)]


def main() -> None:
    uri, who, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    gallery = open_gallery(uri, encoder=SIXTEEN)
    digests = digests_of(who, steps)
    embeddings = like_faces(len(digests), seed=sum(who.encode()))
    for step in range(steps):
        rows = slice(step * IN_A_STEP, (step + 1) * IN_A_STEP)
        # Both programs also give photos of one and the same person.
        names = [who if number % 2 else "both" for number in range(IN_A_STEP)]
        gallery.replace(names, embeddings[rows], digests[rows], "nothing", detector_name="eyes")
        print(f"step {step}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
