"""Verification on a list of pairs of photos: how often is "same" or "different" right?"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, InputError
from face_encode.evaluation.faces import central_face, embed_faces, similarities
from face_encode.evaluation.intervals import Indices, Interval, bootstrap, percentile_interval
from face_encode.evaluation.metrics import (
    Flags,
    Scores,
    equal_error_rate,
    error_versus_discard,
    fold_accuracy,
    judged_right,
    roc_auc,
    smallest_meaningful_far,
    tar_at_far,
    verification_accuracy,
)

Folds: TypeAlias = npt.NDArray[np.int64]

_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_CSV_COLUMNS = ("photo_a", "photo_b", "same")


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs of photos and whether each is one person.

    Attributes:
        photos_a: N paths, the first photo of each pair.
        photos_b: N paths, the second.
        same: bool ``(N,)``.
        folds: int64 ``(N,)``, or None where the file has no folds.
        people: For each pair the person on the first photo where the file names people, else
            the first photo's path: the clusters when intervals are computed.
    """

    photos_a: tuple[Path, ...]
    photos_b: tuple[Path, ...]
    same: Flags
    folds: Folds | None
    people: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.photos_a), len(self.photos_b), len(self.same), len(self.people)}
        if self.folds is not None:
            lengths.add(len(self.folds))
        if len(lengths) != 1:
            raise InputError(f"every pair has two photos and a truth. Received: lengths {lengths}")

    def __len__(self) -> int:
        return len(self.same)

    def photos(self) -> tuple[Path, ...]:
        """Every photo once, in the order of first use."""
        return tuple(dict.fromkeys((*self.photos_a, *self.photos_b)))


def read_pairs(file: str | os.PathLike[str], photos: str | os.PathLike[str]) -> PairList:
    """Read a list of pairs: LFW's View 1 or View 2 format, or a CSV with a header.

    Args:
        file: The list.
        photos: The folder that the photos lie in: for LFW ``NAME/NAME_0001.jpg`` (or with
            another extension), for a CSV the folder that its paths are relative to.

    Raises:
        DatasetError: The file cannot be read, is in neither format, or names a missing photo.
    """
    file, folder = Path(file), Path(photos)
    if not folder.is_dir():
        raise DatasetError(f"the folder of photos does not exist. Received: {folder}")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read the list of pairs {file}: {error}") from error
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DatasetError(f"the list of pairs is empty. Received: {file}")
    header = rows[0][1]
    if len(header) <= 2 and all(map(_is_number, header)):
        pairs = _from_lfw(file, rows, folder)
    else:
        try:
            pairs = _from_csv(file, lines, folder)
        except csv.Error as error:
            raise DatasetError(f"cannot read the list of pairs {file}: {error}") from error
    if missing := [photo for photo in pairs.photos() if not photo.is_file()]:
        raise DatasetError(
            f"{len(missing)} photos that {file} names are not in {folder}; the first: {missing[0]}"
        )
    return pairs


def _is_number(text: str) -> bool:
    # Python reads a number of thousands of digits at a cost, or not at all.
    return text.isdecimal() and len(text) <= 9


def _from_lfw(file: Path, rows: list[tuple[int, list[str]]], folder: Path) -> PairList:
    """Read LFW's formats: a header of one number (View 1) or two (View 2), then the pairs."""
    header, body = rows[0][1], rows[1:]
    if not body:
        raise DatasetError(f"the list of pairs is empty. Received: {file}")
    fold_count, per_kind = (1, int(header[0])) if len(header) == 1 else map(int, header)
    if len(body) != 2 * fold_count * per_kind:
        raise DatasetError(
            f"{file}: the header promises {2 * fold_count * per_kind} pairs "
            f"({fold_count} x {per_kind} same and as many different). Received: {len(body)}"
        )
    photos_a, photos_b, people, same = [], [], [], []
    for number, fields in body:
        numbers = fields[1:3] if len(fields) == 3 else fields[1::2]
        if len(fields) not in (3, 4) or not all(map(_is_number, numbers)):
            raise DatasetError(
                f"{file}, line {number}: a pair is 'NAME I J' or 'NAME I OTHER J'. "
                f"Received: {' '.join(fields)!r:.200}"
            )
        other = fields[0] if len(fields) == 3 else fields[2]
        photos_a.append(_lfw_photo(folder, fields[0], int(numbers[0])))
        photos_b.append(_lfw_photo(folder, other, int(numbers[1])))
        people.append(fields[0])
        same.append(len(fields) == 3)
    if sum(same) * 2 != len(same):
        raise DatasetError(
            f"{file}: the header promises as many same as different pairs. "
            f"Received: {sum(same)} same of {len(same)}"
        )
    folds = np.repeat(np.arange(fold_count), 2 * per_kind) if fold_count > 1 else None
    return PairList(tuple(photos_a), tuple(photos_b), np.array(same), folds, tuple(people))


