"""The judge of liveness: its bounds, its files, and the samples of the original."""

from __future__ import annotations

import math
from copy import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from face_encode.detectors.registry import load_detector
from face_encode.errors import InputError, WeightsError
from face_encode.liveness.judging import LIVENESS_THRESHOLD, LivenessJudge
from face_encode.photos.reading import read_image
from face_encode.types import Box, Face
from tests.conftest import EXAMPLES, place_weights

SAMPLES = {"image_T1.jpg": True, "image_F1.jpg": False, "image_F2.jpg": False}


@pytest.mark.data
@pytest.mark.parametrize("detector", ["dlib", "dlib_hog", "yunet", "retinaface"])
def test_the_originals_samples_are_told_right(public_weights: Path, detector: str) -> None:
    for name in ("minifasnet_v2", "minifasnet_v1se", "yunet", "retinaface"):
        place_weights(name, public_weights)
    judge = LivenessJudge()
    for sample, is_live in SAMPLES.items():
        image = read_image(public_weights / sample)
        (face, *_) = judge.judge_in(image, load_detector(detector).detect(image))
        assert face.liveness is not None
        assert face.liveness.is_live is is_live
        assert face.liveness.value > 0.95 if is_live else face.liveness.value < 0.3


def test_faces_get_their_liveness_in_their_order(drawn_judge: LivenessJudge) -> None:
    image = read_image(EXAMPLES / "group.jpg")
    faces = load_detector("dlib_hog").detect(image)
    assert len(faces) > 1
    together = drawn_judge.judge_in(image, faces)
    assert [face.box for face in together] == [face.box for face in faces]
    values = []
    for face, judged in zip(faces, together, strict=True):
        (alone,) = drawn_judge.judge_in(image, [face])
        assert alone.liveness is not None and judged.liveness is not None
        assert judged.liveness.value == pytest.approx(alone.liveness.value, abs=1e-5)
        values.append(judged.liveness.value)
    assert len(set(values)) == len(values)
    assert all(0 < value < 1 for value in values)
    assert drawn_judge.judge_in(image, []) == []


def test_the_bound_is_included(drawn_judge: LivenessJudge) -> None:
    image = np.random.default_rng(3).integers(0, 256, (90, 90, 3), np.uint8)
    face = Face(Box(30, 30, 30, 30), 1.0)
    (judged,) = drawn_judge.judge_in(image, [face])
    assert judged.liveness is not None
    value = judged.liveness.value
    assert judged.liveness.is_live is (value >= LIVENESS_THRESHOLD)
    judge = copy(drawn_judge)
    for threshold, is_live in ((value, True), (math.nextafter(value, 1), False)):
        judge.threshold = threshold
        (judged,) = judge.judge_in(image, [face])
        assert judged.liveness is not None
        assert judged.liveness.is_live is is_live


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_a_bound_out_of_range_is_refused(threshold: Any) -> None:
    with pytest.raises(InputError, match=r"within 0..1. Received"):
        LivenessJudge(threshold=threshold)


def test_other_files_are_refused(drawn_liveness_files: list[Path]) -> None:
    with pytest.raises(WeightsError, match=r"'minifasnet_v2'.*a5eb02e1.*Received"):
        LivenessJudge(drawn_liveness_files)
    with pytest.raises(InputError, match="2 files, of minifasnet_v2 and minifasnet_v1se"):
        LivenessJudge(drawn_liveness_files[:1])
    for wrong in (str(drawn_liveness_files[0]), drawn_liveness_files[0], b"xx", "xx", [None, 3], 3):
        with pytest.raises(InputError, match=r"a list of 2 files.*Received"):
            LivenessJudge(cast(Any, wrong))
