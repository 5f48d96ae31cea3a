"""Identification on folders: people to enrol, and probes whose names are known."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, InputError
from face_encode.evaluation.calibration import Integers, calibrate
from face_encode.evaluation.faces import EmbeddedFaces, checked_units, embed_people, one_spelling
from face_encode.evaluation.intervals import Interval, wilson_interval
from face_encode.evaluation.metrics import MIN_FALSE_MATCHES, Flags
from face_encode.photos.folders import people_in
from face_encode.types import Embeddings, check_number

DEFAULT_ALARM_RATES = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class RateAtAlarms:
    """The identification rate when at most a given share of strangers may raise a false alarm.

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
    """A gallery's answers for probes whose names are known, counted.

    Every probe counts: one without a face, with an unreadable photo, or with a face whose quality
    is below the encoder's bound names nobody.

    Attributes:
        enrolled_probes: Probes of people in the gallery.
        stranger_probes: Probes of people who are not.
        not_found: Probes without a face.
        refused: Probes with a face whose quality is below the encoder's bound.
        rank_1: Share of the enrolled probes whose nearest person is the right one, whatever the
            similarity; NaN without such probes.
        rank_5: The same for the nearest five people.
        threshold: Similarity from which a search names someone.
        correct: Probes answered right at the threshold: the right name for an enrolled person,
            no name for a stranger.
        correct_interval: Of the share answered right.
        wrong_name: Enrolled probes that were given another enrolled person's name.
        missed: Enrolled probes that were given no name.
        false_alarms: Stranger probes that were given a name.
        false_alarm_interval: Of the share of false alarms; None without stranger probes.
        confusions: ``(true name, name given) -> probes``, the most frequent first; strangers'
            true names included.
        at_false_alarm_rate: For each rate that there are enough strangers to measure.
    """

    enrolled_probes: int
    stranger_probes: int
    not_found: int
    refused: int
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
    *,
    refused: npt.ArrayLike | None = None,
) -> IdentificationResult:
    """Judge searches by the true names.

    Args:
        similarities: ``(P, G)``, each probe against each person of the gallery, at the
            person's nearest photo; a row of NaN where no face was found, or none to be trusted.
        gallery: G different names.
        true_names: P names; one that is not in the gallery is a stranger.
        threshold: Similarity from which a search names its nearest person.
        alarm_rates: False alarm rates a search, 0..1, at which to measure identification;
            those below 10 / strangers are left out, as mostly chance.
        refused: bool ``(P,)``, which rows of NaN are those of a face that is not to be trusted:
            rightly not named where it is a stranger's. None for none.

    Raises:
        InputError: Wrong shapes, a name twice in the gallery, no probe, or a refused one with
            similarities.
    """
    nearness = np.asarray(similarities, np.float64)
    if nearness.shape != (len(true_names), len(gallery)) or 0 in nearness.shape:
        raise InputError(
            "similarities are one row a probe and one column a person, at least 1 of each, "
            f"here {(len(true_names), len(gallery))}. Received: {nearness.shape}"
        )
    if len(set(gallery)) != len(gallery):
        twice = [name for name, count in Counter(gallery).items() if count > 1]
        raise InputError(f"a person is one column of the gallery. Received twice: {twice[0]}")
    found: Flags = np.asarray(np.isfinite(nearness).all(axis=1))
    unfit: Flags = np.zeros(len(nearness), np.bool_)
    if refused is not None:
        unfit = np.asarray(refused, np.bool_)
    if unfit.shape != found.shape or (unfit & found).any():
        raise InputError(
            f"refused is one bool a probe, here {len(found)}, true only where the similarities are "
            f"NaN. Received: shape {unfit.shape}"
        )
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
    # A stranger without a face gets no answer, so none that is right.
    correct = int((right | (~enrolled & ~named & (found | unfit))).sum())
    wrong = named & (nearest != truth)
    confusions = Counter(
        (true_names[int(probe)], gallery[int(nearest[probe])]) for probe in np.flatnonzero(wrong)
    )
    own = nearness[enrolled, truth[enrolled]][:, None]
    # Of equally near people the right one comes last, so that a constant score earns nothing.
    ranks = np.where(np.isfinite(own[:, 0]), (nearness[enrolled] >= own).sum(axis=1), np.inf)
    return IdentificationResult(
        enrolled_probes=int(enrolled.sum()),
        stranger_probes=strangers,
        not_found=int((~found & ~unfit).sum()),
        refused=int(unfit.sum()),
        rank_1=float(np.mean(ranks <= 1)) if len(ranks) else math.nan,
        rank_5=float(np.mean(ranks <= 5)) if len(ranks) else math.nan,
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
            if enrolled.any() and rate * strangers >= MIN_FALSE_MATCHES
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
            ``-inf`` where no face was found, or none to be trusted.
        enrolled_right: bool ``(E,)``, whether that nearest person is the right one.
        stranger_best: ``(S,)``, similarity to the nearest person, for strangers.
        false_alarm_rate: The rate allowed, 0..1.

    Returns:
        The lowest threshold that keeps the rate, and the identification rate at it.

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
    check_number(false_alarm_rate, "a false alarm rate", 0, 1)
    allowed = int(np.floor(false_alarm_rate * len(alarms) + 1e-6))
    if allowed < len(alarms) and np.isfinite(alarms[allowed]):
        # Just above the first stranger who may not raise an alarm.
        threshold = float(np.nextafter(alarms[allowed], np.inf))
    else:
        threshold = float(np.min(near[np.isfinite(near)], initial=np.inf))
    return RateAtAlarms(false_alarm_rate, threshold, float(np.mean(right & (near >= threshold))))


@dataclass(frozen=True)
class Answer:
    """The answer that a search gave for a probe.

    Attributes:
        row: The probe.
        true_name: The person it shows.
        given: The name given, or None.
        similarity: To the nearest person; NaN where no face was found, or none to be trusted.
        stranger: Whether the person is not enrolled.
        refused: Why a face that was found is not to be trusted, or None.
    """

    row: int
    true_name: str
    given: str | None
    similarity: float
    stranger: bool
    refused: str | None = None

    @property
    def kind(self) -> Literal["right", "wrong", "unnamed"]:
        """Whether the name given is right, wrong, or there is none."""
        if self.given is None:
            return "unnamed"
        return "right" if self.given == self.true_name else "wrong"


@dataclass(frozen=True, eq=False)
class PeopleResult:
    """A folder of probes searched in a folder of people, measured.

    Attributes:
        identification: The counts and rates.
        gallery_names: G people, in ascending order.
        true_names: The name of each probe, as it is in the gallery where the person is enrolled.
        similarities: float32 ``(P, G)``, to the nearest photo of each person; NaN rows where no
            face was found, or none to be trusted.
        nearest_photo: ``(P,)``, the row of the nearest enrolled photo in ``enrolled``; -1 where
            no face was found, or none to be trusted.
        enrolled: The enrolled photos.
        probes: The probes.
        left_out: Photos of the gallery without a face, or with one that is not to be trusted, and
            what else is in both folders, with the reason.
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

    def not_used(self) -> list[tuple[str, str]]:
        """What was neither enrolled nor searched for, in both folders, with the reason.

        Photos without a face, those whose face is not to be trusted, and what is no photo of a
        person.
        """
        return [*self.left_out, *self.probes.not_found(), *self.probes.not_trusted()]

    def answers(self) -> list[Answer]:
        """The answer for each probe.

        Returns:
            Wrong names first, the nearest of them leading; then faces that were given no name;
            then right names; the last two in the order of the folder.
        """
        listed, enrolled = [], set(self.gallery_names)
        for row, (true_name, each) in enumerate(
            zip(self.true_names, self.similarities, strict=True)
        ):
            nearest = int(each.argmax())
            named = each[nearest] >= self.identification.threshold
            given = self.gallery_names[nearest] if named else None
            similarity, stranger = float(each[nearest]), true_name not in enrolled
            face = self.probes.faces[row]
            refused = face.quality.reason if face and face.quality else None
            listed.append(Answer(row, true_name, given, similarity, stranger, refused))
        places = {"wrong": 0, "unnamed": 1, "right": 2}
        return sorted(
            listed,
            key=lambda each: (
                places[each.kind],
                -each.similarity if each.kind == "wrong" else each.row,
            ),
        )

    def summary(self) -> str:
        """The share answered right, in a sentence without its full stop."""
        numbers = self.identification
        share = 100 * numbers.correct / numbers.probes
        return (
            f"{numbers.correct:,} of {numbers.probes:,} photos answered right ({share:.1f} %, "
            f"95 % interval {numbers.correct_interval.percent(1)}): "
            f"{len(self.gallery_names):,} people enrolled with {len(self.enrolled):,} photos, "
            f"{numbers.enrolled_probes:,} photos of them and {numbers.stranger_probes:,} of "
            "strangers searched for"
        )

    def rows(self) -> list[list[str]]:
        """The numbers as texts for a table: measure, value."""
        numbers, enrolled = self.identification, f"{self.identification.enrolled_probes:,}"
        alarms = f"{numbers.false_alarms:,} of {numbers.stranger_probes:,}"
        if (interval := numbers.false_alarm_interval) is not None:
            share = _percent(numbers.false_alarms / numbers.stranger_probes)
            alarms += f" ({share}, 95 % interval {interval.percent()})"
        return [
            ["right person nearest (rank 1)", _percent(numbers.rank_1)],
            ["right person among the nearest five (rank 5)", _percent(numbers.rank_5)],
            ["threshold", f"{numbers.threshold:.4f}"],
            ["enrolled, given another name", f"{numbers.wrong_name:,} of {enrolled}"],
            ["enrolled, given no name", f"{numbers.missed:,} of {enrolled}"],
            ["strangers given a name", alarms],
            *(
                [
                    f"identified when {each.false_alarm_rate:g} of strangers may raise an alarm",
                    f"{_percent(each.identified)} (threshold {each.threshold:.4f})",
                ]
                for each in numbers.at_false_alarm_rate
            ),
            ["probes without a face", f"{numbers.not_found:,}"],
            ["probes refused for their quality", f"{numbers.refused:,}"],
            ["encoder, detector", f"{self.encoder}, {self.detector}"],
        ]

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values, as ``evaluate people --json`` prints them."""
        numbers = self.identification
        strangers = numbers.stranger_probes
        interval = numbers.false_alarm_interval
        return {
            "people": len(self.gallery_names),
            "enrolled": len(self.enrolled),
            "left_out": [{"photo": photo, "reason": why} for photo, why in self.left_out],
            "probes": numbers.probes,
            "stranger_probes": strangers,
            "not_found": [photo for photo, _ in self.probes.not_found()],
            "refused": [photo for photo, _ in self.probes.not_trusted()],
            # JSON has no NaN, nor infinity.
            "rank_1": numbers.rank_1 if numbers.enrolled_probes else None,
            "rank_5": numbers.rank_5 if numbers.enrolled_probes else None,
            "threshold": numbers.threshold,
            "correct": numbers.correct,
            "correct_share": numbers.correct / numbers.probes,
            "correct_interval": [numbers.correct_interval.lower, numbers.correct_interval.upper],
            "wrong_name": numbers.wrong_name,
            "missed": numbers.missed,
            "false_alarms": numbers.false_alarms,
            "false_alarm_rate": numbers.false_alarms / strangers if strangers else None,
            "false_alarm_interval": None if interval is None else [interval.lower, interval.upper],
            "identified_at_false_alarm_rate": {
                str(each.false_alarm_rate): {
                    "identified": each.identified,
                    "threshold": each.threshold if math.isfinite(each.threshold) else None,
                }
                for each in numbers.at_false_alarm_rate
            },
            "confusions": [
                {"name": name, "named": named, "probes": count}
                for (name, named), count in numbers.confusions.items()
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

    Faces below the encoder's ``quality_threshold`` are refused, as everywhere: such a photo is not
    enrolled, and such a probe names nobody. Names that differ in case, spacing or Unicode form are
    one person's.

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
    # Both folders are listed before hours of work on the first.
    people_in(probes)
    names, faces = embed_people(
        gallery, detector, encoder, workers=workers, progress=progress, description="Enrolling"
    )
    called: dict[str, str] = {}
    fit, left_out = faces.fit, faces.left_out()
    names, embeddings = one_spelling(names, called)[fit], faces.embeddings[fit]
    if len(names) == 0:
        raise DatasetError(
            f"none of the {len(fit)} photos of {gallery} can be enrolled; the first: "
            f"{left_out[0][0]}: {left_out[0][1]}"
        )
    shown, probed = embed_people(
        probes, detector, encoder, workers=workers, progress=progress, description="Searching"
    )
    true_names = tuple(one_spelling(shown, called).tolist())
    if false_match_rate is not None:
        threshold = calibrate(embeddings, names, false_match_rate).threshold(len(names))
    elif threshold is None:
        threshold = encoder.contract.threshold
    trusted = np.where(probed.refused[:, None], np.float32(np.nan), probed.embeddings)
    people, similarities, nearest = search_people(embeddings, names, trusted)
    return PeopleResult(
        identification=evaluate_identification(
            similarities, people, true_names, threshold, refused=probed.refused
        ),
        gallery_names=people,
        true_names=true_names,
        similarities=similarities,
        nearest_photo=nearest,
        enrolled=tuple(photo for photo, is_fit in zip(faces.photos, fit, strict=True) if is_fit),
        probes=probed,
        left_out=(*left_out, *probed.unlisted),
        encoder=encoder.name,
        detector=detector.name,
    )


def search_people(
    embeddings: Embeddings, names: npt.NDArray[np.str_], probes: Embeddings
) -> tuple[tuple[str, ...], npt.NDArray[np.float32], Integers]:
    """Compare probes with enrolled photos; a person is as near as the nearest photo.

    Args:
        embeddings: ``(N, D)``, enrolled.
        names: ``(N,)``, the person on each.
        probes: ``(P, D)``; rows of NaN where there is nothing to search for.

    Returns:
        The G people in ascending order; float32 ``(P, G)``; ``(P,)``, the row of the nearest
        enrolled photo, -1 where there is nothing to search for.
    """
    order = np.argsort(names, kind="stable")
    people, starts = np.unique(names[order], return_index=True)
    units = checked_units(embeddings)[order]
    found = np.isfinite(probes).all(axis=1)
    similarities = np.full((len(probes), len(people)), np.nan, np.float32)
    nearest = np.full(len(probes), -1, np.intp)
    if found.any():
        each = checked_units(probes[found]) @ units.T
        similarities[found] = np.maximum.reduceat(each, starts, axis=1)
        nearest[found] = order[each.argmax(axis=1)]
    return tuple(people.tolist()), similarities, nearest


def _percent(share: float) -> str:
    """A share as percent; empty for NaN."""
    return "" if math.isnan(share) else f"{100 * share:.2f} %"
