"""Names in a video that wait for life: by the look of a face, and by the turn of a head."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError
from face_encode.gallery.base import StoredEncoder
from face_encode.gallery.memory import MemoryGallery
from face_encode.liveness.judging import LivenessJudge
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import Box, CropRecipe, Embeddings, Face, ImageArray
from face_encode.video.frames import Frame, WatchedFace
from face_encode.video.output import draw_watched
from face_encode.video.watcher import Watcher, WatchSettings
from tests.conftest import EXAMPLES
from tests.liveness.test_challenge import HEAD, PHOTO, FloatArray, seen

ADA = read_image(EXAMPLES / "ada_mirova.jpg")


@pytest.fixture
def model(encoder: Encoder, fitted_model: Face_Encode_Model) -> Face_Encode_Model:
    model = Face_Encode_Model(encoder)
    model.gallery = fitted_model.gallery
    return model


def look(watcher: Watcher, frames: int, begin: int = 0) -> WatchedFace:
    """Show a watcher Ada's photo, ten times a second; her face in the last frame."""
    for number in range(begin, begin + frames):
        watched = watcher.look(Frame(ADA, number, number / 10))
    draw_watched(watched)
    (face,) = watched.faces
    return face


@pytest.mark.parametrize("is_live", [True, False])
def test_what_is_not_alive_gets_no_name(
    model: Face_Encode_Model, drawn_judge: LivenessJudge, is_live: bool
) -> None:
    model.liveness_judge = copy(drawn_judge)
    model.liveness_judge.threshold = 0.0 if is_live else 1.0
    settings = WatchSettings(detect_every=1, liveness=True, keep_sights=True)
    face = look(Watcher(model, DlibHogDetector(), settings), 12)
    assert face.is_live is is_live
    assert face.liveness is not None and 0 < face.liveness < 1
    assert face.name == ("Ada_Mirova" if is_live else None)
    # Neither is it a stranger, who would be known again.
    assert face.sight is None
    # Near enough to be named, were it alive.
    assert face.similarity is not None and face.similarity > model.threshold


class Turning:
    """A detector that finds a face where it is, with the points of a model that is turned."""

    name = "turning"

    def __init__(self, points: FloatArray) -> None:
        self.points, self.yaw = points, 0.0

    def detect(self, image: ImageArray) -> list[Face]:
        points = seen(self.points, self.yaw).astype(np.float32)
        return [replace(face, points=points) for face in DlibHogDetector().detect(image)]


def turn_as_asked(detector: Turning, face: WatchedFace) -> None:
    """Turn to the side that the challenge names: the person's left is the picture's right."""
    assert face.challenge is not None
    detector.yaw = 30 if face.challenge.endswith("left") else -30


@pytest.mark.parametrize(("points", "is_named"), [(HEAD, True), (PHOTO, False)])
def test_a_name_waits_for_the_turn_of_a_head(
    model: Face_Encode_Model, points: FloatArray, is_named: bool
) -> None:
    detector = Turning(points)
    watcher = Watcher(model, detector, WatchSettings(detect_every=1, challenge=True))
    face = look(watcher, 15)
    assert (face.name, face.liveness) == (None, None)
    turn_as_asked(detector, face)
    face = look(watcher, 10, begin=15)
    assert face.name == ("Ada_Mirova" if is_named else None)
    assert (face.challenge is None) is is_named


@pytest.mark.parametrize("challenge", [True, False])
@pytest.mark.parametrize(("common", "own"), [(0.5, 0.9999), (0.9999, 0.5)])
def test_who_is_below_the_nearest_persons_own_threshold_is_a_stranger(
    model: Face_Encode_Model, common: float, own: float, challenge: bool
) -> None:
    people = MemoryGallery.from_rows(model.gallery.rows(), model.encoder)
    people.set_threshold("Ada_Mirova", own)
    model.gallery, model.threshold = people, common
    settings = WatchSettings(detect_every=1, challenge=challenge, keep_sights=True)
    face = look(Watcher(model, Turning(HEAD), settings), 12)
    assert face.similarity is not None and 0.5 < face.similarity < 0.9999
    # Who is enrolled and has still to turn their head is nobody else.
    assert (face.sight is None) is (own < common)
    assert (face.name is None) is (challenge or own > common)


def test_who_takes_the_place_of_who_turned_is_asked_anew(model: Face_Encode_Model) -> None:
    detector = Turning(HEAD)
    watcher = Watcher(model, detector, WatchSettings(detect_every=1, challenge=True))
    turn_as_asked(detector, look(watcher, 15))
    assert look(watcher, 10, begin=15).name == "Ada_Mirova"
    (track,) = watcher._tracker.tracks
    # The track goes on, but it was somebody else who turned.
    random: Callable[[int], FloatArray] = np.random.default_rng(2).standard_normal
    other = random(model.encoder.embedding_size)
    track.met_by = (other / np.linalg.norm(other)).astype(np.float32)
    track.identity.look_again()
    face = look(watcher, 1, begin=25)
    assert (face.name, face.challenge is None) == (None, False)
    face = look(watcher, 20, begin=26)
    assert (face.name, face.challenge is None, track.met_by) == (None, False, None)