def _lfw_photo(folder: Path, name: str, number: int) -> Path:
    """The path of a person's numbered photo, ``.jpg`` where no extension exists."""
    photos = [
        folder / name / f"{name}_{number:04d}{extension}"
        for extension in (".jpg", ".png", ".jpeg", ".webp", ".bmp")
    ]
    return next((photo for photo in photos if photo.is_file()), photos[0])


def _from_csv(file: Path, lines: list[str], folder: Path) -> PairList:
    """Read a CSV with the columns photo_a, photo_b and same, and maybe fold."""
    table = csv.DictReader(lines, skipinitialspace=True)
    if not set(_CSV_COLUMNS) <= set(table.fieldnames or ()):
        raise DatasetError(
            f"{file}: neither LFW's format (a header of one or two numbers) nor a CSV with the "
            f"columns {', '.join(_CSV_COLUMNS)}. Received: {lines[0][:80]!r}"
        )
    photos_a, photos_b, same, fold_names, numbers = [], [], [], [], []
    for row in table:
        truth = _TRUTHS.get((row["same"] or "").strip().lower())
        if truth is None or not row["photo_a"] or not row["photo_b"]:
            raise DatasetError(
                f"{file}, line {table.line_num}: a row is two photos and same = 1 or 0. "
                f"Received: {row}"
            )
        photos_a.append(folder / row["photo_a"].strip())
        photos_b.append(folder / row["photo_b"].strip())
        same.append(truth)
        fold_names.append((row.get("fold") or "").strip())
        numbers.append(table.line_num)
    if not same:
        raise DatasetError(f"the list of pairs is empty. Received: {file}")
    if any(fold_names) and "" in fold_names:
        line = numbers[fold_names.index("")]
        raise DatasetError(f"{file}, line {line}: no fold, which other rows have")
    folds = None
    if len(set(fold_names)) > 1:
        folds = np.unique(fold_names, return_inverse=True)[1].astype(np.int64)
    people = tuple(str(photo) for photo in photos_a)
    return PairList(tuple(photos_a), tuple(photos_b), np.array(same), folds, people)


FALSE_ACCEPT_RATES = (0.1, 0.01, 0.001, 0.0001)
DISCARDED_SHARES = (0.0, 0.01, 0.02, 0.05, 0.1)
# Without folds of its own, a list is dealt into this many parts to show how much accuracy varies.
_PARTS = 10


