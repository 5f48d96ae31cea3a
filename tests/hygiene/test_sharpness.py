from __future__ import annotations

import cv2
import numpy as np
import pytest

from face_encode.gallery.mistakes import is_blurred, sharpness
from face_encode.types import ImageArray


def test_sharpness_falls_with_blur_and_not_with_contrast() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (150, 150, 3)).astype(np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(crop, (0, 0), 3), np.uint8)
    assert sharpness(blurred) < 0.1 * sharpness(crop)
    assert sharpness(crop // 2) == pytest.approx(sharpness(crop), rel=0.02)
    assert sharpness(np.full((150, 150, 3), 90, np.uint8)) == 0


def test_a_crop_as_it_is_passes_and_a_blurred_one_does_not(colour_crops: ImageArray) -> None:
    crop = colour_crops[0]
    assert not is_blurred(crop)
    assert is_blurred(np.asarray(cv2.GaussianBlur(crop, (0, 0), 6), np.uint8))