class Actor:
    """Stands before a camera as ``ONE``, or as ``OTHER``, and so an encoder and a judge see them.

    The pictures carry who is there by their brightness.
    """

    name = "actor"
    contract = SimpleNamespace(crop=CropRecipe("box", 64, 64), quality_threshold=0.5)
    threshold = 0.5

    def __init__(self) -> None:
        self.points, self.yaw, self.quality = HEAD, 0.0, 1.0
        self.time = 0.0
        self.embeddings = np.eye(2, dtype=np.float32)

    def detect(self, image: ImageArray) -> list[Face]:
        points = seen(self.points, self.yaw).astype(np.float32)
        return [Face(Box(100, 100, 120, 120), 1.0, points=points)]

    def who(self, crops: ImageArray) -> list[int]:
        """0 for ONE, 1 for OTHER."""
        return [int(crop.mean() < 128) for crop in crops]

    def encode(self, crops: ImageArray) -> Embeddings:
        return self.embeddings[self.who(crops)]

    def embed(self, crops: ImageArray) -> tuple[Embeddings, npt.NDArray[np.float32]]:
        return self.encode(crops), np.full(len(crops), self.quality, np.float32)

    def values(self, crops: ImageArray) -> npt.NDArray[np.float32]:
        """Only ONE is alive."""
        return np.array([0.99, 0.05], np.float32)[self.who(crops)]

    def watcher(self, *enrolled: int, **settings: bool) -> Watcher:
        """Watches them, where some of both are enrolled as ``"0"`` and ``"1"``."""
        people = MemoryGallery(StoredEncoder("actor", "0" * 64, 2))
        people.add([str(each) for each in enrolled], self.embeddings[list(enrolled)])
        model: Any = SimpleNamespace(
            encoder=self,
            gallery=people,
            liveness_judge=self,
            verification_threshold=0.336,
            threshold_of=lambda name: 0.336,
        )
        return Watcher(model, self, WatchSettings(detect_every=1, **settings))

    def shown(self, watcher: Watcher, who: int, seconds: float) -> list[WatchedFace]:
        """The face in each frame while one of them is there."""
        noise = np.random.default_rng(who).integers(0, 100, (360, 480, 3), np.uint8)
        faces: list[WatchedFace] = []
        for _ in range(round(10 * seconds)):
            self.time += 0.1
            frame = Frame(noise if who else noise + 155, round(10 * self.time), self.time)
            faces += watcher.look(frame).faces
        return faces


@pytest.mark.parametrize("enrolled", [(1,), (0, 1)], ids=["a stranger", "somebody enrolled"])
def test_a_photo_in_the_place_of_who_turned_gets_no_name(enrolled: tuple[int, ...]) -> None:
    actor = Actor()
    watcher = actor.watcher(*enrolled, challenge=True)
    asked = actor.shown(watcher, 0, 3)[-1].challenge
    actor.yaw = 30 if str(asked).endswith("left") else -30
    face = actor.shown(watcher, 0, 2)[-1]
    assert (face.name, face.challenge) == ("0" if 0 in enrolled else None, None)
    actor.points, actor.yaw = PHOTO, 0.0
    faces = actor.shown(watcher, 1, 20)
    assert "1" not in [face.name for face in faces]
    # From the first look at the photo on, nothing of who turned is left.
    first = next(number for number, face in enumerate(faces) if face.challenge is not None)
    assert all(face.challenge is not None and face.name is None for face in faces[first:])


def test_one_bad_angle_of_who_turned_is_borne() -> None:
    actor = Actor()
    watcher = actor.watcher(0, challenge=True)
    asked = actor.shown(watcher, 0, 3)[-1].challenge
    actor.yaw = 30 if str(asked).endswith("left") else -30
    assert actor.shown(watcher, 0, 1)[-1].challenge is None
    (track,) = watcher._tracker.tracks
    track.identity.look_again()
    face = actor.shown(watcher, 1, 0.1)[-1]
    assert (face.name, face.challenge is None) == (None, False)
    face = actor.shown(watcher, 0, 0.5)[-1]
    assert (face.name, face.challenge) == ("0", None)


@pytest.mark.parametrize("enrolled", [(1,), (0, 1)], ids=["a stranger", "somebody enrolled"])
def test_the_life_of_who_was_there_before_does_not_count(enrolled: tuple[int, ...]) -> None:
    actor = Actor()
    watcher = actor.watcher(*enrolled, liveness=True)
    face = actor.shown(watcher, 0, 4)[-1]
    assert (face.name, face.is_live) == ("0" if 0 in enrolled else None, True)
    faces = actor.shown(watcher, 1, 20)
    assert "1" not in [face.name for face in faces]
    assert faces[-1].liveness == pytest.approx(0.05)
    assert faces[-1].is_live is False


def test_the_life_of_sights_that_are_not_good_does_not_count() -> None:
    actor = Actor()
    watcher = actor.watcher(0, 1, liveness=True)
    actor.quality = 0.1
    face = actor.shown(watcher, 1, 4)[-1]
    assert (watcher.encoded > 3, face.liveness, face.is_live) == (True, None, None)
    actor.quality = 1.0
    assert actor.shown(watcher, 0, 2)[-1].liveness == pytest.approx(0.99)


def test_a_detector_without_points_is_refused(model: Face_Encode_Model) -> None:
    with pytest.raises(InputError, match=r"yunet and retinaface give.*Received.*'dlib_hog'"):
        Watcher(model, DlibHogDetector(), WatchSettings(challenge=True))
