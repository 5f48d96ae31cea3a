from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.photos.drawing import KNOWN_COLOUR, UNKNOWN_COLOUR, blur_boxes
from face_encode.photos.reading import read_image
from face_encode.types import Box, ImageArray
from face_encode.video.frames import WatchedFace, WatchedFrame
from face_encode.video.output import UNSETTLED_COLOUR, draw_watched
from tests.conftest import EXAMPLES


@pytest.fixture(scope="module")
def group() -> ImageArray:
    return read_image(EXAMPLES / "group.jpg")


def watched(image: ImageArray, *faces: WatchedFace) -> WatchedFrame:
    return WatchedFrame(image, 0, 0.0, faces)


def seen(box: Box, name: str | None, settled: bool = True) -> WatchedFace:
    return WatchedFace(1, box, 0.0, name, 0.95, settled, None)


def test_colours_tell_known_unknown_and_unsettled() -> None:
    grey = np.full((200, 300, 3), 90, np.uint8)
    boxes = [Box(10, 80, 50, 50), Box(110, 80, 50, 50), Box(210, 80, 50, 50)]
    frame = watched(
        grey, seen(boxes[0], "Ada"), seen(boxes[1], None), seen(boxes[2], None, settled=False)
    )
    drawn = draw_watched(frame)
    for box, colour in zip(boxes, (KNOWN_COLOUR, UNKNOWN_COLOUR, UNSETTLED_COLOUR), strict=True):
        assert tuple(drawn[box.top + 25, box.left]) == colour
    # An unsettled face has no label; the others have one above the box.
    assert (drawn[:79, 205:] == 90).all()
    assert (drawn[:79, :160] != 90).any()
    assert (grey == 90).all()


def test_a_blurred_face_cannot_be_recognised(group: ImageArray, encoder: Encoder) -> None:
    faces = load_detector("dlib_hog").detect(group)
    assert len(faces) >= 2
    before = group.copy()
    blurred = blur_boxes(group, [face.box for face in faces])
    assert (group == before).all()
    # Aligned by the landmarks of the clear photo, which is more than anybody else knows.
    clear, hidden = (
        encoder.encode(crop_faces(image, faces, encoder.contract.crop))
        for image in (group, blurred)
    )
    similarities = (clear * hidden).sum(axis=1) / (
        np.linalg.norm(clear, axis=1) * np.linalg.norm(hidden, axis=1)
    )
    assert similarities.max() < encoder.contract.threshold


def test_only_enrolled_people_stay_recognisable(group: ImageArray) -> None:
    first, second = (face.box for face in load_detector("dlib_hog").detect(group)[:2])
    frame = watched(group, seen(first, "Ada"), seen(second, None, settled=False))
    third = Box(0, 0, 30, 30)
    frame = replace(frame, uncertain=(third,))
    plain, blurred = draw_watched(frame), draw_watched(frame, blur_unknown=True)
    assert (plain[:30, :30] == group[:30, :30]).all()
    assert (blurred[:30, :30] != group[:30, :30]).any()
    inside = [
        (
            slice(box.top + 5, box.top + box.height - 5),
            slice(box.left + 5, box.left + box.width - 5),
        )
        for box in (first, second)
    ]
    assert (plain[inside[0]] == blurred[inside[0]]).all()
    assert (plain[inside[1]] != blurred[inside[1]]).mean() > 0.5


def test_a_face_at_the_rim_is_blurred_too(group: ImageArray) -> None:
    rim = Box(0, 0, 40, 40)
    assert (blur_boxes(group, [rim])[:40, :40] != group[:40, :40]).any()
    corner = Box(group.shape[1] - 3, group.shape[0] - 3, 3, 3)
    assert blur_boxes(group, [corner]).shape == group.shape
