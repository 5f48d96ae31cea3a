from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import GalleryError
from face_encode.files import state_of
from face_encode.pipeline.checkpoint import Checkpoint, Run, StoreFile, checkpoint_in
from face_encode.pipeline.embedding import NO_FACE, EmbeddedPhoto
from face_encode.types import Box, Face

SETTINGS: dict[str, Any] = {"run": "test", "fingerprint": "abc", "embedding_size": 4}


def opened(folder: Path, restart: bool = False, **settings: Any) -> Checkpoint:
    path = folder / "photos.unfinished"
    return checkpoint_in(path, {**SETTINGS, **settings}, GalleryError, restart=restart)


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
        b"\xff\xd8\n" * faces,
    )


def keep(checkpoint: Checkpoint, folder: Path, *batch: EmbeddedPhoto) -> None:
    checkpoint.keep((photo.photo, state_of(folder / photo.photo), photo) for photo in batch)


def done(checkpoint: Checkpoint | None, photos: list[str], folder: Path) -> list[int]:
    return Run(photos, checkpoint, "Testing", top=folder, progress=False).done


def test_results_come_back_as_they_were_kept(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 4)
    batch = [embedded("0.png", 3, 3), embedded("1.png", 0, 0), embedded("2.png", 2, 1)]
    folder = tmp_path / "new"
    with opened(folder) as checkpoint:
        assert done(checkpoint, photos, tmp_path) == []
        keep(checkpoint, tmp_path, *batch)
    with opened(folder) as checkpoint:
        run = Run(photos, checkpoint, "Testing", top=tmp_path, progress=False)
        assert (run.done, run.waiting) == ([0, 1, 2], [3])
        for former in batch:
            result = checkpoint.result(former.photo)
            assert result.photo == former.photo
            assert [(face.box, face.score) for face in result.faces] == [
                (face.box, face.score) for face in former.faces
            ]
            assert (result.size, result.error) == (former.size, former.error)
            assert (result.sharpness, result.digest) == (former.sharpness, former.digest)
            assert result.portrait == former.portrait
            np.testing.assert_array_equal(result.embeddings, former.embeddings)
        checkpoint.remove()
    assert list(folder.iterdir()) == []
    assert done(None, photos, tmp_path) == []


def test_photos_that_changed_or_have_no_path_are_done_again(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 3)
    with opened(tmp_path) as checkpoint:
        states = [state_of(tmp_path / photo) for photo in photos]
        # Changed while it was on its way through the encoder: what is kept is of the former one.
        (tmp_path / "1.png").write_bytes(bytes(77))
        results = [embedded(photo, 1, 1) for photo in photos]
        checkpoint.keep(
            zip([*photos, ""], [*states, (-1, -1)], [*results, results[0]], strict=True)
        )
    (tmp_path / "2.png").unlink()
    with opened(tmp_path) as checkpoint:
        assert done(checkpoint, [*photos, ""], tmp_path) == [0]


def test_a_photo_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 2)
    unreadable = replace(embedded("0.png", 0, 0), digest="", error="input/output error")
    with opened(tmp_path) as checkpoint:
        keep(checkpoint, tmp_path, unreadable, embedded("1.png", 0, 0))
    with opened(tmp_path) as checkpoint:
        assert done(checkpoint, photos, tmp_path) == [1]


