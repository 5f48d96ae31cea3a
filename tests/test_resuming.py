from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import GalleryError
from face_encode.pipeline.checkpoint import Journal, UnfinishedRun
from face_encode.pipeline.embedding import NO_FACE, EmbeddedPhoto
from face_encode.types import Box, Face

SETTINGS = {"run": "test", "fingerprint": "abc"}


def photo_files(folder: Path, count: int) -> list[str]:
    for number in range(count):
        (folder / f"{number}.png").write_bytes(bytes(number + 1))
    return [f"{number}.png" for number in range(count)]


def embedded(photo: str, faces: int, kept: int) -> EmbeddedPhoto:
    random = np.random.default_rng(faces)
    return EmbeddedPhoto(
        photo,
        tuple(Face(Box(number, 2, 30 - number, 40), 0.1 * number) for number in range(faces)),
        random.normal(size=(kept, 4)).astype(np.float32),
        tuple(random.random(kept).tolist()),
        (640, 480),
        None if faces else NO_FACE,
        "d" * 64,
    )


def opened(folder: Path, restart: bool = False) -> UnfinishedRun:
    path = folder / "journal.unfinished"
    return UnfinishedRun(path, SETTINGS, GalleryError, restart=restart)


def test_results_come_back_as_they_were_kept(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 4)
    batch = [embedded("0.png", 3, 3), embedded("1.png", 0, 0), embedded("2.png", 2, 1)]
    with opened(tmp_path) as run:
        assert run.resume(photos, tmp_path) == 0
        for row in range(3):
            run.begin(row)
        run.keep(batch)
    with opened(tmp_path) as run:
        assert run.resume(photos, tmp_path) == 3
        assert [run.is_done(row) for row in range(4)] == [True, True, True, False]
        for row, former in enumerate(batch):
            result = run.result(row)
            assert result.photo == former.photo
            assert [(face.box, face.score) for face in result.faces] == [
                (face.box, face.score) for face in former.faces
            ]
            assert (result.size, result.error) == (former.size, former.error)
            assert (result.sharpness, result.digest) == (former.sharpness, former.digest)
            np.testing.assert_array_equal(result.embeddings, former.embeddings)
        run.remove()
    with opened(tmp_path) as run:
        assert run.resume(photos, tmp_path) == 0


def test_photos_that_changed_or_have_no_path_are_done_again(tmp_path: Path) -> None:
    photos = [*photo_files(tmp_path, 3), ""]
    with opened(tmp_path) as run:
        run.resume(photos, tmp_path)
        for row in range(4):
            run.begin(row)
        # Changed while it was on its way through the encoder: what is kept is of the former one.
        (tmp_path / "1.png").write_bytes(bytes(77))
        run.keep([embedded(photo, 1, 1) for photo in photos])
    (tmp_path / "2.png").unlink()
    with opened(tmp_path) as run:
        assert run.resume(photos, tmp_path) == 1
        assert [run.is_done(row) for row in range(4)] == [True, False, False, False]


def test_a_photo_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 2)
    unreadable = replace(embedded("0.png", 0, 0), digest="", error="input/output error")
    with opened(tmp_path) as run:
        run.resume(photos, tmp_path)
        run.begin(0)
        run.begin(1)
        run.keep([unreadable, embedded("1.png", 0, 0)])
    with opened(tmp_path) as run:
        assert run.resume(photos, tmp_path) == 1
        assert [run.is_done(row) for row in range(2)] == [False, True]


def test_a_run_with_other_settings_is_refused_unless_it_begins_anew(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 1)
    with opened(tmp_path) as run:
        run.resume(photos, tmp_path)
        run.begin(0)
        run.keep([embedded("0.png", 1, 1)])
    path = tmp_path / "journal.unfinished"
    with pytest.raises(GalleryError, match=r"other settings.*--restart"):
        UnfinishedRun(path, {**SETTINGS, "fingerprint": "other"}, GalleryError)
    with opened(tmp_path, restart=True) as run:
        assert run.resume(photos, tmp_path) == 0


def test_of_other_settings_those_that_differ_are_told(tmp_path: Path) -> None:
    opened(tmp_path).__exit__(None, None, None)
    path = tmp_path / "journal.unfinished"
    with pytest.raises(GalleryError) as raised:
        UnfinishedRun(path, {**SETTINGS, "fingerprint": "other", "raw": True}, GalleryError)
    assert str(raised.value) == (
        f'{path} was begun by a run with other settings: {{"fingerprint": "abc"}}. Go on with '
        'those, or begin anew (--restart). Received: {"fingerprint": "other", "raw": true}'
    )


def test_a_run_of_another_engine_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.unfinished"
    with UnfinishedRun(path, {**SETTINGS, "engine": "onnx"}, GalleryError):
        pass
    with pytest.raises(GalleryError) as raised:
        UnfinishedRun(path, {**SETTINGS, "engine": "tensorflow"}, GalleryError)
    for words in ("--encoder-engine onnx", "engine='onnx'", "--restart", "Received: the engine te"):
        assert words in str(raised.value)
    with UnfinishedRun(path, {**SETTINGS, "engine": "onnx"}, GalleryError):
        pass


@pytest.mark.parametrize(
    "heading", [b'{"fingerprint": "abc", "form": 2, "run": "test"}', b"[]", b"?"]
)
def test_a_journal_of_another_release_is_refused_as_such(tmp_path: Path, heading: bytes) -> None:
    path = tmp_path / "journal.unfinished"
    with Journal(path, heading, GalleryError) as journal:
        journal.append(b"a batch")
    former = path.read_bytes()
    with pytest.raises(GalleryError, match=r"another release of this package.*--restart"):
        opened(tmp_path)
    assert path.read_bytes() == former
    with opened(tmp_path, restart=True) as run:
        assert run.resume(photo_files(tmp_path, 1), tmp_path) == 0
