"""Strangers who are known again: at the next appearance, by another camera, in another run."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.streaming import streaming
from face_encode.encoders.encoder import Encoder
from face_encode.gallery import database_file
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.unknown import Sight
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import Box
from face_encode.video.frames import WatchedFace, WatchedFrame
from face_encode.video.presence import AppearanceLog, PresenceEvent, Strangers
from face_encode.video.session import Session, SessionReport
from face_encode.video.sources import open_source
from face_encode.video.watcher import Watcher, WatchSettings, video_detector
from tests.conftest import VERIFY_DATASET
from tests.gallery.common import Identity, vectors

COMMAND = str(Path(sys.executable).with_name("face-encode"))
THRESHOLD = 0.9
ONE, OTHER = vectors((1, 0))[0], vectors((0, 1))[0]
IMAGE = np.zeros((2, 2, 3), np.uint8)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[DatabaseGallery]:
    with contextlib.closing(DatabaseGallery(tmp_path / "people.sqlite", Identity())) as opened:
        yield opened


def log_of(gallery: DatabaseGallery, camera: str = "front", days: float = 3) -> AppearanceLog:
    return AppearanceLog(THRESHOLD, 2.0, Strangers(gallery.unknown, THRESHOLD, camera, days))


def sight(quality: float) -> Sight:
    return Sight(ONE, PhotoDetails(quality=quality, crop=b"jpeg"))


def face(name: str | None = None, quality: float = 0.5, track: int = 1) -> WatchedFace:
    kept = None if name else sight(quality)
    return WatchedFace(track, Box(0, 0, 2, 2), 0.0, name, 0.5, True, ONE, sight=kept)


def told(log: AppearanceLog, *seen: tuple[float, WatchedFace]) -> list[PresenceEvent]:
    events = [event for at, each in seen for event in log.add(WatchedFrame(IMAGE, 0, at, (each,)))]
    return events + log.close()


def called(events: list[PresenceEvent]) -> list[tuple[str, str | None, str | None]]:
    return [(each.kind, each.appearance.name, each.appearance.unknown) for each in events]


def test_a_stranger_keeps_the_number_before_another_camera(gallery: DatabaseGallery) -> None:
    better = face(quality=0.9)
    events = told(log_of(gallery), (0, face()), (1, face()), (2, better), (3, better))
    assert called(events) == [("arrived", None, "unknown-1"), ("left", None, "unknown-1")]
    assert events[0].as_dict()["unknown"] == "unknown-1"
    (group,) = gallery.unknown.groups()[0]
    # The first sight at the arrival, the best one at the end.
    assert [(each.quality, each.source) for each in group.faces] == [(0.9, "front"), (0.5, "front")]
    events = told(log_of(gallery, "back"), (0, face()), (1, face()))
    assert called(events)[0] == ("arrived", None, "unknown-1")
    (group,) = gallery.unknown.groups()[0]
    assert (group.seen, {each.source for each in group.faces}) == (2, {"front", "back"})


def test_somebody_who_is_recognised_after_all_was_no_stranger(gallery: DatabaseGallery) -> None:
    log = log_of(gallery)
    events = told(log, (0, face()), (1, face()), (2, face("Ada")), (3, face("Ada")))
    assert called(events) == [
        ("arrived", None, "unknown-1"),
        ("renamed", "Ada", None),
        ("left", "Ada", None),
    ]
    assert gallery.unknown.groups() == ([], 0)


def test_a_stranger_who_is_part_of_a_stay_with_a_name_is_none(gallery: DatabaseGallery) -> None:
    events = told(
        log_of(gallery),
        (0, face("Ada", track=1)),
        (0.5, replace(face(track=2), since=0.5)),
        (1.5, replace(face(track=2), since=0.5)),
        (1.6, face("Ada", track=1)),
        (1.7, face("Ada", track=2)),
    )
    assert [each.continued_as is not None for each in events] == [False, False, True, False]
    assert called(events)[1:3] == [("arrived", None, "unknown-1"), ("left", None, "unknown-1")]
    assert gallery.unknown.groups() == ([], 0)


def test_a_face_without_a_sight_is_no_stranger(gallery: DatabaseGallery) -> None:
    wrong = replace(face(), sight=None)
    events = told(log_of(gallery), (0, wrong), (1, wrong))
    assert called(events) == [("arrived", None, None), ("left", None, None)]
    assert "unknown" not in events[0].as_dict()
    assert gallery.unknown.groups() == ([], 0)


def test_nothing_is_kept_for_no_days(gallery: DatabaseGallery) -> None:
    events = told(log_of(gallery, days=0), (0, face()), (1, face(quality=0.9)))
    assert called(events) == [("arrived", None, None), ("left", None, None)]
    assert gallery.unknown.groups() == ([], 0)


def test_a_stranger_who_was_dismissed_while_there_does_not_come_back(
    gallery: DatabaseGallery,
) -> None:
    log = log_of(gallery)
    for at in (0, 1):
        log.add(WatchedFrame(IMAGE, 0, at, (face(),)))
    gallery.unknown.dismiss(1)
    log.add(WatchedFrame(IMAGE, 0, 2, (face(quality=0.9),)))
    log.close()
    assert gallery.unknown.groups() == ([], 0)


def test_a_gallery_that_cannot_be_changed_keeps_nobody_from_being_told(
    gallery: DatabaseGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    strangers = Strangers(gallery.unknown, THRESHOLD, "front", report=said.append)
    other = replace(face(track=2), embedding=OTHER)
    with contextlib.closing(sqlite3.connect(gallery.path, isolation_level=None)) as holder:
        # As a long change of another program does; nobody waits ten seconds for it here.
        monkeypatch.setattr(database_file, "BUSY_SECONDS", 0)
        holder.execute("BEGIN IMMEDIATE")
        seen = [(0, face()), (1, face()), (1, other), (2, replace(other, since=1)), (2, face())]
        events = told(AppearanceLog(THRESHOLD, 2.0, strangers), *seen)
        holder.execute("ROLLBACK")
    assert called(events) == [("arrived", None, None)] * 2 + [("left", None, None)] * 2
    (line,) = said
    assert line.startswith("front: strangers are not kept: another program is changing")
    events = told(AppearanceLog(THRESHOLD, 2.0, strangers), (0, face()), (1, face()))
    assert called(events)[0] == ("arrived", None, "unknown-1")


def test_a_video_watched_again_and_after_the_stranger_has_a_name(
    invented_video: Path,
    encoder: Encoder,
    model_without_stranger: Face_Encode_Model,
    tmp_path: Path,
) -> None:
    people = model_without_stranger.gallery.rows()
    model = Face_Encode_Model(encoder)
    gallery = model.gallery = DatabaseGallery(tmp_path / "people.sqlite", encoder)
    gallery.add(people.names.tolist(), people.embeddings)

    def watched() -> SessionReport:
        source = open_source(str(invented_video))
        watcher = Watcher(model, video_detector("dlib_hog"), WatchSettings(keep_sights=True))
        strangers = Strangers(gallery.unknown, model.threshold, source.name)
        report = Session(source, watcher, strangers=strangers).run()
        assert report.error is None
        return report

    for run in (1, 2):
        assert {(each.name, each.unknown) for each in watched().appearances} == {
            ("Ada_Mirova", None),
            ("Mei_Oshara", None),
            (None, "unknown-1"),
        }
        (group,) = gallery.unknown.groups()[0]
        assert group.seen == run
    assert all(each.quality and each.quality > 0.3 for each in group.faces)
    crop = gallery.unknown.crop(group.faces[0].id)
    assert crop is not None and crop.startswith(b"\xff\xd8")

    gallery.unknown.name(1, "Teo")
    assert {(each.name, each.unknown) for each in watched().appearances} == {
        ("Ada_Mirova", None),
        ("Mei_Oshara", None),
        ("Teo", None),
    }
    assert gallery.unknown.groups() == ([], 0)


@pytest.mark.slow
def test_two_cameras_see_the_same_stranger_at_once_who_is_then_named(
    encoder: Encoder, tmp_path: Path
) -> None:
    database = tmp_path / "people.sqlite"
    with contextlib.closing(DatabaseGallery(database, encoder)) as gallery:
        gallery.add(["Bo"], np.ones((1, encoder.embedding_size), np.float32))
    photo = np.ascontiguousarray(read_image(VERIFY_DATASET / "Teo_Varga" / "1.jpg")[:, :392])
    with contextlib.ExitStack() as stack:
        cameras = []
        for _ in range(2):
            server = stack.enter_context(streaming(lambda _: photo, 10))
            options = ["--people", str(database), "--headless", "--detector", "dlib_hog"]
            options += ["--max-seconds", "300", "--events", "-"]
            command = [COMMAND, "watch", server.address, *options]
            cameras.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(cameras[-1].kill)

        def next_event(camera: subprocess.Popen[str], kind: str) -> dict[str, Any]:
            """The next event of a kind that a camera tells."""
            assert camera.stdout is not None
            for line in camera.stdout:
                event: dict[str, Any] = json.loads(line)
                if event["event"] == kind:
                    return event
            raise AssertionError(f"the camera has ended without a stranger who has {kind}")

        arrived = [next_event(camera, "arrived") for camera in cameras]
        assert [(each["name"], each["unknown"]) for each in arrived] == [(None, "unknown-1")] * 2
        command = [COMMAND, "name", "unknown-1", "Teo", "-g", str(database)]
        assert subprocess.run(command, check=False).returncode == 0
        renamed = [next_event(camera, "renamed") for camera in cameras]
        assert [each["name"] for each in renamed] == ["Teo", "Teo"]
        assert [each["id"] for each in renamed] == [each["id"] for each in arrived]
        for camera in cameras:
            camera.send_signal(signal.SIGINT)
            assert next_event(camera, "left")["name"] == "Teo"
            assert camera.wait() == 0
    with contextlib.closing(DatabaseGallery(database, encoder)) as gallery:
        # A face of each camera.
        assert gallery.people() == {"Bo": 1, "Teo": 2} and gallery.unknown.groups() == ([], 0)
