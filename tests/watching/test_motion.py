from __future__ import annotations

import cv2
import numpy as np

from face_encode.video.tracking import follow_boxes, shrink


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


def test_what_cannot_be_found_again_is_none() -> None:
    other = np.random.default_rng(4).integers(0, 256, (240, 320), np.uint8)
    assert follow_boxes(texture(), other, [np.array([100.0, 80, 60, 50])]) == [None]
    assert follow_boxes(texture(), other, []) == []


def test_shrinking_never_enlarges() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    assert shrink(image, 320)[1] == 1
    smaller, scale = shrink(image, 40)
    assert smaller.shape == (22, 40, 3)
    assert scale == 0.25
