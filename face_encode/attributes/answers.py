"""From a network's numbers about a face to age, gender and expression, with how sure they are.

A network gives one row of logits a face: of each year of age, of the genders and of the
expressions. Age as a distribution over years is that of Rothe and others, "DEX: Deep EXpectation of
apparent age", 2015; here its median is the age, and its quantiles are the interval. Temperatures,
which make the probabilities mean what they say, are those of Guo and others, "On Calibration of
Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError, ModelFileError
from face_encode.types import Embeddings, Quality

FloatArray = npt.NDArray[np.float64]

YEARS = np.arange(101)
"""The ages that a network tells apart, 0 to 100; older people count as 100."""

GENDERS = ("woman", "man")
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
UNCERTAIN = "uncertain"

INTERVAL = 0.9
"""Share of the people whose age lies within the interval given."""

PARTS = {
    "age": slice(0, len(YEARS)),
    "gender": slice(len(YEARS), len(YEARS) + len(GENDERS)),
    "expression": slice(len(YEARS) + len(GENDERS), len(YEARS) + len(GENDERS) + len(EXPRESSIONS)),
}
"""Where in a row of numbers the logits of each attribute are."""

ANSWERS = PARTS["expression"].stop
"""Length of a row."""


@dataclass(frozen=True)
class Calibration:
    """What makes a network's numbers mean what they say, measured on photos not trained on.

    Attributes:
        temperatures: What the logits of age, gender and expression are divided by.
        gender_bound: Probability of the likelier gender below which it is "uncertain".
    """

    temperatures: dict[str, float]
    gender_bound: float

    def __post_init__(self) -> None:
        values = self.temperatures.values()
        if set(self.temperatures) != set(PARTS) or not all(0 < each < 100 for each in values):
            raise InputError(
                f"temperatures are those of {', '.join(PARTS)}, above 0. "
                f"Received: {self.temperatures}"
            )
        if not 0.5 <= self.gender_bound <= 1:
            raise InputError(
                f"a gender's bound is a probability, 0.5..1. Received: {self.gender_bound}"
            )

    def to_json(self) -> str:
        """Write the text of the member of the model file."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> Calibration:
        """Read what ``to_json`` wrote.

        Raises:
            ModelFileError: Another text.
        """
        try:
            return cls(**json.loads(text))
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            raise ModelFileError(
                f"the calibration of the attributes is damaged: {error}"
            ) from error


@dataclass(frozen=True)
class Attributes:
    """What a face shows.

    Attributes:
        age: Years, as the face looks; None where it cannot be told.
        age_interval: Lowest and highest age, between which nine in ten people of such a look are.
        gender: ``"woman"``, ``"man"`` or ``"uncertain"``, as the face looks; None where it cannot
            be told.
        gender_probabilities: Of woman and man.
        expression: The likeliest of ``EXPRESSIONS``; None where it cannot be told.
        expression_probabilities: Of each of them.
        reason: Why nothing can be told, such as ``"blurred"``; None where it can.
    """

    age: float | None = None
    age_interval: tuple[float, float] | None = None
    gender: str | None = None
    gender_probabilities: dict[str, float] | None = None
    expression: str | None = None
    expression_probabilities: dict[str, float] | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The attributes without the reason as plain JSON values, rounded."""
        values = asdict(self)
        del values["reason"]
        if self.age_interval is not None:
            values["age_interval"] = list(self.age_interval)
        return values

    def __str__(self) -> str:
        if self.age is None or self.age_interval is None:
            return f"cannot be told: {self.reason}"
        low, high = self.age_interval
        return f"{self.age:.0f} years ({low:.0f} to {high:.0f}), {self.gender}, {self.expression}"


def probabilities(answers: Embeddings, part: str, calibration: Calibration) -> FloatArray:
    """The calibrated probabilities of one attribute, float64 ``(N, classes)``.

    Args:
        answers: A network's rows, float32 ``(N, ANSWERS)``.
        part: A key of ``PARTS``.
        calibration: The network's.
    """
    logits = answers[:, PARTS[part]].astype(np.float64) / calibration.temperatures[part]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def age_quantiles(distribution: FloatArray, *shares: float) -> FloatArray:
    """Ages below which a share of a distribution over ``YEARS`` lies.

    Somebody of 30 has had a birthday 0 to 365 days ago, and labels are whole years: the probability
    of a year is spread evenly from half a year before to half a year behind it.

    Args:
        distribution: ``(N, 101)``, each row with the sum 1.
        *shares: Within 0..1.

    Returns:
        float64 ``(N, len(shares))``, not below 0.
    """
    ends = np.append(YEARS, len(YEARS)) - 0.5
    below = np.pad(np.cumsum(distribution, axis=1), ((0, 0), (1, 0)))
    ages = [[np.interp(share, row, ends) for share in shares] for row in below]
    return np.maximum(np.reshape(ages, (len(distribution), len(shares))), 0.0)


def read_answers(
    answers: Embeddings, calibration: Calibration, qualities: list[Quality | None]
) -> list[Attributes]:
    """Read a network's rows.

    Args:
        answers: float32 ``(N, ANSWERS)``.
        calibration: The network's.
        qualities: Of each face; one with a reason gets no attributes but that.

    Returns:
        One a row.
    """
    ages = age_quantiles(
        probabilities(answers, "age", calibration), 0.5, (1 - INTERVAL) / 2, (1 + INTERVAL) / 2
    )
    genders = probabilities(answers, "gender", calibration)
    expressions = probabilities(answers, "expression", calibration)
    read = []
    for index, quality in enumerate(qualities):
        if quality is not None and quality.reason is not None:
            read.append(Attributes(reason=quality.reason))
            continue
        likeliest = int(genders[index].argmax())
        is_sure = genders[index, likeliest] >= calibration.gender_bound
        age, low, high = np.round(ages[index], 1).tolist()
        read.append(
            Attributes(
                age=age,
                age_interval=(low, high),
                gender=GENDERS[likeliest] if is_sure else UNCERTAIN,
                gender_probabilities=_named(GENDERS, genders[index]),
                expression=EXPRESSIONS[int(expressions[index].argmax())],
                expression_probabilities=_named(EXPRESSIONS, expressions[index]),
            )
        )
    return read


def _named(names: tuple[str, ...], values: FloatArray) -> dict[str, float]:
    """Probabilities by name, rounded."""
    return dict(zip(names, np.round(values, 4).tolist(), strict=True))
