"""Count how often strangers are named under damage, with the quality's bound and without it.

::

    python -m benchmarks.quality --photos LFW_DIR [--encoder NAME|FILE.keras] [--people 60]

Of people whom no quality head was trained on, some are enrolled by one photo each and as many
others are searched for, all photos with the same damage, by the whole way of a photo: detector,
landmarks, encoder, gallery.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

HEADER = ("damage", "faces found", "refused", "enrolled", "named before", "named now", "reasons")


def main() -> None:
    """Measure every condition and print a row each."""
    parser = argparse.ArgumentParser(description="Count strangers that are named, under damage.")
    parser.add_argument("--photos", required=True, help="a folder with a sub-folder a person")
    parser.add_argument("--encoder", help="a known encoder or a .keras file (default: the default)")
    parser.add_argument("--detector", help="a known detector (default: the default)")
    parser.add_argument("--people", type=int, default=60, help="to enrol, and to search for")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from face_encode import Face_Encode_Model
    from face_encode.evaluation.faces import central_face
    from face_encode.photos.folders import people_in
    from face_encode.photos.reading import read_image
    from face_encode.training.data import split_people
    from face_encode.training.quality import CONDITIONS, TURNED

    people = list(people_in(options.photos).values())
    owner = np.repeat(np.arange(len(people)), [len(photos) for photos in people])
    test = np.unique(owner[split_people(owner, validation=0.08, test=0.2, seed=0).test])
    random = np.random.default_rng(0)
    chosen = random.permutation(test)[: 2 * options.people]
    model = Face_Encode_Model(options.encoder, options.detector)
    threshold = model.threshold
    photos = [read_image(Path(people[person][0])) for person in chosen]
    boxes = []
    for photo in photos:
        faces = model.detector.detect(photo)
        boxes.append(faces[central_face(faces, photo.shape[1::-1])].box if faces else None)
    print(
        f"{model.encoder.name}, {model.detector.name}; {options.people} enrolled, as many searched"
    )
    print("{:30} {:>11} {:>8} {:>8} {:>12} {:>9}  {}".format(*HEADER))
    turns = {name: quarters for quarters, name in enumerate(TURNED, 1)}
    for name in (*CONDITIONS, *TURNED):
        embeddings, refusals = [], []
        for photo, box in zip(photos, boxes, strict=True):
            if box is None:
                damaged = photo
            elif name in turns:
                damaged = np.ascontiguousarray(np.rot90(photo, -turns[name]))
            else:
                damaged = np.ascontiguousarray(CONDITIONS[name](photo, box, random))
            found, faces = model._embed(damaged, 1)
            embeddings.append(found[0] / np.linalg.norm(found[0]) if len(found) else None)
            quality = faces[0].quality if faces else None
            refusals.append(quality.reason if quality else None)
        half = options.people

        def count(searched: range, enrolled: list[int], units: list[np.ndarray | None]) -> int:
            """Count the searched faces that are as near as the threshold to an enrolled one."""
            known = [unit for row in enrolled if (unit := units[row]) is not None]
            asked = [unit for row in searched if (unit := units[row]) is not None]
            if not known or not asked:
                return 0
            return int((np.stack(asked) @ np.stack(known).T >= threshold).any(axis=1).sum())

        trusted = [
            None if reason else unit for unit, reason in zip(embeddings, refusals, strict=True)
        ]
        rows, others = list(range(half)), range(half, 2 * half)
        reasons = [reason for reason in refusals if reason]
        print(
            f"{name:30} {sum(unit is not None for unit in embeddings):11} {len(reasons):8} "
            f"{sum(unit is not None for unit in trusted[:half]):8} "
            f"{count(others, rows, embeddings):12} {count(others, rows, trusted):9}  "
            + ", ".join(f"{reasons.count(each)} {each}" for each in sorted(set(reasons))),
            flush=True,
        )


if __name__ == "__main__":
    main()
