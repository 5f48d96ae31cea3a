"""Identification on folders: people to enrol, and probes whose names are known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError
from face_encode.evaluation.calibration import calibrate
from face_encode.evaluation.faces import EmbeddedFaces, embed_faces
from face_encode.evaluation.identification import IdentificationResult, evaluate_identification
from face_encode.evaluation.searches import Integers, unit_length
from face_encode.photos.folders import people_in
from face_encode.types import Embeddings


@dataclass(frozen=True, eq=False)
class PeopleResult:
    """A folder of probes searched in a folder of people, measured.

    Attributes:
        identification: What came out.
        gallery_names: G people, in ascending order.
        true_names: The name of each probe.
        similarities: float32 ``(P, G)``, to the nearest photo of each person; NaN rows where no
            face was found.
        nearest_photo: ``(P,)``, the row of the nearest enrolled photo in ``enrolled``; -1 where
            no face was found.
        enrolled: The enrolled photos with a face.
        probes: The probes.
        left_out: Photos of the gallery without a face, with the reason.
        encoder: The encoder's name.
        detector: The detector's name.
    """

    identification: IdentificationResult
    gallery_names: tuple[str, ...]
    true_names: tuple[str, ...]
    similarities: npt.NDArray[np.float32]
    nearest_photo: Integers
    enrolled: tuple[str, ...]
    probes: EmbeddedFaces
    left_out: tuple[tuple[str, str], ...]
    encoder: str
    detector: str

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values, as ``evaluate people --json`` prints them."""
        result = self.identification
        strangers = result.stranger_probes
        interval = result.false_alarm_interval
        return {
            "people": len(self.gallery_names),
            "enrolled": len(self.enrolled),
            "left_out": [photo for photo, _ in self.left_out],
            "probes": result.probes,
            "stranger_probes": strangers,
            "not_found": [photo for photo, _ in self.probes.not_found()],
            "rank_1": _number(result.rank_1),
            "rank_5": _number(result.rank_5),
            "threshold": result.threshold,
            "correct": result.correct,
            "correct_share": result.correct / result.probes,
            "correct_interval": [result.correct_interval.lower, result.correct_interval.upper],
            "wrong_name": result.wrong_name,
            "missed": result.missed,
            "false_alarms": result.false_alarms,
            "false_alarm_rate": result.false_alarms / strangers if strangers else None,
            "false_alarm_interval": None if interval is None else [interval.lower, interval.upper],
            "identified_at_false_alarm_rate": {
                str(each.false_alarm_rate): {
                    "identified": each.identified,
                    "threshold": each.threshold,
                }
                for each in result.at_false_alarm_rate
            },
            "confusions": [
                {"name": name, "named": named, "probes": count}
                for (name, named), count in result.confusions.items()
            ],
            "encoder": self.encoder,
            "detector": self.detector,
        }


def evaluate_people(
    gallery: str | os.PathLike[str],
    probes: str | os.PathLike[str],
    detector: Detector,
    encoder: Encoder,
    *,
    threshold: float | None = None,
    false_match_rate: float | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> PeopleResult:
    """Enrol a folder of people and search it for every photo of another.

    Args:
        gallery: A folder with one sub-folder a person.
        probes: The same; a name that is not in the gallery is a stranger's.
        detector: Finds the faces; the largest of a photo counts, as in enrolment.
        encoder: Embeds them.
        threshold: Similarity from which a search names someone; None takes the encoder's.
        false_match_rate: Where given, the threshold is calibrated for this rate a search on the
            enrolled people, and ``threshold`` is not used.
        workers: Processes that read and detect; None chooses.
        progress: Whether to show progress bars.

    Raises:
        DatasetError: A folder is missing or holds no people, or nobody could be enrolled.
        InputError: Too few people to calibrate on.
    """
    enrolled_names, enrolled_photos = _flat(people_in(gallery))
    true_names, probe_photos = _flat(people_in(probes))
    faces = embed_faces(
        enrolled_photos,
        detector,
        encoder,
        workers=workers,
        progress=progress,
        description="Enrolling",
    )
    kept = np.flatnonzero(faces.found)
    if len(kept) == 0:
        raise DatasetError(f"no face in any photo of {gallery}, so nobody could be enrolled")
    probed = embed_faces(
        probe_photos, detector, encoder, workers=workers, progress=progress, description="Searching"
    )
    names = np.array(enrolled_names)[kept]
    embeddings = faces.embeddings[kept]
    if false_match_rate is not None:
        threshold = calibrate(embeddings, names, false_match_rate).threshold(len(kept))
    elif threshold is None:
        threshold = encoder.contract.threshold
    people, similarities, nearest = search_people(embeddings, names, probed.embeddings)
    return PeopleResult(
        identification=evaluate_identification(similarities, people, true_names, threshold),
        gallery_names=people,
        true_names=tuple(true_names),
        similarities=similarities,
        nearest_photo=nearest,
        enrolled=tuple(faces.photos[row] for row in kept),
        probes=probed,
        left_out=faces.not_found(),
        encoder=encoder.name,
        detector=detector.name,
    )


def search_people(
    embeddings: Embeddings, names: npt.NDArray[np.str_], probes: Embeddings
) -> tuple[tuple[str, ...], npt.NDArray[np.float32], Integers]:
    """Compare probes with enrolled photos; a person is as near as the nearest photo.

    Args:
        embeddings: ``(N, D)``, enrolled.
        names: ``(N,)``, of whom.
        probes: ``(P, D)``; rows of NaN where no face was found.

    Returns:
        The G people in ascending order; float32 ``(P, G)``; ``(P,)``, the row of the nearest
        enrolled photo, -1 where no face was found.
    """
    order = np.argsort(names, kind="stable")
    people, starts = np.unique(names[order], return_index=True)
    units = unit_length(embeddings)[order]
    found = np.isfinite(probes).all(axis=1)
    similarities = np.full((len(probes), len(people)), np.nan, np.float32)
    nearest = np.full(len(probes), -1, np.intp)
    if found.any():
        each = unit_length(probes[found]) @ units.T
        similarities[found] = np.maximum.reduceat(each, starts, axis=1)
        nearest[found] = order[each.argmax(axis=1)]
    return tuple(people.tolist()), similarities, nearest


def _flat(people: dict[str, list[Path]]) -> tuple[list[str], list[Path]]:
    """A name and a photo a row."""
    rows = [(name, photo) for name, photos in people.items() for photo in photos]
    return [name for name, _ in rows], [photo for _, photo in rows]


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value
