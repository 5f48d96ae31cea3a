"""Challenges over HTTP: nobody is matched before the head before the camera has turned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.encoders.encoder import Encoder
from face_encode.model import Face_Encode_Model
from face_encode.server.challenges import Challenges
from face_encode.types import Box, Embeddings, Face, ImageArray, Quality
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.liveness.test_challenge import HEAD, PHOTO, FloatArray, seen
from tests.server.conftest import served

CAMERA = ("hall", "0123456789abcdef")
ADA = (EXAMPLES / "ada_mirova.jpg").read_bytes()


def face(
    points: FloatArray, yaw: float = 0, left: int = 100, quality: Quality | None = None
) -> Face:
    spots = seen(points, yaw).astype(np.float32)
    return Face(Box(left, 100, 80, 80), 1.0, points=spots, quality=quality)


def units(*rows: tuple[float, ...]) -> Embeddings:
    return np.array(rows, np.float32)


ONE, OTHER = (1.0, 0.0), (0.0, 1.0)


def meet(challenges: Challenges, points: FloatArray = HEAD, begin: float = 0) -> float:
    """A head stands still, turns as it is asked to, and back; gives the time."""
    asked = None
    for number in range(20):
        turned = 8 <= number < 14 and asked is not None
        yaw = (30 if str(asked).endswith("left") else -30) if turned else 0
        sight = [face(points, yaw)]
        (words,) = challenges.ask(CAMERA, sight, units(ONE), begin + number / 5, 0.9)
        asked = asked or words
    return begin + 4


def test_a_head_that_turns_has_done_it_and_a_photo_has_not() -> None:
    for points, is_done in ((HEAD, True), (PHOTO, False)):
        challenges = Challenges()
        now = meet(challenges, points)
        (words,) = challenges.ask(CAMERA, [face(points)], units(ONE), now, 0.9)
        assert (words is None) is is_done
        # Another client's camera, and another camera, know nothing of it.
        for camera in (("desk", CAMERA[1]), ("hall", "fedcba9876543210")):
            (words,) = challenges.ask(camera, [face(points)], units(ONE), now, 0.9)
            assert words in ("turn your head left", "turn your head right")


def test_each_face_is_asked_by_itself() -> None:
    challenges = Challenges()
    now = meet(challenges)
    two = [face(HEAD, left=400), face(HEAD)]
    other, one = challenges.ask(CAMERA, two, units(OTHER, ONE), now, 0.9)
    assert other is not None and one is None
    # The order in which they are found does not matter, nor a moment out of sight.
    assert challenges.ask(CAMERA, [], np.empty((0, 2), np.float32), now + 1, 0.9) == []
    one, other = challenges.ask(CAMERA, two[::-1], units(ONE, OTHER), now + 2, 0.9)
    assert other is not None and one is None


def test_who_comes_after_is_asked_anew() -> None:
    challenges = Challenges()
    now = meet(challenges)
    # In the same place, but another person, from the first sight on.
    (words,) = challenges.ask(CAMERA, [face(HEAD)], units(OTHER), now, 0.9)
    assert words is not None
    # One sight may be a bad angle.
    (words,) = challenges.ask(CAMERA, [face(HEAD)], units(ONE), now + 0.2, 0.9)
    assert words is None
    # After more, whoever had turned has to do so again.
    for number in range(2, 6):
        (words,) = challenges.ask(CAMERA, [face(HEAD)], units(OTHER), now + number / 5, 0.9)
        assert words is not None
    (words,) = challenges.ask(CAMERA, [face(HEAD)], units(ONE), now + 1.2, 0.9)
    assert words is not None
    # The same person, after a while.
    challenges = Challenges()
    now = meet(challenges)
    (words,) = challenges.ask(CAMERA, [face(HEAD)], units(ONE), now + 2.5, 0.9)
    assert words is None
    (words,) = challenges.ask(CAMERA, [face(HEAD)], units(ONE), now + 6, 0.9)
    assert words is not None


@pytest.mark.parametrize("same_person", [0.9, 0.336])
def test_a_photo_held_up_now_and_then_is_never_done(same_person: float) -> None:
    challenges = Challenges()
    now = meet(challenges)
    for number in range(30):
        is_other = number % 3 == 2
        sight = [face(PHOTO if is_other else HEAD)]
        row = units(OTHER if is_other else ONE)
        (words,) = challenges.ask(CAMERA, sight, row, now + number / 5, same_person)
        assert words is not None or not is_other


def test_a_sight_that_is_not_to_be_trusted_decides_nothing() -> None:
    challenges = Challenges()
    now = meet(challenges)
    blurred = face(HEAD, quality=Quality(0.1, "blurred"))
    for number in range(10):
        (words,) = challenges.ask(CAMERA, [blurred], units(OTHER), now + number / 5, 0.9)
        assert words is None
    good = face(HEAD, quality=Quality(0.9))
    (words,) = challenges.ask(CAMERA, [good], units(ONE), now + 2, 0.9)
    assert words is None
    (words,) = challenges.ask(CAMERA, [good], units(OTHER), now + 2.2, 0.9)
    assert words is not None
    # Nor is a turn worth anything before a sight tells who turns.
    challenges = Challenges()
    for number in range(20):
        turned = face(HEAD, 30 * (-1) ** (number // 5), quality=Quality(0.1, "blurred"))
        (words,) = challenges.ask(CAMERA, [turned], units(ONE), number / 5, 0.9)
    (words,) = challenges.ask(CAMERA, [good], units(OTHER), 4, 0.9)
    assert words is not None


def test_cameras_without_end_are_forgotten() -> None:
    challenges = Challenges()
    now = meet(challenges)
    for number in range(256):
        camera = ("hall", f"another-{number}")
        challenges.ask(camera, [face(HEAD)], units(ONE), now, 0.9)
    (words,) = challenges.ask(CAMERA, [face(HEAD)], units(ONE), now, 0.9)
    assert words is not None
    assert len(challenges._cameras) == 256


class Turning:
    """A detector that finds a face where it is, with the points of a model that is turned."""

    name = "turning"

    def __init__(self) -> None:
        self.yaw = 0.0

    def detect(self, image: ImageArray) -> list[Face]:
        points = seen(HEAD, self.yaw).astype(np.float32)
        return [replace(face, points=points) for face in DlibHogDetector().detect(image)]


def test_the_name_comes_after_the_turn(encoder: Encoder, tmp_path: Path) -> None:
    detector = Turning()
    with served(Face_Encode_Model(encoder, detector), tmp_path) as client:
        sent = {"photos": ("1.jpg", (VERIFY_DATASET / "Ada_Mirova" / "1.jpg").read_bytes())}
        assert client.post("/v1/people", data={"name": "Ada"}, files=sent).status_code == 200
        assert client.get("/v1/settings").json()["can_challenge"] is True

        def look(word: str | None = "of-the-door") -> dict[str, object]:
            query = {} if word is None else {"challenge": word}
            answer = client.post("/v1/match", files={"photo": ADA}, params=query)
            (found,) = answer.json()["faces"]
            return dict(found)

        assert "challenge" not in look(None) and look(None)["is_match"]
        first = [look() for _ in range(5)][-1]
        words = first["challenge"]
        assert (first["name"], first["is_match"]) == ("Ada", False)
        assert words in ("turn your head left", "turn your head right")
        detector.yaw = 30 if str(words).endswith("left") else -30
        sights = [look() for _ in range(3)]
        assert [each["is_match"] for each in sights] == [False, False, True]
        assert sights[-1]["challenge"] is None
        detector.yaw = 0
        assert look()["is_match"] is True
        assert look("of-another")["is_match"] is False
        for wrong in ("short", "a" * 65, "of the door"):
            query = {"challenge": wrong}
            assert client.post("/v1/match", files={"photo": ADA}, params=query).status_code == 422


def test_a_detector_without_points_sees_no_turns(client: TestClient) -> None:
    assert client.get("/v1/settings").json()["can_challenge"] is False
    query = {"challenge": "of-the-door"}
    answer = client.post("/v1/match", files={"photo": ADA}, params=query)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:face-encode:problem:no-challenges"
    assert "--detector yunet. Received: 'dlib" in answer.json()["detail"]


def test_a_face_without_points_is_never_done() -> None:
    challenges, nobody = Challenges(), Face(Box(0, 0, 50, 50), 1.0)
    for number in range(30):
        (words,) = challenges.ask(CAMERA, [nobody], units(ONE), number / 5, 0.9)
        assert words is not None
