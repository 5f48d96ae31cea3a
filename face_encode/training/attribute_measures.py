"""How right answers about faces are: their calibration, and the report by group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.attributes.answers import (
    EXPRESSIONS,
    GENDERS,
    INTERVAL,
    PARTS,
    Calibration,
    age_quantiles,
    probabilities,
)
from face_encode.training.attribute_data import UNKNOWN, LabelledFaces
from face_encode.training.data import Rows
from face_encode.types import Embeddings


def accuracies(answers: Embeddings, faces: LabelledFaces) -> dict[str, float]:
    """Share of right genders and expressions, and mean absolute error of the age in years."""
    values = {}
    plain = Calibration(dict.fromkeys(PARTS, 1.0), 0.5)
    known = faces.ages != UNKNOWN
    if known.any():
        ages = age_quantiles(probabilities(answers[known], "age", plain), 0.5)[:, 0]
        values["age"] = float(np.abs(ages - faces.ages[known]).mean())
    for name, labels in (("gender", faces.genders), ("expression", faces.expressions)):
        known = labels != UNKNOWN
        if known.any():
            given = answers[known][:, PARTS[name]].argmax(axis=1)
            values[name] = float((given == labels[known]).mean())
    return values


def calibrate(answers: Embeddings, faces: LabelledFaces, gender_accuracy: float) -> Calibration:
    """Choose temperatures and the bound of the gender, on photos not trained on.

    The temperature of gender and expression is the likeliest one; that of the age the one whose
    interval holds the share of the people that it states. An attribute without photos has 1.

    Args:
        answers: float32 ``(N, ANSWERS)``.
        faces: The photos.
        gender_accuracy: Share of the answers above the bound that are right.
    """
    labels = {"gender": faces.genders, "expression": faces.expressions, "age": faces.ages}
    chosen = dict.fromkeys(PARTS, 1.0)
    tried = np.exp(np.linspace(np.log(0.25), np.log(4), 81)).tolist()
    for name in PARTS:
        known = labels[name] != UNKNOWN
        if not known.any():
            continue
        off = []
        for temperature in tried:
            candidate = Calibration({**chosen, name: temperature}, 0.5)
            shares = probabilities(answers[known], name, candidate)
            if name == "age":
                off.append(abs(_held(shares, labels[name][known]).mean() - INTERVAL))
            else:
                right = shares[np.arange(len(shares)), labels[name][known]]
                off.append(-np.log(np.maximum(right, 1e-12)).mean())
        chosen[name] = round(tried[int(np.argmin(off))], 3)
    bound, known = 0.5, faces.genders != UNKNOWN
    if known.any():
        shares = probabilities(answers[known], "gender", Calibration(chosen, 0.5))
        sure, right = shares.max(axis=1), shares.argmax(axis=1) == faces.genders[known]
        order = np.argsort(-sure)
        accuracy = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        enough = np.flatnonzero(accuracy >= gender_accuracy)
        bound = float(np.ceil(100 * sure[order[enough[-1]]]) / 100) if len(enough) else 1.0
    return Calibration(chosen, max(0.5, min(1.0, bound)))


def even_out(answers: Embeddings, faces: LabelledFaces, calibration: Calibration) -> Embeddings:
    """What to add to answers so that each expression is expected as often as it is shown.

    Softened labels and photos of other sets make a network expect some too seldom: Saerens and
    others, "Adjusting the Outputs of a Classifier to New a Priori Probabilities", 2002.

    Args:
        answers: float32 ``(N, ANSWERS)``.
        faces: The photos, not trained on.
        calibration: Of these answers.

    Returns:
        float32 ``(ANSWERS,)``.
    """
    added = np.zeros(answers.shape[1], np.float32)
    known = faces.expressions != UNKNOWN
    if known.any():
        part, temperature = PARTS["expression"], calibration.temperatures["expression"]
        shown = np.bincount(faces.expressions[known], minlength=len(EXPRESSIONS))
        # Few photos say little about how often each is shown: so much is left as it was.
        before = probabilities(answers[known], "expression", calibration).mean(axis=0)
        share = (shown + _LEFT * before) / (shown.sum() + _LEFT)
        for _ in range(_ROUNDS):
            expected = probabilities(answers[known] + added, "expression", calibration).mean(axis=0)
            added[part] += temperature * np.log(share / expected)
    return added


_ROUNDS, _LEFT = 30, 50


def _held(distribution: Any, ages: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each interval holds the age, rounded to whole years as labels are."""
    low, high = age_quantiles(distribution, (1 - INTERVAL) / 2, (1 + INTERVAL) / 2).T
    return np.asarray((np.round(low) <= ages) & (ages <= np.round(high)))


def measure(
    answers: Embeddings, faces: LabelledFaces, calibration: Calibration
) -> list[dict[str, Any]]:
    """Measure answers on labelled photos, of all and by group.

    Returns:
        A dict a group: ``group``, ``photos``, and as far as they are labelled ``age_error`` (mean
        absolute, years), ``age_held`` (share within the interval), ``age_width`` (median of the
        interval, years), ``gender`` (share right), ``gender_sure`` (share given), ``sure_right``
        (share right of those given) and ``expression`` (share right).
    """
    return [
        {"group": name, **_measured(answers[rows], faces.part(rows), calibration)}
        for name, rows in _groups(faces)
        if len(rows)
    ]


def _groups(faces: LabelledFaces) -> Iterator[tuple[str, Rows]]:
    yield "all", np.arange(len(faces))
    ages = faces.ages
    yield "adults, 18 and more", np.flatnonzero(ages >= 18)
    for low, high in ((0, 2), (3, 12), (13, 17), (18, 29), (30, 44), (45, 59), (60, 74), (75, 100)):
        yield f"age {low} to {high}", np.flatnonzero((ages >= low) & (ages <= high))
    for index, name in enumerate(GENDERS):
        yield name, np.flatnonzero(faces.genders == index)
    folders = np.array([photo.split("/")[0] for photo in faces.photos])
    for folder in np.unique(folders):
        yield str(folder), np.flatnonzero(folders == folder)
    for group in np.unique(faces.groups):
        if group:
            yield str(group), np.flatnonzero(faces.groups == group)
    for index, name in enumerate(EXPRESSIONS):
        yield name, np.flatnonzero(faces.expressions == index)


def _measured(
    answers: Embeddings, faces: LabelledFaces, calibration: Calibration
) -> dict[str, float]:
    values: dict[str, float] = {"photos": len(faces)}
    known = faces.ages != UNKNOWN
    if known.any():
        shares = probabilities(answers[known], "age", calibration)
        low, age, high = age_quantiles(shares, (1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2).T
        values["age_error"] = float(np.abs(age - faces.ages[known]).mean())
        values["age_held"] = float(_held(shares, faces.ages[known]).mean())
        values["age_width"] = float(np.median(high - low))
    known = faces.genders != UNKNOWN
    if known.any():
        shares = probabilities(answers[known], "gender", calibration)
        right = shares.argmax(axis=1) == faces.genders[known]
        sure = shares.max(axis=1) >= calibration.gender_bound
        values |= {"gender": float(right.mean()), "gender_sure": float(sure.mean())}
        if sure.any():
            values["sure_right"] = float(right[sure].mean())
    known = faces.expressions != UNKNOWN
    if known.any():
        shares = probabilities(answers[known], "expression", calibration)
        right = shares.argmax(axis=1) == faces.expressions[known]
        values["expression"] = float(right.mean())
    return values
