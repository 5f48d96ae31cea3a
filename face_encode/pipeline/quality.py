"""Quality of faces: the encoder's number for each, and in words why it is not sufficient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.quality import Qualities
from face_encode.gallery.mistakes import sharpness
from face_encode.types import Face, ImageArray, Quality

TOO_SMALL, TOO_DARK, BLURRED, TURNED_AWAY, COVERED = (
    "too small",
    "too dark",
    "blurred",
    "turned away",
    "covered or distorted",
)

# The bounds below are measured on 1,714 photos of LFW. A face of fewer pixels is mostly invented by
# enlarging.
_MIN_SIDE = 40
# Of crops brought to this size, whatever the encoder's.
_COMPARED_SIDE = 64
# A blur of 3 pixels on photos of 250 brings 95 % of the crops below, 2 % of those in focus are.
_MIN_SHARPNESS = 0.045
# Mean of the crop's middle, 0..255: 98 % of photos in good light reach 75; a tenth of it leaves 12.
_MIN_BRIGHTNESS = 40
# How far the nose lies beside the middle of the eyes, in distances of the eyes: 2 % reach 0.29.
_MAX_YAW = 0.3
# How far it lies below them; 98 % of the faces lie between.
_PITCHES = (0.52, 1.05)


def judge_faces(
    faces: Sequence[Face],
    qualities: Qualities | None,
    crops: ImageArray,
    contract: EncoderContract,
) -> list[Face]:
    """Give faces their quality, with the reason where it is not sufficient.

    Args:
        faces: N faces.
        qualities: float32 ``(N,)``, as ``Encoder.embed`` gives them; None leaves the faces as they
            are.
        crops: uint8 ``(N, height, width, 3)``, of the faces.
        contract: The encoder's, which states the quality that is sufficient.
    """
    if qualities is None:
        return list(faces)
    bound = contract.quality_threshold or 0.0
    reasons = [
        quality_reason(contract.crop.first_of(crop[np.newaxis])[0], face) if value < bound else None
        for face, value, crop in zip(faces, qualities, crops, strict=True)
    ]
    return [
        replace(face, quality=Quality(value, reason))
        for face, value, reason in zip(faces, qualities.tolist(), reasons, strict=True)
    ]


def quality_reason(crop: ImageArray, face: Face) -> str:
    """Say in words what is most likely wrong with a face of insufficient quality.

    Size, light, focus and the turn of the head are measured, in this order; what is left, a cover,
    strong compression, or no face at all, is told together.

    Args:
        crop: RGB, uint8, ``(height, width, 3)``.
        face: Where it was cut out.
    """
    if min(face.box.width, face.box.height) < _MIN_SIDE:
        return TOO_SMALL
    size = (_COMPARED_SIDE, _COMPARED_SIDE)
    alike = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
    quarter = _COMPARED_SIDE // 4
    if alike[quarter:-quarter, quarter:-quarter].mean() < _MIN_BRIGHTNESS:
        return TOO_DARK
    if sharpness(alike) < _MIN_SHARPNESS:
        return BLURRED
    if face.landmarks is not None:
        # As complex numbers, with the distance of the eyes along the first axis as the unit.
        corners = np.asarray(face.landmarks, np.float64) @ (1, 1j)
        right, left = corners[:2].mean(), corners[2:4].mean()
        nose = (corners[4] - (right + left) / 2) / (right - left) if right != left else 0
        if abs(nose.real) > _MAX_YAW or not _PITCHES[0] <= nose.imag <= _PITCHES[1]:
            return TURNED_AWAY
    return COVERED
