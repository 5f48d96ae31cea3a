from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.evaluation.people import evaluate_identification, identification_at, search_people


def test_a_person_is_as_near_as_the_nearest_photo() -> None:
    embeddings = np.array([[0, 1], [1, 0], [3, 4], [5, 0]], np.float32)
    names = np.array(["bo", "ann", "bo", "cy"])
    probes = np.array([[2, 0], [np.nan, np.nan], [0, 0.5]], np.float32)
    people, similarities, nearest = search_people(embeddings, names, probes)
    assert people == ("ann", "bo", "cy")
    np.testing.assert_allclose(
        similarities, np.array([[1, 0.6, 1], [np.nan, np.nan, np.nan], [0, 1, 0]]), atol=1e-6
    )
    assert nearest[0] in (1, 3)
    assert nearest[1:].tolist() == [-1, 0]


def test_nobody_found_at_all() -> None:
    probes = np.full((2, 2), np.nan, np.float32)
    _, similarities, nearest = search_people(
        np.eye(2, dtype=np.float32), np.array(["a", "b"]), probes
    )
    assert np.isnan(similarities).all()
    assert nearest.tolist() == [-1, -1]


GALLERY = ["ann", "bo", "cy"]


def test_six_probes_by_hand() -> None:
    nan = math.nan
    similarities = [
        [0.9, 0.2, 0.1],  # ann, right
        [0.6, 0.7, 0.1],  # ann, called bo; her own name comes second
        [0.1, 0.3, 0.2],  # bo, right but below the threshold
        [nan, nan, nan],  # cy, no face found
        [0.1, 0.8, 0.2],  # a stranger, called bo
        [0.1, 0.2, 0.3],  # a stranger, rightly not named
    ]
    names = ["ann", "ann", "bo", "cy", "dee", "eve"]
    result = evaluate_identification(similarities, GALLERY, names, threshold=0.5)
    assert (result.enrolled_probes, result.stranger_probes, result.not_found) == (4, 2, 1)
    assert result.rank_1 == pytest.approx(2 / 4)
    assert result.rank_5 == pytest.approx(3 / 4)
    assert result.correct == 2
    assert result.wrong_name == 1
    assert result.missed == 2
    assert result.false_alarms == 1
    assert result.confusions == {("ann", "bo"): 1, ("dee", "bo"): 1}
    assert result.probes == 6
    assert result.correct_interval.lower < 2 / 6 < result.correct_interval.upper
    assert result.false_alarm_interval is not None
    assert 0.5 in result.false_alarm_interval
    assert result.at_false_alarm_rate == ()


def test_equal_similarities_earn_nothing() -> None:
    result = evaluate_identification([[0.5, 0.5, 0.5]], GALLERY, ["ann"], threshold=0.4)
    assert result.rank_1 == 0
    assert result.rank_5 == 1


def test_a_stranger_without_a_face_is_neither_alarm_nor_right_answer() -> None:
    result = evaluate_identification(np.full((1, 3), math.nan), GALLERY, ["dee"], threshold=0.5)
    assert (result.correct, result.false_alarms) == (0, 0)
    assert math.isnan(result.rank_1)


def test_identification_rate_by_hand() -> None:
    enrolled = [0.9, 0.8, 0.7, 0.6]
    right = [True, False, True, True]
    strangers = [0.75, 0.65, 0.5, 0.4]
    none = identification_at(enrolled, right, strangers, 0)
    assert none.identified == pytest.approx(1 / 4)
    assert 0.75 < none.threshold < 0.7501
    assert identification_at(enrolled, right, strangers, 0.25).identified == pytest.approx(2 / 4)
    assert identification_at(enrolled, right, strangers, 0.5).identified == pytest.approx(3 / 4)
    assert identification_at(enrolled, right, strangers, 1).identified == pytest.approx(3 / 4)


def test_rates_are_given_only_where_there_are_strangers_enough() -> None:
    random = np.random.default_rng(0)
    names = ["ann"] * 5 + [f"stranger {number}" for number in range(200)]
    similarities = random.random((205, 3))
    result = evaluate_identification(similarities, GALLERY, names, 0.5, alarm_rates=(0.1, 0.01))
    assert [each.false_alarm_rate for each in result.at_false_alarm_rate] == [0.1]
    alarms = similarities[5:].max(axis=1) >= result.at_false_alarm_rate[0].threshold
    assert alarms.sum() == 20


@pytest.mark.parametrize(
    ("similarities", "gallery", "names"),
    [
        (np.zeros((2, 3)), GALLERY, ["ann"]),
        (np.zeros((0, 3)), GALLERY, []),
        (np.zeros((1, 2)), ["ann", "ann"], ["ann"]),
    ],
)
def test_nonsense_is_refused(similarities: Any, gallery: list[str], names: list[str]) -> None:
    with pytest.raises(InputError):
        evaluate_identification(similarities, gallery, names, 0.5)
    with pytest.raises(InputError):
        identification_at([0.5], [True], [], 0.1)
    with pytest.raises(InputError):
        identification_at([0.5], [True], [0.1], 2)
