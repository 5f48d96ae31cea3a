from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import EmbeddingFileError, GalleryError
from face_encode.pipeline.checkpoint import Journal, UnfinishedRun
from face_encode.pipeline.embedding import NO_FACE, EmbeddedPhoto
from face_encode.types import Box, Face


def opened(path: Path, heading: bytes = b"run 1", restart: bool = False) -> Journal:
    return Journal(path, heading, EmbeddingFileError, restart=restart)


def contents(path: Path) -> list[bytes]:
    with opened(path) as journal:
        records = list(journal.records())
        assert [journal.read(place) for place, _ in records] == [record for _, record in records]
        return [record for _, record in records]


def test_records_are_read_as_they_were_added(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal"
    with opened(path) as journal:
        places = [journal.append(record) for record in (b"one", b"", b"three" * 100_000)]
        assert journal.read(places[0]) == b"one"
        assert [place for place, _ in journal.records()] == places
    assert contents(path) == [b"one", b"", b"three" * 100_000]
    with opened(path) as journal:
        journal.append(b"four")
    assert contents(path)[3:] == [b"four"]
    with opened(path, restart=True) as journal:
        assert list(journal.records()) == []
        journal.remove()
    assert not path.exists()


def test_cut_off_anywhere_it_goes_on_behind_the_last_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    records = [bytes([number]) * 9 for number in range(3)]
    with opened(path) as journal:
        ends = [journal.append(record) + 12 + 9 for record in records]
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = records[: sum(end <= length for end in ends)]
        with opened(path) as journal:
            assert [record for _, record in journal.records()] == kept
            assert journal.read(journal.append(b"more")) == b"more"
        assert contents(path) == [*kept, b"more"]


def test_what_is_damaged_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.append(b"one")
        second = journal.append(b"two")
        journal.append(b"three")
    damaged = bytearray(path.read_bytes())
    damaged[second + 13] ^= 1
    path.write_bytes(damaged)
    assert contents(path) == [b"one"]


def test_another_runs_journal_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.append(b"one")
    whole = path.read_bytes()
    with pytest.raises(EmbeddingFileError, match=r"run 1.*--restart.*Received: run 2"):
        opened(path, b"run 2")
    assert path.read_bytes() == whole
    with opened(path, b"run 2", restart=True) as journal:
        assert list(journal.records()) == []
        assert journal.read(journal.append(b"two")) == b"two"


@pytest.mark.parametrize("restart", [False, True])
def test_a_file_of_something_else_is_never_written_over(tmp_path: Path, restart: bool) -> None:
    path = tmp_path / "journal"
    path.write_text("Dear diary, today")
    with pytest.raises(EmbeddingFileError, match="is no journal"):
        opened(path, restart=restart)
    assert path.read_text() == "Dear diary, today"


def test_where_it_cannot_be_written_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingFileError, match="is in the way: it is a folder"):
        opened(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddingFileError, match="cannot write"):
        opened(tmp_path / "file" / "journal")


@pytest.mark.skipif(os.name != "posix", reason="locks files the POSIX way")
def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    script = (
        "import sys; from pathlib import Path\n"
        "from face_encode.errors import EmbeddingFileError\n"
        "from face_encode.pipeline.checkpoint import Journal\n"
        "Journal(Path(sys.argv[1]), b'run 1', EmbeddingFileError)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    with opened(path):
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 1
        assert "another process is at work" in second.stderr
    assert subprocess.run(command).returncode == 0


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


def opened_of_resuming(folder: Path, restart: bool = False) -> UnfinishedRun:
    path = folder / "journal.unfinished"
    return UnfinishedRun(path, SETTINGS, GalleryError, restart=restart)


def test_results_come_back_as_they_were_kept(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 4)
    batch = [embedded("0.png", 3, 3), embedded("1.png", 0, 0), embedded("2.png", 2, 1)]
    with opened_of_resuming(tmp_path) as run:
        assert run.resume(photos, tmp_path) == 0
        for row in range(3):
            run.begin(row)
        run.keep(batch)
    with opened_of_resuming(tmp_path) as run:
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
    with opened_of_resuming(tmp_path) as run:
        assert run.resume(photos, tmp_path) == 0


def test_photos_that_changed_or_have_no_path_are_done_again(tmp_path: Path) -> None:
    photos = [*photo_files(tmp_path, 3), ""]
    with opened_of_resuming(tmp_path) as run:
        run.resume(photos, tmp_path)
        for row in range(4):
            run.begin(row)
        # Changed while it was on its way through the encoder: what is kept is of the former one.
        (tmp_path / "1.png").write_bytes(bytes(77))
        run.keep([embedded(photo, 1, 1) for photo in photos])
    (tmp_path / "2.png").unlink()
    with opened_of_resuming(tmp_path) as run:
        assert run.resume(photos, tmp_path) == 1
        assert [run.is_done(row) for row in range(4)] == [True, False, False, False]


def test_a_photo_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 2)
    unreadable = replace(embedded("0.png", 0, 0), digest="", error="input/output error")
    with opened_of_resuming(tmp_path) as run:
        run.resume(photos, tmp_path)
        run.begin(0)
        run.begin(1)
        run.keep([unreadable, embedded("1.png", 0, 0)])
    with opened_of_resuming(tmp_path) as run:
        assert run.resume(photos, tmp_path) == 1
        assert [run.is_done(row) for row in range(2)] == [False, True]


def test_a_run_with_other_settings_is_refused_unless_it_begins_anew(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 1)
    with opened_of_resuming(tmp_path) as run:
        run.resume(photos, tmp_path)
        run.begin(0)
        run.keep([embedded("0.png", 1, 1)])
    path = tmp_path / "journal.unfinished"
    with pytest.raises(GalleryError, match=r"other settings.*--restart"):
        UnfinishedRun(path, {**SETTINGS, "fingerprint": "other"}, GalleryError)
    with opened_of_resuming(tmp_path, restart=True) as run:
        assert run.resume(photos, tmp_path) == 0


def test_of_other_settings_those_that_differ_are_told(tmp_path: Path) -> None:
    opened_of_resuming(tmp_path).__exit__(None, None, None)
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
        opened_of_resuming(tmp_path)
    assert path.read_bytes() == former
    with opened_of_resuming(tmp_path, restart=True) as run:
        assert run.resume(photo_files(tmp_path, 1), tmp_path) == 0
