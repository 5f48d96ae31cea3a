"""Enrolling a folder that is interrupted or killed, and goes on."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face_encode.detectors.haar import HaarDetector
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import load_encoder
from face_encode.errors import DatasetError, GalleryError
from face_encode.gallery import staging
from face_encode.gallery.base import Gallery
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.npz import write_content
from face_encode.gallery.opening import open_gallery
from face_encode.model import Face_Encode_Model
from face_encode.photos.folders import people_in
from face_encode.pipeline import enrolment
from face_encode.pipeline.checkpoint import Checkpoint
from face_encode.pipeline.enrolment import checkpoint_path, enrol_people, enrolment_checkpoint
from face_encode.types import ImageArray
from tests.conftest import REPOSITORY
from tests.tiny_parts import Halves


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 photos of 13 people, some with two faces; one nobody, one that is damaged."""
    top = tmp_path_factory.mktemp("many")
    random = np.random.default_rng(0)
    for number in range(130):
        (top / f"person {number // 10:02}").mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (16, 40 if number % 9 == 0 else 20, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(top / f"person {number // 10:02}" / f"{number:03}.png")
    Image.new("RGB", (20, 20)).save(top / "person 03" / "black.png")
    (top / "person 05" / "broken.jpg").write_text("no photo")
    return top


def enrol_many(many: Path, path: Path | None, tiny: Encoder, **options: Any) -> MemoryGallery:
    """A gallery of these people, enrolled as the command does it."""
    is_database = path is not None and path.suffix == ".sqlite"
    gallery = open_gallery(path if is_database else None, encoder=tiny)
    if path is None:
        enrol_people(people_in(many), gallery, Halves(), tiny, progress=False, **options)
        return MemoryGallery.from_rows(gallery.rows(), tiny)
    with closing(gallery), enrolment_checkpoint(gallery, path, Halves(), tiny) as checkpoint:
        report = enrol_people(
            people_in(many),
            gallery,
            Halves(),
            tiny,
            progress=False,
            checkpoint=checkpoint,
            **options,
        )
        checkpoint.remove()
        gathered = MemoryGallery.from_rows(gallery.rows(), tiny)
    assert report.enrolled == 130
    assert {row.reason for row in report.left_out} == {
        "no face found",
        "not a photo in a known format",
    }
    assert sum("2 faces" in note for note in report.notes) == 15
    return gathered


def same_galleries(one: Gallery, other: Gallery) -> bool:
    files = io.BytesIO(), io.BytesIO()
    for file, gallery in zip(files, (one, other), strict=True):
        assert isinstance(gallery, MemoryGallery)
        write_content(file, gallery.content)
    return files[0].getvalue() == files[1].getvalue()


@pytest.fixture(scope="module")
def uninterrupted(many: Path, tiny: Encoder) -> MemoryGallery:
    return enrol_many(many, None, tiny)


@pytest.mark.parametrize("name", ["people.npz.unfinished", "people.sqlite"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_interrupted_it_goes_on_and_ends_with_the_same_gallery(
    after: int,
    workers: int,
    name: str,
    many: Path,
    tiny: Encoder,
    uninterrupted: MemoryGallery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / name
    encoded: list[int] = []
    embed = tiny.embed
    keep = Checkpoint.keep
    batches: list[Any] = []

    def counted(crops: ImageArray, **options: Any) -> Any:
        encoded.append(len(crops))
        return embed(crops, **options)

    def interrupted(checkpoint: Checkpoint, results: Any) -> None:
        if len(batches) == after:
            raise KeyboardInterrupt
        batches.append(results)
        keep(checkpoint, results)

    monkeypatch.setattr(tiny, "embed", counted)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "keep", interrupted)
        enrol_many(many, path, tiny, workers=workers)
    assert path.is_file()
    gallery = enrol_many(many, path, tiny, workers=workers)
    assert list(tmp_path.iterdir()) == ([path] if path.suffix == ".sqlite" else [])
    assert same_galleries(gallery, uninterrupted)
    # One batch was encoded and is not in the checkpoint.
    assert sum(encoded) == 130 + 32


KILLED = """
import os, signal, sys
from pathlib import Path
import loky
from face_encode.encoders.registry import load_encoder
from face_encode.pipeline.checkpoint import Checkpoint
from tests.pipeline.test_interrupted_enrolment import enrol_many

real, batches = Checkpoint.keep, []

def dying(checkpoint, results):
    def half():
        for number, result in enumerate(results):
            if len(batches) == 2 and number == 16:
                executor = loky.get_reusable_executor(reuse=True)
                Path(sys.argv[4]).write_text(" ".join(map(str, executor._processes)))
                os.kill(os.getpid(), signal.SIGKILL)
            yield result

    batches.append(results)
    real(checkpoint, half())

Checkpoint.keep = dying
enrol_many(Path(sys.argv[1]), Path(sys.argv[2]), load_encoder(sys.argv[3]), workers=2)
"""


def is_alive(process: int) -> bool:
    """Whether a process of that number runs; one that is dead may not be cleared away yet."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills processes the POSIX way")
def test_killed_in_the_middle_of_a_batch_it_goes_on(
    many: Path, tiny: Encoder, tiny_file: Path, uninterrupted: MemoryGallery, tmp_path: Path
) -> None:
    path = tmp_path / "people.npz.unfinished"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, many, path, tiny_file, tmp_path / "workers.txt"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == -signal.SIGKILL
    model = Face_Encode_Model(tiny, Halves())
    report = model.fit_dataset(many, progress=False, unfinished=path)
    assert report.resumed == 32
    assert "32 by an interrupted run before" in str(report)
    assert same_galleries(model.gallery, uninterrupted)
    assert not path.exists()
    workers = [int(word) for word in (tmp_path / "workers.txt").read_text().split()]
    assert len(workers) == 2
    if sys.platform == "linux":
        deadline = time.monotonic() + 60
        while any(map(is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(is_alive, workers))


@pytest.mark.parametrize("pixels", ["noise", "black"])
def test_what_one_run_has_left_stays_when_that_of_another_folder_ends(
    pixels: str, many: Path, tiny: Encoder, tmp_path: Path
) -> None:
    # Black photos show nobody: that run ends in an error.
    (tmp_path / "guests" / "Gus").mkdir(parents=True)
    drawn = np.random.default_rng(1).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    guest = Image.fromarray(drawn * (pixels == "noise"))
    guest.save(tmp_path / "guests" / "Gus" / "1.png")
    model = Face_Encode_Model(tiny, Halves())
    model.gallery = open_gallery(tmp_path / "people.sqlite", encoder=tiny)
    interrupt_at_the_end(model, many)
    with suppress(DatasetError):
        model.fit_dataset(tmp_path / "guests", progress=False)
    assert model.fit_dataset(many, progress=False).resumed == 132
    assert staged(model) == []


def interrupt_at_the_end(model: Face_Encode_Model, folder: Path) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(enrolment, "find_label_problems", interrupted)
        model.fit_dataset(folder, progress=False)


def staged(model: Face_Encode_Model) -> list[str]:
    """The run of each row that an interrupted run has left."""
    assert isinstance(model.gallery, DatabaseGallery)
    with closing(sqlite3.connect(model.gallery.path)) as database:
        return [run for (run,) in database.execute("SELECT run FROM staged")]


@pytest.mark.parametrize(("later", "resumed"), [("2026-02-28", 132), ("2026-03-01", 0)])
def test_what_a_run_has_left_is_taken_up_for_a_month_and_then_deleted(
    later: str,
    resumed: int,
    many: Path,
    tiny: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Face_Encode_Model(tiny, Halves())
    model.gallery = open_gallery(tmp_path / "people.sqlite", encoder=tiny)

    class Clock(datetime):
        """A clock that stands still."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls.fromisoformat(today).replace(tzinfo=tz)

    monkeypatch.setattr(staging, "datetime", Clock)
    today = "2026-01-31"
    interrupt_at_the_end(model, many)
    assert len(staged(model)) == 132
    today = later
    database = sqlite3.connect(tmp_path / "people.sqlite", isolation_level=None)
    with closing(database):
        # A run that began after midnight, and one of an earlier release.
        for run in ("2026-04 0123456789abcdef", "0123456789abcdef"):
            database.execute("INSERT INTO staged VALUES (?, 'a', 'b')", [run])
    assert model.fit_dataset(many, progress=False).resumed == resumed
    assert staged(model) == ["2026-04 0123456789abcdef"]


def test_an_interrupted_enrolment_with_another_detector_is_refused(
    many: Path, tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people.npz.unfinished"

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(enrolment, "find_label_problems", interrupted)
        enrol_many(many, path, tiny)
    model = Face_Encode_Model(tiny, "haar")
    with pytest.raises(GalleryError, match=r"other settings.*--restart"):
        model.fit_dataset(many, progress=False, unfinished=path)
    with pytest.raises(DatasetError, match="none of the 132 photos"):
        model.fit_dataset(many, progress=False, unfinished=path, restart=True)
    # It came to its end, if to none that was hoped for.
    assert not path.exists()


def test_an_interrupted_enrolment_on_another_engine_is_refused(
    tiny_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = tmp_path / "people.npz.unfinished"
    on_keras, on_onnx = (load_encoder(tiny_file, engine=name) for name in ("tensorflow", "onnx"))
    with enrolment_checkpoint(MemoryGallery(on_keras), path, Halves(), on_keras):
        pass
    with pytest.raises(
        GalleryError, match=r"--encoder-engine tensorflow.*Received: the engine onn"
    ):
        enrolment_checkpoint(MemoryGallery(on_onnx), path, Halves(), on_onnx)


def test_an_interrupted_enrolment_by_other_settings_of_a_detector_is_refused(
    tiny: Encoder, tmp_path: Path
) -> None:
    path = tmp_path / "people.npz.unfinished"
    with enrolment_checkpoint(MemoryGallery(tiny), path, HaarDetector(), tiny):
        pass
    with pytest.raises(GalleryError, match=r"other settings.*haar\(step=1\.1\)"):
        enrolment_checkpoint(MemoryGallery(tiny), path, HaarDetector(step=1.1), tiny)


def test_a_checkpoint_lies_beside_the_gallery_or_in_the_cache(cache_folder: Path) -> None:
    assert checkpoint_path("a/people.npz", "people") == Path("a/people.npz.unfinished")
    remote = checkpoint_path("http://host:19530", "people")
    assert remote.parent.parent == cache_folder
    assert remote == checkpoint_path("http://host:19530", os.path.abspath("people"))
    assert remote != checkpoint_path("http://host:19530", "others")
