from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

import face_encode
from face_encode.attributes import load_attributes
from face_encode.errors import InputError
from face_encode.functions import analyze
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import Box, Face, ImageArray
from face_encode.video.frames import Frame, WatchedFrame
from face_encode.video.output import draw_watched
from face_encode.video.presence import AppearanceLog
from face_encode.video.session import Session
from face_encode.video.sources import open_source
from face_encode.video.watcher import Watcher, WatchSettings, video_detector
from tests.conftest import VERIFY_DATASET
from tests.video.conftest import FRAMES, FRAMES_PER_SECOND


@pytest.fixture(scope="module")
def watched(invented_video: Path, model_without_stranger: Face_Encode_Model) -> list[WatchedFrame]:
    """The video of the invented people, watched with the defaults for a live source."""
    detector = video_detector(is_live=True)
    return list(face_encode.watch(invented_video, model_without_stranger, detector))


def test_one_entry_a_person_and_appearance(
    watched: list[WatchedFrame], model_without_stranger: Face_Encode_Model
) -> None:
    assert [frame.number for frame in watched] == list(range(FRAMES))
    log = AppearanceLog(model_without_stranger.threshold)
    events = [each for frame in watched for each in log.add(frame)] + log.close()
    appearances = [each.appearance for each in events if each.kind == "left"]
    appearances.sort(key=lambda each: each.begin)
    assert [each.name for each in appearances] == ["Ada_Mirova", None, "Mei_Oshara"]
    # Within half a second of when the whole face was there.
    whole = [(10, 44), (20, 70), (25, FRAMES)]
    for each, (first, last) in zip(appearances, whole, strict=True):
        assert each.begin == pytest.approx(first / FRAMES_PER_SECOND, abs=0.5)
        assert each.end == pytest.approx(last / FRAMES_PER_SECOND, abs=0.5)
    best = [each.best_similarity for each in appearances]
    threshold = model_without_stranger.threshold
    assert best[0] is not None and best[1] is not None and best[2] is not None
    assert best[1] < threshold < min(best[0], best[2])


def test_names_do_not_flicker(watched: list[WatchedFrame]) -> None:
    names: dict[int, list[str | None]] = {}
    for frame in watched:
        shown = [face.name for face in frame.faces if face.name is not None]
        assert len(shown) == len(set(shown))
        for face in frame.faces:
            names.setdefault(face.track, []).append(face.name)
    for track in names.values():
        changes = sum(a != b for a, b in pairwise(track))
        assert changes <= 1  # from not yet known to known
    assert len(names) <= 4  # the stranger may get a new track after Ada passed in front


def test_boxes_lie_on_the_faces(watched: list[WatchedFrame]) -> None:
    # Mei's photo at frame 70: left 20, top 80, 230 high; her face is in the middle of it.
    (face,) = (face for face in watched[70].faces if face.name == "Mei_Oshara")
    width = 230 * 394 / 448
    assert abs(face.box.left + face.box.width / 2 - (20 + width / 2)) < 15
    assert 80 < face.box.top < face.box.top + face.box.height < 310
    assert 0.3 * width < face.box.width < 0.8 * width


def test_each_face_is_encoded_a_few_times(
    invented_video: Path, model_without_stranger: Face_Encode_Model
) -> None:
    watcher = Watcher(model_without_stranger, video_detector("dlib_hog"))
    report = Session(open_source(invented_video), watcher).run()
    # Three people, 160 faces in all frames together.
    assert report.frames == FRAMES
    assert 6 <= report.encoded <= 30
    assert {each.name for each in report.appearances} == {"Ada_Mirova", "Mei_Oshara", None}


class Everywhere:
    """A detector that takes the same place of every picture for a face."""

    name = "everywhere"

    def __init__(self, box: Box) -> None:
        self.box = box

    def detect(self, image: ImageArray) -> list[Face]:
        return [Face(self.box, 1.0)]


def test_a_false_alarm_that_stays_is_no_unknown_person(fitted_model: Face_Encode_Model) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (45, 80, 3), np.uint8)
    image: ImageArray = np.asarray(cv2.resize(noise, (320, 180)), np.uint8)
    settings = WatchSettings(confirm=True, detect_every=1)
    watcher = Watcher(fitted_model, Everywhere(Box(100, 40, 80, 80)), settings)
    frames = [watcher.look(Frame(image, number, number / 10)) for number in range(30)]
    assert watcher.encoded == 0
    assert all(not face.is_settled for frame in frames for face in frame.faces)
    log = AppearanceLog(0.9)
    assert [each for frame in frames for each in log.add(frame)] + log.close() == []


def test_a_name_is_given_to_one_face_at_a_time(fitted_model: Face_Encode_Model) -> None:
    photo = read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")
    twice = np.concatenate([photo, photo], axis=1)
    watcher = Watcher(fitted_model, video_detector("dlib_hog"), WatchSettings(detect_every=1))
    frames = [watcher.look(Frame(twice, number, number / 5)) for number in range(8)]
    assert all(len(frame.faces) == 2 for frame in frames[3:])
    for frame in frames:
        assert [face.name for face in frame.faces].count("Ada_Mirova") <= 1
    assert "Ada_Mirova" in {face.name for face in frames[-1].faces}


