from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.streaming import streaming
from face_encode.cli import main
from face_encode.encoders.encoder import Encoder
from face_encode.gallery.database import DatabaseGallery
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray
from face_encode.video.output import Recorder
from face_encode.video.sources import RecordedVideo
from tests.conftest import REPOSITORY, VERIFY_DATASET


@pytest.fixture(scope="module")
def ada() -> ImageArray:
    photo = read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")
    return np.ascontiguousarray(photo[:, :392])


@pytest.fixture(scope="module")
def gallery(fitted_model: Face_Encode_Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gallery") / "people.npz"
    fitted_model.save_gallery(path)
    return path


@pytest.fixture(scope="module")
def video(ada: ImageArray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "ada.mp4"
    with Recorder(path, 10.0) as recorder:
        for number in range(20):
            recorder.write(ada, number / 10)
    return path


def test_a_file_is_watched_recorded_and_reported(
    video: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, events = tmp_path / "out.mp4", tmp_path / "events.jsonl"
    arguments = ["watch", str(video), "--people", str(gallery), "--headless", "--json"]
    arguments += ["--detector", "dlib_hog", "--every", "2", "--max-seconds", "1.5"]
    assert main([*arguments, "--output", str(output), "--events", str(events)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["frames"] == 16
    (appearance,) = report["appearances"]
    assert (appearance["name"], appearance["from"]) == ("Ada_Mirova", 0.0)
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "arrived", "left", "stopped"]
    assert lines[2] == {"source": str(video), "event": "left", **appearance}
    assert lines[1]["id"] == appearance["id"]
    frames = [frame for frame in RecordedVideo.of_file(output).frames() if frame is not None]
    original = next(iter(RecordedVideo.of_file(video).frames()))
    assert len(frames) == 16 and original is not None
    # A box and a name are drawn on the last frame.
    assert (np.abs(frames[-1].image.astype(int) - original.image) > 60).sum() > 500


def test_events_are_printed_in_place_of_everything_else(
    video: Path, gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["watch", str(video), "--people", str(gallery), "--headless", "--event-crops"]
    assert main([*arguments, "--detector", "dlib_hog", "--every", "2", "--events", "-"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["started", "arrived", "left", "stopped"]
    assert len(lines[1]["crop"]) > 1000


def test_strangers_are_kept_in_a_database_for_some_days(
    video: Path,
    gallery: Path,
    encoder: Encoder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = tmp_path / "people.sqlite"
    with closing(DatabaseGallery(database, encoder)) as people:
        people.add(["Bo"], np.ones((1, encoder.embedding_size), np.float32))
    arguments = ["watch", str(video), "--headless", "--detector", "dlib_hog", "--json"]
    for options, told in (
        (["--keep-unknown", "0"], None),
        (["--blur-unknown"], None),
        ([], "unknown-1"),
        (["--keep-unknown", "0.5", "--blur-unknown"], "unknown-1"),
    ):
        assert main([*arguments, "--people", str(database), *options]) == 0
        (appearance,) = json.loads(capsys.readouterr().out)["appearances"]
        assert (appearance["name"], appearance.get("unknown")) == (None, told)
    # In a file of another kind there is no place for them.
    assert main([*arguments, "--people", str(gallery)]) == 0
    capsys.readouterr()
    assert main([*arguments, "--people", str(gallery), "--keep-unknown", "1"]) == 1
    assert "strangers are kept in a gallery database" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_finishes_the_recording(
    number: int, ada: ImageArray, gallery: Path, tmp_path: Path
) -> None:
    output, events = tmp_path / "out.mp4", tmp_path / "events.jsonl"
    with streaming(lambda _: ada, 10) as server:
        arguments = ["watch", server.address, "--people", str(gallery), "--headless"]
        arguments += ["--detector", "dlib_hog", "--every", "1"]
        arguments += ["--output", str(output), "--events", str(events)]
        # In a process of its own: a signal that came too late would end the tests.
        process = subprocess.Popen(
            [sys.executable, "-m", "face_encode.cli", *arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            deadline = time.monotonic() + 120
            while not (events.exists() and '"arrived"' in events.read_text()):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(number)
            printed, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Ada_Mirova" in printed
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    (event,) = (line for line in lines if line["event"] == "left")
    assert event["name"] == "Ada_Mirova"
    assert event["from_time"] <= event["to_time"]
    assert lines[-1]["event"] == "stopped"
    assert sum(1 for _ in RecordedVideo.of_file(output).frames()) >= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "out.mp4"]


def test_errors_are_one_line(
    video: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = ["--people", str(gallery), "--headless"]
    for arguments, said in (
        ([str(tmp_path / "none.mp4"), *people], "none.mp4: no such file"),
        (["http://127.0.0.1:9/", *people], "does not answer"),
        ([str(video), *people, "--detector", "eyes"], "a detector is one of"),
        ([str(video), *people, "--output", "out.avi"], "is an .mp4 file"),
        ([str(video), *people, "--events", str(tmp_path)], "it is a folder"),
        ([str(video), *people, "--smallest-face", "5"], "smallest_face"),
        ([str(video), *people, "--webhook", "door"], "a webhook's address begins with"),
        ([str(video), *people, "--mqtt", "door"], "an MQTT broker's address is"),
        ([str(video), *people, "--json", "--events", "-"], "use one of them"),
        ([str(video), "--headless", "--people", str(tmp_path / "none.npz")], "none.npz"),
    ):
        assert main(["watch", *arguments]) == 1
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1 and error.startswith("face-encode: ")


@pytest.mark.parametrize(
    "wrong", [["--every", "0"], ["--max-seconds", "nan"], ["--keep-unknown", "-1"], []]
)
def test_wrong_usage(video: Path, wrong: list[str]) -> None:
    people = ["--people", "p.npz"] if wrong else []
    with pytest.raises(SystemExit) as error:
        main(["watch", str(video), *people, *wrong])
    assert error.value.code == 2
