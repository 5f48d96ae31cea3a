"""Likely mistakes in a folder of people, with their pictures."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.evaluation.faces import embed_people
from face_encode.evaluation.html import Page, check_report_path, thumbnail
from face_encode.gallery.mistakes import LabelProblem, find_label_problems


@dataclass(frozen=True)
class CheckResult:
    """The likely mistakes in a folder of people.

    Attributes:
        photos: Number of photos.
        people: Number of people.
        suspicions: Likely mistakes, the gravest first.
        left_out: Photos without a face, and what else is in the folder, with the reason.
        compared: Whether there were two people with a face to compare.
    """

    photos: int
    people: int
    suspicions: tuple[LabelProblem, ...]
    left_out: tuple[tuple[str, str], ...]
    compared: bool = True

    def __str__(self) -> str:
        counted = f"{self.photos:,} photos of {self.people:,} people: "
        without = f"{len(self.left_out)} left out"
        if not self.compared:
            return f"{counted}nobody to compare anybody with, {without}"
        return f"{counted}{len(self.suspicions)} likely mistakes, {without}"

    def as_dict(self) -> dict[str, Any]:
        """The result as plain JSON values, as ``check --json`` prints it."""
        return {
            "photos": self.photos,
            "people": self.people,
            "compared": self.compared,
            "suspicions": [asdict(each) for each in self.suspicions],
            "left_out": [{"photo": photo, "reason": why} for photo, why in self.left_out],
        }


def check_people(
    folder: str | os.PathLike[str],
    detector: Detector,
    encoder: Encoder,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> CheckResult:
    """Look for likely mistakes in a folder with one sub-folder a person.

    Args:
        folder: As for enrolment.
        detector: Finds the faces; the largest of a photo counts.
        encoder: Embeds them.
        workers: Processes that read and detect; None chooses.
        progress: Whether to show a progress bar.

    Raises:
        DatasetError: The folder is missing or holds no people.
    """
    names, faces = embed_people(
        folder, detector, encoder, workers=workers, progress=progress, description="Checking"
    )
    rows = [(row, face.box) for row, face in enumerate(faces.faces) if face is not None]
    kept = [row for row, _ in rows]
    suspicions = find_label_problems(
        [faces.photos[row] for row in kept],
        names[kept].tolist(),
        faces.embeddings[kept],
        face_sides=[min(box.width, box.height) for _, box in rows],
        sharpnesses=faces.sharpness[kept],
        crop_side=min(encoder.contract.crop.height, encoder.contract.crop.width),
        threshold=encoder.contract.threshold,
    )
    people = set(names.tolist())
    compared = len(set(names[kept].tolist())) > 1
    # A face that is not to be trusted is looked at, too.
    left_out = (*faces.not_found(), *faces.unlisted)
    return CheckResult(len(names), len(people), suspicions, left_out, compared)


def write_check_report(result: CheckResult, path: str | os.PathLike[str]) -> None:
    """Write the likely mistakes with their pictures as one self-contained HTML file.

    Args:
        result: The likely mistakes.
        path: Ends in ``.html``.

    Raises:
        InputError: It cannot be written there.
    """
    check_report_path(path)
    page = Page(f"Likely mistakes in {result.photos:,} photos of {result.people:,} people")
    for kind in dict.fromkeys(each.kind for each in result.suspicions):
        of_kind = [each for each in result.suspicions if each.kind == kind]
        page.heading(f"{kind.capitalize()} ({len(of_kind)})")
        page.cards([([thumbnail(photo) for photo in each.photos], each.text) for each in of_kind])
    if not result.suspicions:
        page.text("Nothing was noticed." if result.compared else "Nobody could be compared.")
    page.left_out(result.left_out)
    page.write(path)
