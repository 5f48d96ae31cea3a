from __future__ import annotations

import cv2
import numpy as np
import pytest

from face_encode.types import Box, Face
from face_encode.video.tracking import Tracker, follow_boxes, overlap_of_all, shrink

SIZE = (640, 360)


def face(left: int, top: int = 100, side: int = 80) -> Face:
    return Face(Box(left, top, side, side), 1.0)


def seen(tracker: Tracker, seconds: float, *faces: Face) -> list[int]:
    """A frame in which exactly these faces are found; the numbers of the shown tracks."""
    tracker.drop_unseen(seconds)
    tracker.move([track.box for track in tracker.tracks], seconds)
    tracker.find(faces, seconds, SIZE)
    return [track.number for track in tracker.tracks if track.is_shown(seconds)]


def test_overlaps_by_hand() -> None:
    boxes = [np.array([0.0, 0, 10, 10]), np.array([5.0, 0, 10, 10]), np.array([50.0, 50, 4, 4])]
    overlaps = overlap_of_all(boxes[:1], boxes)
    assert overlaps.shape == (1, 3)
    assert np.allclose(overlaps, [[1, 50 / 150, 0]])
    assert overlap_of_all([], boxes).shape == (0, 3)


def test_a_face_keeps_its_number_and_is_shown_from_the_third_time_on() -> None:
    tracker = Tracker()
    assert seen(tracker, 0.0, face(100)) == []
    assert seen(tracker, 0.1, face(108)) == []
    assert seen(tracker, 0.2, face(116)) == [1]
    assert tracker.tracks[0].since == 0.0


def test_a_false_alarm_is_never_shown() -> None:
    tracker = Tracker()
    shown = [seen(tracker, 0.1 * index, *[face(300)] * (index % 4 == 0)) for index in range(20)]
    assert not any(shown)


def test_a_face_that_is_not_found_for_a_moment_stays() -> None:
    tracker = Tracker()
    for index in range(4):
        seen(tracker, 0.1 * index, face(100))
    assert seen(tracker, 0.5) == [1]
    assert seen(tracker, 1.0) == []  # no longer shown, but remembered
    assert seen(tracker, 1.2, face(110)) == [1]
    for seconds in (1.5, 2.0, 2.9):
        seen(tracker, seconds)
    assert tracker.tracks == []
    for seconds in (3.0, 3.1, 3.2):
        shown = seen(tracker, seconds, face(110))
    assert shown == [2]


def test_after_a_break_a_face_at_the_same_place_is_another_one() -> None:
    tracker = Tracker()
    for index in range(50):
        seen(tracker, 0.1 * index, face(100))
    for index in range(3):
        shown = seen(tracker, 3605 + 0.1 * index, face(100))
    assert shown == [2]
    assert tracker.tracks[0].since == 3605


def test_a_face_in_frames_that_come_seldom_stays_the_same() -> None:
    tracker = Tracker()
    for index in range(20):
        shown = seen(tracker, 2.0 * index, face(100))
    (number,) = shown
    # In the first frames, nobody can know how often they come.
    assert number <= 6


def test_two_faces_that_pass_each_other_keep_their_numbers() -> None:
    tracker = Tracker()
    for index in range(60):
        # The motion of each is known; the detector finds both, in any order.
        lefts = [50 + 5 * index, 400 - 5 * index]
        moved = [
            np.array([lefts[track.number - 1], 100.0 + 60 * (track.number == 2), 80, 80])
            for track in tracker.tracks
        ]
        tracker.move(moved, 0.04 * index)
        tracker.find(
            [face(lefts[1], 160), face(lefts[0])][:: 1 if index else -1], 0.04 * index, SIZE
        )
    assert [track.number for track in tracker.tracks] == [1, 2]
    assert tracker.tracks[0].box[0] == pytest.approx(345)
    assert tracker.tracks[1].box[0] == pytest.approx(105)


def test_a_face_lost_to_sight_keeps_its_velocity() -> None:
    tracker = Tracker()
    for index in range(10):
        tracker.move(
            [np.array([100.0 + 10 * index, 100, 80, 80]) for _ in tracker.tracks], 0.1 * index
        )
        tracker.find([face(100 + 10 * index)], 0.1 * index, SIZE)
    tracker.move([None], 1.0)
    assert 195 < tracker.tracks[0].box[0] < 201


def test_a_face_that_leaves_the_picture_is_dropped() -> None:
    tracker = Tracker()
    for index in range(4):
        seen(tracker, 0.1 * index, face(570))
    tracker.move([np.array([620.0, 100, 80, 80])], 0.4)
    tracker.find([], 0.4, SIZE)
    assert tracker.tracks == []


def test_a_face_followed_twice_is_followed_once() -> None:
    tracker = Tracker()
    for index in range(4):
        seen(tracker, 0.1 * index, face(100))
    tracker.find([face(100), face(104)], 0.5, SIZE)
    assert [track.number for track in tracker.tracks] == [1]


def texture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    noise = np.random.default_rng(3).integers(0, 256, (60, 80), np.uint8)
    return np.asarray(cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)


def warped(
    scale: float, right: float, down: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    matrix = np.array([[scale, 0, right], [0, scale, down]], np.float64)
    return np.asarray(cv2.warpAffine(texture(), matrix, (320, 240)), np.uint8)


def test_a_box_goes_where_the_picture_goes() -> None:
    box = np.array([100.0, 80.0, 60.0, 50.0])
    (moved,) = follow_boxes(texture(), warped(1, 5, -3), [box])
    assert moved is not None
    assert np.allclose(moved, [105, 77, 60, 50], atol=0.3)


def test_a_box_grows_with_the_picture() -> None:
    box = np.array([100.0, 80.0, 60.0, 50.0])
    (moved,) = follow_boxes(texture(), warped(1.05, 0, 0), [box])
    assert moved is not None
    assert np.allclose(moved, 1.05 * box, atol=0.5)


def test_several_boxes_go_each_its_own_way() -> None:
    after = texture()
    after[:, 160:] = warped(1, 4, 0)[:, 160:]
    still, moving = follow_boxes(
        texture(), after, [np.array([40.0, 60, 60, 60]), np.array([220.0, 60, 60, 60])]
    )
    assert still is not None and moving is not None
    assert abs(still[0] - 40) < 0.2
    assert abs(moving[0] - 224) < 0.2


def test_a_box_that_cannot_be_found_again_is_none() -> None:
    other = np.random.default_rng(4).integers(0, 256, (240, 320), np.uint8)
    assert follow_boxes(texture(), other, [np.array([100.0, 80, 60, 50])]) == [None]
    assert follow_boxes(texture(), other, []) == []


def test_shrinking_never_enlarges() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    assert shrink(image, 320)[1] == 1
    smaller, scale = shrink(image, 40)
    assert smaller.shape == (22, 40, 3)
    assert scale == 0.25