def test_faces_too_small_are_not_encoded(fitted_model: Face_Encode_Model) -> None:
    photo = read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")
    settings = WatchSettings(detect_every=1, smallest_face=400)
    watcher = Watcher(fitted_model, video_detector("dlib_hog"), settings)
    for number in range(5):
        seen = watcher.look(Frame(photo, number, number / 5))
    assert [face.similarity for face in seen.faces] == [None]
    assert watcher.encoded == 0


def test_attributes_are_told_of_a_face_seen_well(fitted_model: Face_Encode_Model) -> None:
    photo = read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")
    settings = WatchSettings(detect_every=1)
    watcher = Watcher(fitted_model, video_detector("dlib_hog"), settings, load_attributes())
    frames = [watcher.look(Frame(photo, number, number / 5)) for number in range(8)]
    (face,) = frames[-1].faces
    (alone,) = analyze(photo, detector="dlib_hog")[0]["faces"]
    assert face.attributes is not None
    # The mean over sights of one picture is that of the picture, up to where the face is found.
    assert face.attributes.age == pytest.approx(alone["age"], abs=6)
    assert face.attributes.expression == alone["expression"]
    log = AppearanceLog(0.9)
    event, *_ = [event for each in frames for event in log.add(each)]
    assert event.as_dict()["attributes"]["gender"] in ("woman", "man", "uncertain")
    # Nobody asked: nothing is told.
    plain = Watcher(fitted_model, video_detector("dlib_hog"), settings)
    looked = [plain.look(Frame(photo, number, number / 5)) for number in range(5)]
    assert [face.attributes for face in looked[-1].faces] == [None]
    assert (draw_watched(frames[-1]) != draw_watched(looked[-1])).any()


def test_attributes_are_told_of_no_face_of_which_analyze_tells_none(
    fitted_model: Face_Encode_Model,
) -> None:
    photo = read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")
    network = load_attributes()
    # A face that the encoder trusts, and the network of attributes does not.
    network.encoder.contract = replace(network.encoder.contract, quality_threshold=1.0)
    (alone,) = analyze(photo, attributes=network, detector="dlib_hog")[0]["faces"]
    assert alone["quality_reason"] is not None and alone["age"] is None
    settings = WatchSettings(detect_every=1)
    watcher = Watcher(fitted_model, video_detector("dlib_hog"), settings, network)
    frames = [watcher.look(Frame(photo, number, number / 5)) for number in range(8)]
    (face,) = frames[-1].faces
    assert watcher.encoded > 0 and face.name is not None
    assert face.attributes is None


def test_a_change_of_size_drops_all_tracks(fitted_model: Face_Encode_Model) -> None:
    photo = read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")
    watcher = Watcher(fitted_model, video_detector("dlib_hog"), WatchSettings(detect_every=1))
    for number in range(4):
        watcher.look(Frame(photo, number, number / 5))
    larger = np.pad(photo, ((0, 200), (0, 0), (0, 0)))
    tracks = {face.track for face in watcher.look(Frame(larger, 4, 0.8)).faces}
    assert tracks == set()


def test_nobody_enrolled_makes_everybody_unknown(fitted_model: Face_Encode_Model) -> None:
    photo = read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")
    empty = Face_Encode_Model(fitted_model.encoder)
    watcher = Watcher(empty, video_detector("dlib_hog"), WatchSettings(detect_every=1))
    for number in range(8):
        seen = watcher.look(Frame(photo, number, number / 5))
    (face,) = seen.faces
    assert (face.name, face.similarity, face.is_settled) == (None, None, True)


def test_settings_are_checked() -> None:
    for wrong in ({"detect_every": 0}, {"encodes_per_frame": 0}, {"smallest_face": 3}):
        with pytest.raises(InputError):
            WatchSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a detector is one of"):
        video_detector("eyes")
    with pytest.raises(InputError, match="width"):
        video_detector(width=10)


# In the sample: frame, left, top and side of a face, as found by looking at the frames.
SAMPLE_FACES = {
    "boy": [(28, 976, 711, 75), (42, 992, 703, 91), (63, 893, 690, 108)],
    "man with red hair": [(7, 711, 586, 76), (21, 678, 611, 76), (28, 634, 588, 90)],
    "woman with white hair": [(28, 267, 682, 63), (42, 233, 689, 63), (70, 197, 685, 76)],
}


@pytest.mark.data
def test_people_in_a_street(fitted_model: Face_Encode_Model, samples: Path) -> None:
    video = samples / "faces.mp4"
    model = Face_Encode_Model(fitted_model.encoder)
    frames = [frame.image for frame in open_source(video).frames() if frame is not None]
    for name, places in SAMPLE_FACES.items():
        around = [
            frames[number][top - side : top + 2 * side, left - side : left + 2 * side]
            for number, left, top, side in places
        ]
        # Small and not sharp, as faces in a street are.
        assert model.add_person(name, around, check_quality=False).enrolled == 3
    # HOG takes a third of the time that the Haar cascade needs for faces as small as these.
    report = Session(open_source(video), Watcher(model, video_detector("dlib_hog"))).run()
    known = sorted(each.name for each in report.appearances if each.name is not None)
    assert known == sorted(SAMPLE_FACES)
    # The man with glasses, who is not enrolled, and at the most one of those behind him.
    assert 1 <= len(report.appearances) - 3 <= 2
    assert report.encoded < 40
