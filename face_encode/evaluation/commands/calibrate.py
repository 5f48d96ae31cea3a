"""``face-encode calibrate``: the threshold for a stated rate of false matches."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from face_encode.evaluation.commands import shared
from face_encode.terminal import add_json_option, print_json, print_table

if TYPE_CHECKING:
    from face_encode.gallery.thresholds import Calibration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "people",
        metavar="PEOPLE",
        help="your own people: a folder with a sub-folder a person, or a gallery (which "
        "then keeps the calibration)",
    )
    parser.add_argument(
        "-g",
        "--gallery",
        metavar="GALLERY",
        help="a gallery that is to keep what is learnt from a folder",
    )
    parser.add_argument(
        "--false-match-rate",
        type=shared.rate,
        default=1e-3,
        metavar="R",
        help="share of searches for a stranger that may name someone (default: 0.001)",
    )
    add_json_option(parser)
    shared.add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Learn, keep it in the gallery where there is one, and print."""
    import numpy as np

    from face_encode.evaluation.calibration import calibrate
    from face_encode.evaluation.faces import embed_faces
    from face_encode.gallery.opening import gallery_label, names_gallery, open_gallery
    from face_encode.photos.folders import people_in

    from_gallery = names_gallery(options.people)
    path = options.people if from_gallery else options.gallery
    detector, encoder = shared.open_models(options)
    # The gallery is opened before the work, so that a wrong one is refused in time.
    gallery = None if path is None else open_gallery(path, encoder=encoder, create=False)
    if from_gallery and gallery is not None:
        enrolled_people = gallery.copy()
        embeddings, names = enrolled_people.embeddings, enrolled_people.names
    else:
        people = people_in(options.people)
        rows = [(name, photo) for name, photos in people.items() for photo in photos]
        faces = embed_faces(
            [photo for _, photo in rows], detector, encoder, workers=options.workers
        )
        embeddings = faces.embeddings[faces.found]
        names = np.array([name for name, _ in rows])[faces.found]
    learnt = calibrate(embeddings, names, options.false_match_rate)
    enrolled = len(names)
    if gallery is not None:
        enrolled = len(gallery)
        gallery.calibration = learnt
        gallery.close()
        path = gallery_label(path)
    if options.json:
        values = json.loads(learnt.to_json())
        print_json({**values, "gallery": path, "threshold": learnt.threshold(enrolled)})
    else:
        _print(learnt, enrolled, path)
    return 0


def _print(learnt: Calibration, enrolled: int, path: str | None) -> None:
    """The thresholds for people."""
    print(
        f"learnt from {learnt.photos:,} photos of {learnt.people:,} people, for a false match "
        f"rate of {learnt.false_match_rate:g} a search"
    )
    sizes = sorted({*learnt.enrolled, enrolled})
    intervals = {
        1: learnt.verification_interval,
        learnt.enrolled[-1]: learnt.search_interval,
    }
    rows = []
    for size in sizes:
        ends = intervals.get(size)
        threshold = learnt.threshold(size)
        rows.append(
            [
                "two photos compared" if size == 1 else f"{size:,} photos enrolled",
                f"{threshold:.4f}",
                "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}",
                f"{100 * float(learnt.probability(threshold, size)):.0f} %",
            ]
        )
    print_table(["search of", "threshold", "95 % interval", "probability at the threshold"], rows)
    if learnt.extrapolated:
        print(
            "so small a rate cannot be counted on so few people: the thresholds for searches "
            "continue the tail of what was measured, to the safe side"
        )
    if path is not None:
        print(f"kept in {path}: {learnt.threshold(enrolled):.4f} for its {enrolled:,} photos")
