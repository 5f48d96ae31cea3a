from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_encode.detectors import haar
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.detectors.haar import HaarDetector
from face_encode.detectors.registry import load_detector
from face_encode.errors import InputError, MissingExtraError, WeightsError
from face_encode.photos.reading import read_image


def test_finds_faces_that_hog_is_too_coarse_for(people_photos: list[Path]) -> None:
    image = read_image(people_photos[0])
    (face,) = DlibHogDetector().detect(image)
    scale = 45 / face.box.width
    smaller = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = smaller.astype(np.uint8)
    assert DlibHogDetector().detect(small) == []
    assert len(HaarDetector().detect(small)) == 1


@pytest.mark.parametrize("step", [1.0, 0.5, float("nan")])
def test_a_step_that_leads_nowhere_is_refused(step: float) -> None:
    with pytest.raises(InputError, match=r"above 1\. Received"):
        HaarDetector(step=step)


def test_an_opencv_without_cascades_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    travelled = pickle.dumps(HaarDetector())
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(MissingExtraError, match=r'pip install "opencv-python>=4.8,<5"'):
        load_detector("haar")
    # One that came from another process is made without its checks, and meets them at work.
    monkeypatch.delattr(haar._local, "cascade", raising=False)
    with pytest.raises(MissingExtraError, match=r'pip install "opencv-python>=4.8,<5"'):
        pickle.loads(travelled).detect(np.zeros((99, 99, 3), np.uint8))


def test_a_missing_cascade_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))  # type: ignore[attr-defined]
    monkeypatch.delattr(haar._local, "cascade", raising=False)
    with pytest.raises(WeightsError, match=r"is missing: pip install --force-reinstall"):
        HaarDetector().detect(np.zeros((99, 99, 3), np.uint8))
