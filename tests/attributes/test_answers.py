from __future__ import annotations

import numpy as np
import pytest

from face_encode.attributes.answers import (
    ANSWERS,
    EXPRESSIONS,
    PARTS,
    YEARS,
    Attributes,
    Calibration,
    age_quantiles,
    probabilities,
    read_answers,
)
from face_encode.errors import InputError, ModelFileError
from face_encode.types import Quality

PLAIN = Calibration({"age": 1.0, "gender": 1.0, "expression": 1.0}, 0.8)


def answers(age: int = 30, man: float = 0.0, expression: str = "happy") -> np.ndarray:
    """One row that is sure of an age and an expression; the logit of "man" against "woman"."""
    row = np.zeros((1, ANSWERS), np.float32)
    row[0, age] = 50
    row[0, PARTS["gender"].start + 1] = man
    row[0, PARTS["expression"].start + EXPRESSIONS.index(expression)] = 50
    return row


def test_the_parts_fill_a_row() -> None:
    assert [ANSWERS, PARTS["age"].start] == [110, 0]
    assert [part.stop - part.start for part in PARTS.values()] == [101, 2, 7]


def test_a_temperature_flattens_the_probabilities() -> None:
    row = answers(man=np.log(9))
    assert probabilities(row, "gender", PLAIN)[0] == pytest.approx([0.1, 0.9])
    warm = Calibration({**PLAIN.temperatures, "gender": 2.0}, 0.8)
    # The square root of 9 is 3.
    assert probabilities(row, "gender", warm)[0] == pytest.approx([0.25, 0.75])


def test_ages_are_spread_over_their_year() -> None:
    one = np.zeros((1, len(YEARS)))
    one[0, 30] = 1
    assert age_quantiles(one, 0.5, 0.05, 0.95)[0] == pytest.approx([30, 29.55, 30.45])
    two = np.zeros((1, len(YEARS)))
    two[0, [20, 40]] = 0.5
    assert age_quantiles(two, 0.25, 0.75)[0] == pytest.approx([20, 40])
    newborn = np.zeros((1, len(YEARS)))
    newborn[0, 0] = 1
    assert age_quantiles(newborn, 0.05)[0, 0] == 0


def test_a_row_is_read() -> None:
    (shown,) = read_answers(answers(man=np.log(9)), PLAIN, [Quality(0.9)])
    assert shown.age == pytest.approx(30)
    assert shown.age_interval == pytest.approx((29.6, 30.4), abs=0.1)
    assert (shown.gender, shown.expression, shown.reason) == ("man", "happy", None)
    assert shown.gender_probabilities == pytest.approx({"woman": 0.1, "man": 0.9})
    assert shown.expression_probabilities is not None
    assert list(shown.expression_probabilities) == list(EXPRESSIONS)
    assert shown.as_dict()["age_interval"] == list(shown.age_interval or ())
    assert str(shown) == "30 years (30 to 30), man, happy"


def test_a_gender_below_the_bound_is_uncertain() -> None:
    (shown,) = read_answers(answers(man=np.log(3)), PLAIN, [None])
    assert shown.gender == "uncertain"
    assert shown.gender_probabilities == pytest.approx({"woman": 0.25, "man": 0.75})


def test_nothing_is_told_of_a_face_that_is_not_to_be_trusted() -> None:
    shown = read_answers(
        np.concatenate([answers(), answers()]), PLAIN, [Quality(0.1, "blurred"), Quality(0.9)]
    )
    assert shown[0] == Attributes(reason="blurred")
    assert set(shown[0].as_dict().values()) == {None}
    assert str(shown[0]) == "cannot be told: blurred"
    assert shown[1].expression == "happy"


def test_a_calibration_is_read_as_it_was_written() -> None:
    assert Calibration.from_json(PLAIN.to_json()) == PLAIN


@pytest.mark.parametrize("text", ["[]", "{", '{"temperatures": 1, "gender_bound": 0.8}', "null"])
def test_a_damaged_calibration_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError, match="calibration of the attributes is damaged"):
        Calibration.from_json(text)


@pytest.mark.parametrize(
    ("temperatures", "bound"),
    [
        ({"age": 1.0}, 0.8),
        ({**PLAIN.temperatures, "age": 0.0}, 0.8),
        ({**PLAIN.temperatures, "age": float("nan")}, 0.8),
        (PLAIN.temperatures, 0.4),
    ],
)
def test_a_calibration_out_of_range_is_refused(
    temperatures: dict[str, float], bound: float
) -> None:
    with pytest.raises(InputError):
        Calibration(temperatures, bound)