@pytest.mark.skipif(os.name != "posix", reason="names of other bytes need such a file system")
def test_a_name_that_is_no_text_is_kept_too(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    with opened(tmp_path) as checkpoint:
        checkpoint.keep([(name, (1, 2), embedded(name, 1, 1))])
        assert checkpoint.holds(name, (1, 2))
        assert checkpoint.result(name).photo == name


def test_a_run_with_other_settings_is_refused_unless_it_begins_again(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 1)
    with opened(tmp_path) as checkpoint:
        keep(checkpoint, tmp_path, embedded("0.png", 1, 1))
    whole = (tmp_path / "photos.unfinished").read_bytes()
    with pytest.raises(GalleryError, match=r"other settings.*--restart"):
        opened(tmp_path, fingerprint="other")
    assert (tmp_path / "photos.unfinished").read_bytes() == whole
    with opened(tmp_path) as checkpoint:
        assert done(checkpoint, photos, tmp_path) == [0]
    with opened(tmp_path, restart=True, fingerprint="other") as checkpoint:
        assert done(checkpoint, photos, tmp_path) == []


def test_of_other_settings_those_that_differ_are_told(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with pytest.raises(GalleryError) as raised:
        opened(tmp_path, fingerprint="other", raw=True)
    assert str(raised.value) == (
        f"{tmp_path / 'photos.unfinished'} was begun by a run with other settings: "
        '{"fingerprint": "abc"}. Continue with those, or begin again from the first photo '
        '(--restart). Received: {"fingerprint": "other", "raw": true}'
    )


def test_a_run_of_another_engine_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    with opened(tmp_path, engine="onnx"):
        pass
    with pytest.raises(GalleryError) as raised:
        opened(tmp_path, engine="tensorflow")
    for words in ("--encoder-engine onnx", "engine='onnx'", "--restart", "Received: the engine te"):
        assert words in str(raised.value)
    with opened(tmp_path, engine="onnx"):
        pass


@pytest.mark.parametrize(
    "settings", ['{"fingerprint": "abc", "form": 2, "run": "test"}', "[]", "?"]
)
def test_a_checkpoint_of_another_release_is_refused_as_such(tmp_path: Path, settings: str) -> None:
    with opened(tmp_path) as checkpoint:
        keep(checkpoint, tmp_path, embedded("0.png", 1, 1))
    path = tmp_path / "photos.unfinished"
    with sqlite3.connect(path) as database:
        database.execute("UPDATE settings SET json = ?", [settings])
    database.close()
    former = path.read_bytes()
    with pytest.raises(GalleryError, match=r"another release of this package.*--restart"):
        opened(tmp_path)
    assert path.read_bytes() == former
    with opened(tmp_path, restart=True) as checkpoint:
        assert done(checkpoint, photo_files(tmp_path, 1), tmp_path) == []


def another_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE diary (day TEXT)")
    database.close()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("write", [lambda path: path.write_text("Dear diary"), another_database])
def test_a_file_of_something_else_is_never_written_over(
    tmp_path: Path, write: Any, restart: bool
) -> None:
    path = tmp_path / "photos.unfinished"
    write(path)
    former = path.read_bytes()
    with pytest.raises(GalleryError, match=r"is in the way: it is no checkpoint.* Move it"):
        opened(tmp_path, restart=restart)
    assert path.read_bytes() == former


def test_where_it_cannot_be_written_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "photos.unfinished").mkdir()
    with pytest.raises(GalleryError, match="is in the way: it is a folder"):
        opened(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(GalleryError, match="cannot write"):
        opened(tmp_path / "file")
    if hasattr(os, "mkfifo"):
        (tmp_path / "pipe").mkdir()
        os.mkfifo(tmp_path / "pipe" / "photos.unfinished")
        with pytest.raises(GalleryError, match="not a regular file"):
            opened(tmp_path / "pipe")


def test_a_full_disk_is_told_and_costs_no_batch_before_it(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 3)
    with opened(tmp_path) as checkpoint:
        keep(checkpoint, tmp_path, embedded("0.png", 1, 1))
        assert isinstance(checkpoint._store, StoreFile)
        database = checkpoint._store._database
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        large = replace(embedded("2.png", 1, 1), digest="d" * 100_000)
        with pytest.raises(GalleryError, match=r"cannot write .*photos\.unfinished.*full"):
            keep(checkpoint, tmp_path, embedded("1.png", 1, 1), large)
    with opened(tmp_path) as checkpoint:
        assert done(checkpoint, photos, tmp_path) == [0]


SECOND = """
import sys
from pathlib import Path
from tests.pipeline.test_checkpoint import opened

opened(Path(sys.argv[1]), restart=sys.argv[2] == "restart")
"""


def test_a_second_run_of_this_process_is_kept_out(tmp_path: Path) -> None:
    with (
        opened(tmp_path),
        pytest.raises(GalleryError, match="another run of this program is at work"),
    ):
        opened(tmp_path)
    # One that failed, or was ended, or removed leaves the file to the next.
    with pytest.raises(GalleryError, match="other settings"):
        opened(tmp_path, run="another")
    opened(tmp_path).remove()
    with opened(tmp_path):
        pass


def test_results_may_be_kept_by_another_thread(tmp_path: Path) -> None:
    photo_files(tmp_path, 1)
    with opened(tmp_path) as checkpoint, ThreadPoolExecutor(1) as other:
        other.submit(keep, checkpoint, tmp_path, embedded("0.png", 1, 1)).result()
        assert done(checkpoint, ["0.png"], tmp_path) == [0]


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    with opened(tmp_path) as checkpoint:
        keep(checkpoint, tmp_path, embedded("0.png", 1, 1))
        # A second attempt in this process must not drop the lock.
        with pytest.raises(GalleryError, match="another run"):
            opened(tmp_path)
        for how in ("resume", "restart"):
            command = [sys.executable, "-c", SECOND, str(tmp_path), how]
            second = subprocess.run(command, capture_output=True, text=True)
            assert second.returncode == 1
            assert "another process is at work" in second.stderr
        assert checkpoint.result("0.png").photo == "0.png"
    assert subprocess.run([sys.executable, "-c", SECOND, str(tmp_path), "resume"]).returncode == 0


def test_killed_at_any_moment_it_holds_whole_batches(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 6)
    first = tmp_path / "first"
    checkpoint = opened(first)
    ends = []
    log = first / "photos.unfinished-wal"
    for number in range(0, 6, 2):
        keep(
            checkpoint, tmp_path, *(embedded(photo, 1, 1) for photo in photos[number : number + 2])
        )
        ends.append(log.stat().st_size)
    # What is on the disk at a kill: the log ends anywhere.
    for cut, length in enumerate(range(0, ends[-1] + 1, 1000)):
        killed = tmp_path / f"killed {cut}"
        killed.mkdir()
        shutil.copy(first / "photos.unfinished", killed)
        (killed / log.name).write_bytes(log.read_bytes()[:length])
        with opened(killed) as resumed:
            held = done(resumed, photos, tmp_path)
            assert held == list(range(2 * sum(end <= length for end in ends)))
            for row in held:
                expected = embedded(photos[row], 1, 1)
                result = resumed.result(photos[row])
                np.testing.assert_array_equal(result.embeddings, expected.embeddings)
            keep(resumed, tmp_path, embedded("5.png", 1, 1))
        assert [path.name for path in killed.iterdir()] == ["photos.unfinished"]
        with opened(killed) as again:
            assert done(again, photos, tmp_path) == sorted({*held, 5})
    checkpoint.__exit__()


def test_damage_is_told_by_the_files_name_and_the_way_out(tmp_path: Path) -> None:
    photos = photo_files(tmp_path, 40)
    with opened(tmp_path) as checkpoint:
        keep(checkpoint, tmp_path, *(embedded(photo, 1, 1) for photo in photos))
    path = tmp_path / "photos.unfinished"
    whole = path.read_bytes()
    place = whole.index(embedded("0.png", 1, 1).embeddings.tobytes())
    flipped = bytes([whole[place] ^ 1])
    damages = {
        "cut off": whole[: len(whole) // 2],
        "its first page only": whole[:4096],
        "a page of zeros": whole[:4096] + bytes(4096) + whole[8192:],
        "a bit in an embedding": whole[:place] + flipped + whole[place + 1 :],
    }
    for content in damages.values():
        path.write_bytes(content)
        with (
            pytest.raises(GalleryError, match=r"photos\.unfinished is damaged.*--restart"),
            opened(tmp_path) as checkpoint,
        ):
            for photo in photos:
                assert checkpoint.holds(photo, state_of(tmp_path / photo))
        with opened(tmp_path, restart=True) as checkpoint:
            assert done(checkpoint, photos, tmp_path) == []
            keep(checkpoint, tmp_path, embedded("0.png", 1, 1))
        assert [each.name for each in tmp_path.glob("photos*")] == [path.name]


def changed_row(told: dict[str, Any], numbers: bytes = b"") -> bytes:
    content = json.dumps(told).encode() + b"\n" + numbers
    return b"%08x\n" % zlib.crc32(content) + content


WHOLE = {
    "state": [1, 2],
    "size": [640, 480],
    "error": "no face found",
    "digest": "d" * 64,
    "qualities": [],
    "lengths": [0, 0, 0, 0],
}


@pytest.mark.parametrize(
    "row",
    [
        changed_row({}),
        changed_row({**WHOLE, "lengths": [10**400, 0, 0, 0]}),
        changed_row({**WHOLE, "lengths": [-8, 8, 0, 0]}),
        changed_row({**WHOLE, "lengths": [0, 0]}),
        changed_row({**WHOLE, "lengths": [0, 0, 7, 0]}, bytes(7)),
        changed_row({**WHOLE, "lengths": [0, 0, 8, 0]}, bytes(8)),
        changed_row({**WHOLE, "lengths": [40, 0, 0, 0]}, bytes(40)),
        changed_row({**WHOLE, "lengths": [40, 0, 0, 0]}, b"\xff" * 40),
        changed_row({**WHOLE, "size": None}),
        changed_row({**WHOLE, "size": [1, 2, 3]}),
        changed_row({**WHOLE, "size": [float("nan"), 2]}),
        changed_row({**WHOLE, "error": ["no"]}),
        changed_row({**WHOLE, "error": None}),
        changed_row({**WHOLE, "digest": 3}),
        changed_row({**WHOLE, "qualities": [[1, 2, 3]]}),
        b"%08x\n%b\n" % (zlib.crc32(b"[" * 99_999 + b"\n"), b"[" * 99_999),
        b"%08x\n[]\n" % zlib.crc32(b"[]\n"),
        b"",
        "text",
        3,
    ],
)
def test_a_row_of_other_content_is_told_as_damage(row: Any, tmp_path: Path) -> None:
    (photo,) = photo_files(tmp_path, 1)
    with opened(tmp_path) as checkpoint:
        keep(checkpoint, tmp_path, embedded(photo, 1, 1))
    with sqlite3.connect(tmp_path / "photos.unfinished") as database:
        database.execute("UPDATE done SET content = ?", [row])
    database.close()
    with opened(tmp_path) as checkpoint:
        with pytest.raises(
            GalleryError, match=r"is damaged .the row of 0\.png.*--restart"
        ) as caught:
            done(checkpoint, [photo], tmp_path)
        with pytest.raises(GalleryError, match=r"is damaged .the row of 0\.png.*--restart"):
            checkpoint.result(photo)
    assert len(str(caught.value)) < 400
