from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from face_encode.detectors.registry import load_detector
from face_encode.encoders.registry import load_encoder
from face_encode.errors import DatasetError, InputError
from face_encode.evaluation.contact_sheet import verdict
from face_encode.evaluation.people import (
    evaluate_identification,
    evaluate_people,
    identification_at,
    search_people,
)
from tests.conftest import VERIFY_DATASET


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


def test_a_refused_face_is_missed_or_rightly_not_named() -> None:
    similarities = np.full((3, 3), math.nan)
    result = evaluate_identification(
        similarities, GALLERY, ["ann", "dee", "eve"], 0.5, refused=[True, True, False]
    )
    assert (result.refused, result.not_found) == (2, 1)
    assert (result.correct, result.missed, result.false_alarms) == (1, 1, 0)


def test_refused_faces_are_told_one_by_one() -> None:
    similarities = [[0.9, 0.2, 0.1]]
    for refused in ([True], [False, False]):
        with pytest.raises(InputError, match=r"one bool a probe, here 1.*shape \("):
            evaluate_identification(similarities, GALLERY, ["ann"], 0.5, refused=refused)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two people to enrol, each also blurred, and a third only so; and blurred and good probes."""
    gallery, probes = tmp_path / "gallery", tmp_path / "probes"
    for person in ("Ada_Mirova", "Bruno_Castell", "Mei_Oshara"):
        for folder in (gallery / person, probes / person):
            folder.mkdir(parents=True)
        photo = Image.open(VERIFY_DATASET / person / "1.jpg")
        photo.filter(ImageFilter.GaussianBlur(8)).save(gallery / person / "blurred.png")
        photo.filter(ImageFilter.GaussianBlur(8)).save(probes / person / "blurred.png")
    for person in ("Ada_Mirova", "Bruno_Castell"):
        (gallery / person / "1.jpg").symlink_to(VERIFY_DATASET / person / "1.jpg")
    (probes / "ADA_MIROVA").mkdir()
    (probes / "ADA_MIROVA" / "2.jpg").symlink_to(VERIFY_DATASET / "Ada_Mirova" / "2.jpg")
    return gallery, probes


def test_blurred_faces_are_refused_and_names_compared_as_in_a_gallery(
    folders: tuple[Path, Path],
) -> None:
    gallery, probes = folders
    detector, encoder = load_detector(), load_encoder()
    result = evaluate_people(gallery, probes, detector, encoder, workers=1, progress=False)
    numbers = result.identification
    assert result.gallery_names == ("Ada_Mirova", "Bruno_Castell")
    assert [Path(photo).name for photo in result.enrolled] == ["1.jpg", "1.jpg"]
    assert [Path(photo).name for photo, _ in result.left_out] == ["blurred.png"] * 3
    assert all("not to be trusted: blurred" in reason for _, reason in result.not_used())
    assert (numbers.probes, numbers.refused, numbers.not_found) == (4, 3, 0)
    # Mei, whose only photo was left out, is a stranger, and rightly not named.
    assert (numbers.enrolled_probes, numbers.stranger_probes) == (3, 1)
    assert (numbers.correct, numbers.missed) == (2, 2)
    assert [verdict(each) for each in result.answers()] == ["refused: blurred"] * 3 + ["✓"]
    told = result.as_dict()
    assert len(told["refused"]) == 3 and "blurred" in told["left_out"][0]["reason"]
    assert ["probes refused for their quality", "3"] in result.rows()


def test_a_gallery_of_refused_photos_alone_is_refused(folders: tuple[Path, Path]) -> None:
    gallery, probes = folders
    for photo in gallery.glob("*/1.jpg"):
        photo.unlink()
    with pytest.raises(
        DatasetError, match=r"none of the 3 photos.*blurred\.png: not to be trusted"
    ):
        evaluate_people(gallery, probes, load_detector(), load_encoder(), workers=1, progress=False)


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
    # Fewer strangers have a face than may raise an alarm: any threshold will do.
    faceless = [0.75, -np.inf, -np.inf, -np.inf]
    assert identification_at(enrolled, right, faceless, 0.25).threshold == 0.6


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
