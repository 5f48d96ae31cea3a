"""Folders of photos to measure on."""

from __future__ import annotations

import shutil
from pathlib import Path

# dlib itself would be compiled from source, which dlib-bin makes needless.
FACE_RECOGNITION_LINE = (
    'pip install face_recognition_models click "setuptools<81" && '
    "pip install --no-deps face_recognition"
)


def copy_photos(source: Path, count: int, target: Path) -> list[Path]:
    """Copy about ``count`` photos: all photos of people spread evenly over the folder."""
    from face_encode.photos.folders import people_in

    people = list(people_in(source).items())
    total = sum(len(photos) for _, photos in people)
    step = max(1, total // count)
    order = [person for start in range(step) for person in people[start::step]]
    copies: list[Path] = []
    for name, photos in order:
        for photo in photos[: count - len(copies)]:
            (target / name).mkdir(exist_ok=True)
            copies.append(Path(shutil.copy(photo, target / name)))
    return copies
