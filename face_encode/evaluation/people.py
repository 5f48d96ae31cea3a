"""Identification on folders: people to enrol, and probes whose names are known."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, InputError
from face_encode.evaluation.calibration import Integers, calibrate, unit_length
from face_encode.evaluation.faces import EmbeddedFaces, embed_faces
from face_encode.evaluation.intervals import Interval, wilson_interval
from face_encode.evaluation.metrics import Flags, Scores
from face_encode.photos.folders import people_in
from face_encode.types import Embeddings

DEFAULT_ALARM_RATES = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class RateAtAlarms:
    """What is found when only so many strangers may raise a false alarm.

    Attributes:
        false_alarm_rate: The rate allowed: share of searches for strangers that name someone
            (the false positive identification rate, FPIR).
        threshold: Similarity from which a search names someone.
        identified: Share of searches for enrolled people that name the right one, first and at
            or above the threshold (the true positive identification rate, TPIR).
    """

    false_alarm_rate: float
    threshold: float
    identified: float


@dataclass(frozen=True, eq=False)
class IdentificationResult:
    """How a gallery answers for probes whose names are known.

    Every probe counts: one without a face, or with an unreadable photo, names nobody.

    Attributes:
        enrolled_probes: Probes of people in the gallery.
        stranger_probes: Probes of people who are not.
        not_found: Probes without a face.
        rank_1: Share of the enrolled probes whose nearest person is the right one, whatever the
            similarity; NaN without such probes.
        rank_5: The same for the nearest five people.
        threshold: Similarity from which a search names someone, as it was given.
        correct: Probes answered right at the threshold: the right name for an enrolled person,
            no name for a stranger.
        correct_interval: Of the share of them.
        wrong_name: Enrolled probes that were given another enrolled person's name.
        missed: Enrolled probes that were given no name.
        false_alarms: Stranger probes that were given a name.
        false_alarm_interval: Of the share of them; None without stranger probes.
        confusions: ``(true name, name given) -> probes``, the most frequent first; strangers'
            true names included.
        at_false_alarm_rate: For each rate that there are strangers enough for.
    """

    enrolled_probes: int
    stranger_probes: int
    not_found: int
    rank_1: float
    rank_5: float
    threshold: float
    correct: int
    correct_interval: Interval
    wrong_name: int
    missed: int
    false_alarms: int
    false_alarm_interval: Interval | None
    confusions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    at_false_alarm_rate: tuple[RateAtAlarms, ...] = ()

    @property
    def probes(self) -> int:
        """All probes."""
        return self.enrolled_probes + self.stranger_probes


def evaluate_identification(
    similarities: npt.ArrayLike,
    gallery: Sequence[str],
    true_names: Sequence[str],
    threshold: float,
    alarm_rates: Sequence[float] = DEFAULT_ALARM_RATES,
) -> IdentificationResult:
    """Judge searches by the names that are known to be true.

    Args:
        similarities: ``(P, G)``, each probe against each person of the gallery (for a person
            with several photos the nearest of them); a row of NaN where no face was found.
        gallery: G different names.
        true_names: P names; one that is not in the gallery is a stranger.
        threshold: Similarity from which a search names its nearest person.
        alarm_rates: Rates of false alarm a search, 0..1, to give the rate of identification
            at; those below 10 / strangers are left out, for they would be chance.

    Raises:
        InputError: Wrong shapes, names given twice, or no probe.
    """
    nearness = np.asarray(similarities, np.float64)
    if nearness.shape != (len(true_names), len(gallery)) or 0 in nearness.shape:
        raise InputError(
            "similarities are one row a probe and one column a person, at least 1 of each, "
            f"here {(len(true_names), len(gallery))}. Received: {nearness.shape}"
        )
    if len(set(gallery)) != len(gallery):
        raise InputError("a person is one column: the names of the gallery differ")
    found: Flags = np.asarray(np.isfinite(nearness).all(axis=1))
    nearness = np.where(found[:, None], nearness, -np.inf)
    column_of = {name: column for column, name in enumerate(gallery)}
    truth = np.array([column_of.get(name, -1) for name in true_names])
    enrolled: Flags = np.asarray(truth >= 0)
    nearest = nearness.argmax(axis=1)
    best = nearness.max(axis=1)

    named = best >= threshold
    right = enrolled & named & (nearest == truth)
    false_alarms = int((~enrolled & named).sum())
    strangers = int((~enrolled).sum())
    # A stranger without a face is not answered right: nothing was answered.
    correct = int((right | (~enrolled & ~named & found)).sum())
    wrong = named & (nearest != truth)
    confusions = Counter(
        (true_names[int(probe)], gallery[int(nearest[probe])]) for probe in np.flatnonzero(wrong)
    )
    rank = _rank_of_truth(nearness[enrolled], truth[enrolled])
    return IdentificationResult(
        enrolled_probes=int(enrolled.sum()),
        stranger_probes=strangers,
        not_found=int((~found).sum()),
        rank_1=_share(rank <= 1),
        rank_5=_share(rank <= 5),
        threshold=threshold,
        correct=correct,
        correct_interval=wilson_interval(correct, len(true_names)),
        wrong_name=int((wrong & enrolled).sum()),
        missed=int((enrolled & ~named).sum()),
        false_alarms=false_alarms,
        false_alarm_interval=wilson_interval(false_alarms, strangers) if strangers else None,
        confusions=dict(confusions.most_common()),
        at_false_alarm_rate=tuple(
            identification_at(best[enrolled], (nearest == truth)[enrolled], best[~enrolled], rate)
            for rate in alarm_rates
            if enrolled.any() and rate * strangers >= 10
        ),
    )


def identification_at(
    enrolled_best: npt.ArrayLike,
    enrolled_right: npt.ArrayLike,
    stranger_best: npt.ArrayLike,
    false_alarm_rate: float,
) -> RateAtAlarms:
    """Identification rate at a false alarm rate: TPIR at FPIR.

    Args:
        enrolled_best: ``(E,)``, similarity to the nearest person, for probes of enrolled people;
            ``-inf`` where no face was found.
        enrolled_right: bool ``(E,)``, whether that nearest person is the right one.
        stranger_best: ``(S,)``, the same for strangers.
        false_alarm_rate: The rate allowed, 0..1.

    Returns:
        The lowest threshold that keeps the rate, and what it finds.

    Raises:
        InputError: Empty or unequal arrays, or a rate out of range.
    """
    near = np.asarray(enrolled_best, np.float64)
    right = np.asarray(enrolled_right, np.bool_)
    alarms = np.sort(np.asarray(stranger_best, np.float64))[::-1]
    if near.shape != right.shape or near.ndim != 1 or 0 in (len(near), len(alarms)):
        raise InputError(
            "identification takes (E,) similarities, (E,) truths and (S,) similarities of "
            f"strangers. Received: {near.shape}, {right.shape}, {alarms.shape}"
        )
    if not 0 <= false_alarm_rate <= 1:
        raise InputError(f"a false alarm rate lies within 0..1. Received: {false_alarm_rate}")
    allowed = int(np.floor(false_alarm_rate * len(alarms) + 1e-6))
    # Just above the first stranger who may not raise an alarm.
    lowest = float(np.min(near[np.isfinite(near)], initial=np.inf))
    threshold = float(np.nextafter(alarms[allowed], np.inf)) if allowed < len(alarms) else lowest
    return RateAtAlarms(false_alarm_rate, threshold, float(np.mean(right & (near >= threshold))))


def _rank_of_truth(nearness: Scores, truth: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """At which place the right person stands, 1 for the first; infinite where no face was found.

    Of equally near people the right one comes last, so that a constant score earns nothing.
    """
    own = nearness[np.arange(len(truth)), truth][:, None]
    ranks: Scores = (nearness >= own).sum(axis=1).astype(np.float64)
    ranks[~np.isfinite(own[:, 0])] = np.inf
    return ranks


def _share(flags: npt.NDArray[np.bool_]) -> float:
    """The mean, NaN of nothing."""
    return float(flags.mean()) if len(flags) else float("nan")


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