@dataclass(frozen=True)
class VerificationNumbers:
    """The measures of scored pairs, as ``face_encode.evaluation.metrics`` defines them.

    Attributes:
        accuracy: With folds, the mean over folds judged by the threshold of the others;
            without, at the best single threshold, which was chosen on the same pairs.
        accuracy_std: Standard deviation over the folds; without folds, over ten parts that the
            pairs are dealt into in turn, at the single threshold.
        auc: Area under the ROC curve.
        eer: Equal error rate.
        tar_at_far: True accept rate at each of ``FALSE_ACCEPT_RATES``; None where there are
            fewer than 10 / rate different pairs.
        threshold: The best single threshold, or with folds the mean of the folds' thresholds.
        intervals: 95 % bootstrap intervals, over people where they are known, under the names
            ``accuracy``, ``auc``, ``eer`` and ``tar_at_far_0.001`` and so on.
    """

    accuracy: float
    accuracy_std: float
    auc: float
    eer: float
    tar_at_far: Mapping[float, float | None]
    threshold: float
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, eq=False)
class PairsResult:
    """A list of pairs, measured.

    Attributes:
        pairs: The list.
        scores: float64 ``(N,)``, NaN where a face was not found.
        numbers: The measures of the scores.
        not_found: Every photo without a face, with the reason.
        photos: Number of different photos.
        encoder: The encoder's name.
        detector: The detector's name.
        metric: How embeddings were compared.
        mirrored: Whether the encoder averages a face with its mirror image.
        seconds_a_photo: Wall-clock time of reading, detecting and encoding.
        quality: float64 ``(N,)``, the lower quality of a pair's two photos, NaN where a face was
            not found; None for an encoder that does not judge.
        quality_threshold: The quality that the encoder states as sufficient.
    """

    pairs: PairList
    scores: Scores
    numbers: VerificationNumbers
    not_found: tuple[tuple[str, str], ...]
    photos: int
    encoder: str
    detector: str
    metric: str
    mirrored: bool
    seconds_a_photo: float
    quality: Scores | None = None
    quality_threshold: float | None = None

    def discarded(self) -> dict[float, float]:
        """The miss rate as each share of the same pairs, the lowest in quality, is discarded.

        At the threshold of ``numbers``; empty for an encoder that does not judge.
        """
        if self.quality is None:
            return {}
        threshold = self.numbers.threshold
        rates = error_versus_discard(
            self.scores, self.pairs.same, self.quality, threshold, DISCARDED_SHARES
        )
        return dict(zip(DISCARDED_SHARES, rates.tolist(), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values, as ``evaluate pairs --json`` prints them."""
        numbers = self.numbers
        return {
            "pairs": len(self.pairs),
            "not_found": [photo for photo, _ in self.not_found],
            "accuracy": numbers.accuracy,
            "accuracy_std": numbers.accuracy_std,
            "auc": numbers.auc,
            "eer": numbers.eer,
            "tar_at_far": {str(rate): tar for rate, tar in numbers.tar_at_far.items()},
            "threshold": numbers.threshold,
            "encoder": self.encoder,
            "detector": self.detector,
            "metric": self.metric,
            "miss_rate_by_discarded_share": {
                str(share): miss for share, miss in self.discarded().items()
            },
        }

    def rows(self) -> list[list[str]]:
        """The numbers as texts for a table: measure, value, 95 % interval, remark."""
        numbers, folds = self.numbers, self.pairs.folds
        ends = {name: interval.percent() for name, interval in numbers.intervals.items()}
        auc = numbers.intervals["auc"]
        how = (
            "threshold chosen on the same pairs; deviation over ten parts"
            if folds is None
            else f"threshold chosen on the other folds; {folds.max() + 1} folds"
        )
        accuracy = f"{100 * numbers.accuracy:.2f} % ± {100 * numbers.accuracy_std:.2f} %"
        rows = [
            ["accuracy", accuracy, ends["accuracy"], how],
            ["area under the ROC", f"{numbers.auc:.5f}", f"{auc.lower:.5f} to {auc.upper:.5f}", ""],
            ["equal error rate", f"{100 * numbers.eer:.2f} %", ends["eer"], ""],
        ]
        for far, tar in numbers.tar_at_far.items():
            value = "" if tar is None else f"{100 * tar:.2f} %"
            note = f"needs {round(10 / far):,} different pairs" if tar is None else ""
            rows.append([f"TAR at FAR {far:g}", value, ends.get(f"tar_at_far_{far}", ""), note])
        for share, miss in self.discarded().items():
            measure = f"misses, worst {share:.0%} discarded" if share else "misses"
            rows.append([measure, f"{100 * miss:.2f} %", "", "by quality" if share else ""])
        if self.quality is not None and self.quality_threshold is not None:
            below = np.mean(self.quality < self.quality_threshold)
            rows.append([f"pairs below quality {self.quality_threshold:g}", f"{below:.2%}", "", ""])
        return [*rows, ["threshold", f"{numbers.threshold:.4f}", "", self.metric]]


def evaluate_pairs(
    pairs: PairList,
    detector: Detector,
    encoder: Encoder,
    *,
    metric: str = "cosine",
    workers: int | None = None,
    progress: bool = True,
) -> PairsResult:
    """Measure verification on a list of pairs.

    Of each photo the largest face nearest the middle is taken
    (``face_encode.evaluation.faces.central_face``). No pair is dropped: one with a photo
    without a face counts as an error.

    Args:
        pairs: The list.
        detector: Finds the faces.
        encoder: Embeds them.
        metric: ``"cosine"`` or ``"euclidean"``.
        workers: Processes that read and detect; None chooses.
        progress: Whether to show a progress bar.

    Raises:
        InputError: Another metric, or only one kind of pair.
    """
    photos = pairs.photos()
    faces = embed_faces(photos, detector, encoder, central_face, workers=workers, progress=progress)
    row_of = {photo: row for row, photo in enumerate(photos)}
    first, second = (
        faces.embeddings[[row_of[photo] for photo in side]]
        for side in (pairs.photos_a, pairs.photos_b)
    )
    scores = similarities(first, second, metric)
    of_photo = faces.qualities()
    quality = None
    if of_photo is not None:
        sides = (pairs.photos_a, pairs.photos_b)
        quality = np.min([[of_photo[row_of[each]] for each in side] for side in sides], axis=0)
    return PairsResult(
        pairs=pairs,
        scores=scores,
        numbers=verification_numbers(scores, pairs),
        not_found=faces.not_found(),
        photos=len(photos),
        encoder=encoder.name,
        detector=detector.name,
        metric=metric,
        mirrored=encoder.contract.mirror,
        seconds_a_photo=faces.seconds_a_photo,
        quality=quality,
        quality_threshold=encoder.contract.quality_threshold,
    )


def verification_numbers(
    scores: Scores, pairs: PairList, replicates: int = 1000, seed: int = 0
) -> VerificationNumbers:
    """Measure scored pairs, with intervals.

    Args:
        scores: float64 ``(N,)``, higher is nearer; NaN where a face was not found.
        pairs: The pairs that the scores are of.
        replicates: Bootstrap samples.
        seed: Of the random numbers.

    Raises:
        InputError: Wrong shapes, only one kind of pair, or no face found at all.
    """
    same = pairs.same
    if pairs.folds is None:
        best = verification_accuracy(scores, same)
        accuracy, threshold = best.accuracy, best.threshold
        right = judged_right(scores, same, threshold)
        deviation = _deviation_of_parts(right, same)
    else:
        folds = fold_accuracy(scores, same, pairs.folds)
        accuracy, deviation = folds.accuracy, folds.standard_deviation
        threshold = float(folds.thresholds.mean())
        fold_of = np.unique(pairs.folds, return_inverse=True)[1]
        right = judged_right(scores, same, folds.thresholds[fold_of])
    smallest = smallest_meaningful_far(int((~same).sum())) * (1 - 1e-9)
    rates = [rate for rate in FALSE_ACCEPT_RATES if rate >= smallest]
    names = ["accuracy", "auc", "eer", *(f"tar_at_far_{rate}" for rate in rates)]

    def statistics(drawn: Indices) -> list[float]:
        values = scores[drawn], same[drawn]
        return [
            # At the threshold chosen on the whole list: the interval is that of its accuracy.
            float(right[drawn].mean()),
            roc_auc(*values),
            equal_error_rate(*values),
            *(tar_at_far(*values, rate) for rate in rates),
        ]

    samples = bootstrap(statistics, pairs.people, replicates, seed)
    return VerificationNumbers(
        accuracy=accuracy,
        accuracy_std=deviation,
        auc=roc_auc(scores, same),
        eer=equal_error_rate(scores, same),
        tar_at_far={
            rate: tar_at_far(scores, same, rate) if rate in rates else None
            for rate in FALSE_ACCEPT_RATES
        },
        threshold=threshold,
        intervals=dict(zip(names, map(percentile_interval, samples.T), strict=True)),
    )


def _deviation_of_parts(right: Flags, same: Flags) -> float:
    """Standard deviation of the accuracy over parts, each with its share of both kinds."""
    part = np.empty(len(right), np.int64)
    for kind in (same, ~same):
        part[kind] = np.arange(kind.sum()) % _PARTS
    accuracies = [right[part == number].mean() for number in np.unique(part)]
    return float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
