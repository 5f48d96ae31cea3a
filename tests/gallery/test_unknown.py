"""People without a name: found or begun, kept for a time, named, merged, dismissed, undone."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError, NotEnrolledError, WrongEncoderError
from face_encode.gallery import database_file, unknown
from face_encode.gallery.audit import Author, replayed
from face_encode.gallery.base import PhotoDetails, unknown_id, unknown_number
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.encryption import KEY_VARIABLE
from face_encode.gallery.unknown import MAX_FACES, MAX_GROUPS, Sight
from face_encode.types import Box
from tests.conftest import REPOSITORY
from tests.gallery.common import SIXTEEN, Identity, vectors

THRESHOLD = 0.9
KEY = "ab" * 32


def opened(folder: Path, encoder: Identity | None = None) -> DatabaseGallery:
    return DatabaseGallery(folder / "people.sqlite", encoder or Identity())


def sight(x: float, y: float, quality: float | None = 0.5, **more: object) -> Sight:
    details = PhotoDetails("front", None, quality, f"jpeg of {x} {y}".encode())
    return Sight(vectors((x, y))[0], replace(details, **more), "", "eyes")  # type: ignore[arg-type]


def seen(gallery: DatabaseGallery, x: float, y: float, **more: object) -> int:
    """The number of whoever is seen."""
    placed = gallery.unknown.see(sight(x, y), THRESHOLD, **more)  # type: ignore[arg-type]
    assert placed is not None
    return placed.number


def numbers(gallery: DatabaseGallery) -> set[int]:
    return {group.number for group in gallery.unknown.groups()[0]}


def test_the_same_stranger_has_the_same_number_also_in_other_programs(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    assert (seen(one, 1, 0), seen(other, 0, 1)) == (1, 2)
    assert seen(other, 9, 0.5) == 1
    # The embedding of several sights finds whom this one alone would not.
    assert seen(one, 0.3, 1, probe=vectors((0, 3))[0]) == 2
    one.close()
    with contextlib.closing(opened(tmp_path)) as again:
        assert seen(again, 0, 2) == 2
    groups, total = other.unknown.groups()
    assert total == 2 and {group.id: group.seen for group in groups} == {
        "unknown-1": 2,
        "unknown-2": 3,
    }
    (group,) = other.unknown.groups(1, 1)[0]
    assert group == other.unknown.group(1)
    assert group.first_seen <= group.last_seen < group.expires_at
    assert {(face.source, face.quality) for face in group.faces} == {("front", 0.5)}
    assert other.unknown.crop(group.faces[0].id) == b"jpeg of 1 0"
    assert other.unknown.crop(99) is None
    # The enrolled are not concerned.
    assert len(other) == 0 and other.changes() == []


def test_a_photo_whose_name_is_no_text_is_told_by_numbers(tmp_path: Path) -> None:
    gallery = opened(tmp_path)
    gallery.unknown.see(sight(1, 0, source="M\udcfcller.jpg"), THRESHOLD)
    assert gallery.unknown.group(1).faces[0].source == "M\\udcfcller.jpg"


SEER = """
import math, sys
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.unknown import Sight
from tests.gallery.common import SIXTEEN, Identity, vectors

gallery = DatabaseGallery(sys.argv[1], Identity())
print("ready", flush=True)
sys.stdin.readline()
for turn in range(20):
    # A stranger whom nobody has seen before, by all programs at once.
    probe = vectors((math.cos(0.1 * turn), math.sin(0.1 * turn)))[0]
    placed = gallery.unknown.see(Sight(probe, PhotoDetails(crop=b"jpeg")), 0.9999)
    print(placed.number, flush=True)
"""


def test_programs_that_see_a_stranger_at_once_agree_on_the_number(tmp_path: Path) -> None:
    path = tmp_path / "people.sqlite"
    opened(tmp_path).close()
    seers = [
        subprocess.Popen(
            [sys.executable, "-c", SEER, str(path)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for seer in seers:
        assert seer.stdout is not None and seer.stdout.readline() == "ready\n"
    told = [seer.communicate("go\n", timeout=60)[0].split() for seer in seers]
    assert len(set(told[0])) == 20 and told[0] == told[1]
    with contextlib.closing(opened(tmp_path)) as gallery:
        groups, _ = gallery.unknown.groups()
        assert len(groups) == 20 and {group.seen for group in groups} == {2}


CHANGER = """
import random, sys
import numpy as np
from face_encode.errors import NotEnrolledError
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.unknown import Sight
from tests.gallery.common import SIXTEEN

gallery = DatabaseGallery(sys.argv[1], SIXTEEN)
choose, rng = random.Random(int(sys.argv[2])), np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
while True:
    seen = Sight(rng.normal(size=16).astype(np.float32), PhotoDetails(crop=b"jpeg"))
    number = gallery.unknown.see(seen, 0.5).number
    print(number, flush=True)
    try:
        match choose.randrange(4):
            case 0: gallery.unknown.name(number, f"person {number % 5}")
            case 1: gallery.unknown.merge(number, choose.randrange(1, number + 1))
            case 2: gallery.unknown.dismiss(number)
    except Exception as error:
        assert isinstance(error, NotEnrolledError) or "itself" in str(error), error
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills processes the POSIX way")
def test_killed_at_any_moment_no_half_a_change_is_there(tmp_path: Path) -> None:
    path = tmp_path / "people.sqlite"
    moments = random.Random(0)
    last = 0
    for kill in range(15):
        process = subprocess.Popen(
            [sys.executable, "-c", CHANGER, str(path), str(kill)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        told = [int(line) for line in process.stdout if line.endswith("\n")]
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        with contextlib.closing(DatabaseGallery(path, SIXTEEN)) as gallery:
            assert replayed(gallery.changes()) == {
                name: {photo.id for photo in gallery.photos(name)} for name in gallery.people()
            }
            assert all(photo.has_crop for photo in gallery.photos())
            for group in gallery.unknown.groups()[0]:
                assert group.faces and group.seen
        with contextlib.closing(sqlite3.connect(path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert file.execute("PRAGMA foreign_key_check").fetchall() == []
            # What was told is never told of somebody else.
            ((highest,),) = file.execute(
                "SELECT IFNULL(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'unknown'"
            ).fetchall()
        assert max(told, default=0) <= highest and last <= highest
        last = highest
    assert last > 15


def test_strangers_go_when_their_time_is_over(tmp_path: Path) -> None:
    gallery = opened(tmp_path)
    assert gallery.unknown.see(sight(1, 0), THRESHOLD, keep_days=0) is None
    assert numbers(gallery) == set()
    short = 0.4 / 86_400
    first = seen(gallery, 1, 0, keep_days=short)
    face = gallery.unknown.group(first).faces[0].id
    second = seen(gallery, 0, 1, keep_days=1)
    # A program that keeps less does not shorten what another has promised.
    assert seen(gallery, 0, 1, keep_days=short) == second
    expires = gallery.unknown.group(first).expires_at
    while unknown._time() <= expires:
        pass
    assert numbers(gallery) == {second} and gallery.unknown.crop(face) is None
    with pytest.raises(NotEnrolledError, match=r"no unknown-1: .*its time is over"):
        gallery.unknown.name(first, "Ada")
    with contextlib.closing(sqlite3.connect(gallery.path)) as file:
        assert file.execute("SELECT number FROM unknown_face").fetchall() == [(second,), (second,)]
    # Nobody else ever gets the number.
    assert seen(gallery, 1, 0) == 3


def test_opening_the_file_deletes_whose_time_is_over(tmp_path: Path) -> None:
    gallery = opened(tmp_path)
    seen(gallery, 1, 0)
    gallery.close()
    with contextlib.closing(sqlite3.connect(gallery.path)) as file, file:
        file.execute("UPDATE unknown SET expires_at = '2020'")
    opened(tmp_path).close()
    with contextlib.closing(sqlite3.connect(gallery.path)) as file:
        assert file.execute("SELECT COUNT(*) FROM unknown").fetchone() == (0,)
    assert b"jpeg of" not in gallery.path.read_bytes()


def test_the_best_faces_are_kept_and_the_groups_seen_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = opened(tmp_path)
    for quality in [*(number / 100 for number in range(20)), None]:
        gallery.unknown.see(sight(1, 0, quality), THRESHOLD)
    (group,) = gallery.unknown.groups()[0]
    assert (group.seen, len(group.faces)) == (21, MAX_FACES)
    assert [face.quality for face in group.faces] == [
        number / 100 for number in range(19, 19 - MAX_FACES, -1)
    ]
    monkeypatch.setattr(unknown, "MAX_GROUPS", 2)
    seen(gallery, 0, 1)
    moment = unknown._time()
    while unknown._time() == moment:
        pass  # what is seen in one millisecond is seen at once
    seen(gallery, 1, 0)
    assert seen(gallery, 1, 1) == 3
    assert numbers(gallery) == {1, 3}
    assert MAX_GROUPS == 1_000


def test_further_faces_of_an_appearance(tmp_path: Path) -> None:
    gallery = opened(tmp_path)
    placed = gallery.unknown.see(sight(1, 0), THRESHOLD)
    assert placed is not None
    (face,) = gallery.unknown.see_again(placed.number, sight(1, 0.1, 0.9))
    (group,) = gallery.unknown.groups()[0]
    assert (group.seen, group.faces[0].id) == (1, face)
    # It was somebody with a name: those of earlier appearances stay.
    again = gallery.unknown.see(sight(1, 0), THRESHOLD)
    assert again is not None
    gallery.unknown.withdraw(*again)
    (group,) = gallery.unknown.groups()[0]
    assert (group.seen, len(group.faces)) == (1, 2)
    gallery.unknown.withdraw(placed.number, [*placed.faces, face])
    assert numbers(gallery) == set()
    assert gallery.unknown.see_again(placed.number, sight(1, 0)) == ()
    assert gallery.unknown.see_again(placed.number, sight(1, 0), keep_days=0) == ()


def test_whoever_is_named_is_recognised_and_that_can_be_undone(tmp_path: Path) -> None:
    gallery = opened(tmp_path).signed(Author("desk"))
    gallery.add(["Bo"], vectors((0, 1)), ["b"])
    number = seen(gallery, 1, 0)
    seen(gallery, 1, 0.1)
    assert gallery.search(vectors((1, 0)))[0][0].name == "Bo"
    assert gallery.unknown.name(number, "Ada") == ("Ada", 2)
    assert gallery.search(vectors((1, 0)))[0][0].name == "Ada"
    assert numbers(gallery) == set()
    photos = gallery.photos("ada")
    assert {(photo.source, photo.quality, photo.enrolled_by) for photo in photos} == {
        ("front", 0.5, "desk")
    }
    assert gallery.crop(photos[0].id) == b"jpeg of 1 0"
    change = gallery.changes()[-1]
    assert (change.action, change.unknown, change.id) == ("name", (1,), gallery.last_change)
    assert change.as_dict()["unknown"] == ["unknown-1"]

    gallery.undo()
    assert gallery.people() == {"Bo": 1}
    (group,) = gallery.unknown.groups()[0]
    assert (group.id, len(group.faces)) == ("unknown-1", 2)
    assert seen(gallery, 1, 0) == 1
    # Undoing the undoing gives the name back.
    gallery.undo(gallery.last_change)
    assert gallery.people() == {"Bo": 1, "Ada": 2} and numbers(gallery) == set()
    assert replayed(gallery.changes()) == {
        name: {photo.id for photo in gallery.photos(name)} for name in ("Ada", "Bo")
    }
    # A name that is taken gets further photos.
    assert gallery.unknown.name(seen(gallery, 1, 1), " BO ") == ("Bo", 1)
    assert gallery.people() == {"Bo": 2, "Ada": 2}


def test_two_groups_of_one_person_are_merged(tmp_path: Path) -> None:
    gallery = opened(tmp_path)
    first, second = seen(gallery, 1, 0), seen(gallery, 0, 1, keep_days=30)
    gallery.unknown.merge(second, first)
    (group,) = gallery.unknown.groups()[0]
    assert (group.number, group.seen, len(group.faces)) == (first, 2, 2)
    assert group.last_seen[:10] < group.expires_at[:10]
    # Whoever is like both is the person; like one of them alone is not enough.
    placed = gallery.unknown.see(sight(1, 1), 0.7)
    assert placed is not None and placed.number == first
    assert seen(gallery, 1, 0) == 3
    assert gallery.changes()[-1].unknown == (second, first)
    for wrong, error in ((second, NotEnrolledError), (first, GalleryError)):
        with pytest.raises(error):
            gallery.unknown.merge(wrong, first)


def test_whoever_is_dismissed_gets_a_new_number(tmp_path: Path) -> None:
    gallery = opened(tmp_path)
    gallery.unknown.dismiss(seen(gallery, 1, 0))
    assert numbers(gallery) == set()
    with contextlib.closing(sqlite3.connect(gallery.path)) as file:
        assert file.execute("SELECT COUNT(*) FROM unknown_face").fetchone() == (0,)
    assert seen(gallery, 1, 0) == 2
    change = gallery.changes()[-1]
    assert (change.action, change.unknown) == ("dismiss", (1,))
    with pytest.raises(GalleryError, match="cannot be undone"):
        gallery.undo()


def test_a_change_that_fails_leaves_nothing(tmp_path: Path) -> None:
    gallery = opened(tmp_path)
    number = seen(gallery, 1, 0)
    with pytest.raises(InputError, match="person's name"):
        gallery.unknown.name(number, "  ")
    with contextlib.closing(sqlite3.connect(gallery.path)) as file, file:
        file.execute("CREATE TRIGGER no BEFORE INSERT ON crop BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(GalleryError):
        gallery.unknown.name(number, "Ada")
    assert numbers(gallery) == {number} and gallery.people() == {} and gallery.changes() == []


def test_groups_of_photos_join_those_that_are_there(tmp_path: Path) -> None:
    gallery = opened(tmp_path)
    of_camera = seen(gallery, 1, 0)

    def of_photo(x: float, y: float, digest: str) -> Sight:
        box = Box(1, 2, 30, 40)
        return replace(sight(x, y, source=f"{digest}.jpg", box=box), digest=digest)

    groups = [
        [of_photo(0, 1, f"{number}") for number in range(MAX_FACES)],
        [of_photo(5, 0, "a"), of_photo(5, 1, "b")],
    ]
    for _ in range(2):
        # Sorted again, the folder adds nothing.
        placed = gallery.unknown.add_groups(groups, [10, 2], THRESHOLD, keep_days=30)
        assert placed == [2, of_camera]
        found = {group.number: group for group in gallery.unknown.groups()[0]}
        assert [(found[number].seen, len(found[number].faces)) for number in placed] == [
            (10, MAX_FACES),
            (2, 3),
        ]
    gallery.unknown.name(2, "Ada")
    assert gallery.enrolled_as(["0"]) == {"0": ["Ada"]}
    for wrong, days in (([[]], 1), ([groups[1]], 0), ([groups[1]] * (MAX_GROUPS + 1), 1)):
        with pytest.raises(InputError):
            gallery.unknown.add_groups(wrong, [2] * len(wrong), THRESHOLD, keep_days=days)


@pytest.mark.parametrize("days", [-1, float("nan"), float("inf")])
def test_wrong_sights_and_times_are_refused(tmp_path: Path, days: float) -> None:
    gallery = opened(tmp_path)
    with pytest.raises(InputError, match="days"):
        gallery.unknown.see(sight(1, 0), THRESHOLD, keep_days=days)
    for wrong in (sight(np.nan, 0), sight(0, 0), sight(1, 0, crop=b"")):
        with pytest.raises(InputError):
            gallery.unknown.see(wrong, THRESHOLD)
    assert numbers(gallery) == set()


def test_names_of_strangers() -> None:
    assert unknown_number(unknown_id(7)) == 7
    for wrong in (
        "unknown",
        "unknown-0",
        "unknown-07",
        "unknown-7 ",
        "Unknown-7",
        "unknown-\u0667",
    ):
        with pytest.raises(InputError, match="unknown-7 or so"):
            unknown_number(wrong)


def test_another_encoder_does_not_compare_with_them(tmp_path: Path) -> None:
    other = Identity("other", "f2", 3)
    gallery = opened(tmp_path)
    number = seen(gallery, 1, 0)
    with pytest.raises(WrongEncoderError):
        opened(tmp_path, other)
    gallery.unknown.name(number, "Ada")
    seen(gallery, 0, 1)
    former = opened(tmp_path)
    changed = gallery.reembed(other, {1: np.ones(3, np.float32)})
    assert changed.unknown.groups() == ([], 0)
    with pytest.raises(WrongEncoderError):
        seen(former, 0, 1)


def test_encrypted_strangers_are_not_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = opened(tmp_path)
    seen(plain, 1, 0)
    plain.close()
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    gallery = opened(tmp_path)
    assert seen(gallery, 1, 0.1) == 1 and seen(gallery, 0, 1) == 2
    (face, _) = gallery.unknown.group(1).faces
    assert face.source == "front" and gallery.unknown.crop(face.id) == b"jpeg of 1 0"
    gallery.unknown.name(1, "Ada")
    assert gallery.search(vectors((1, 0)))[0][0].name == "Ada"
    gallery.undo()
    assert seen(gallery, 1, 0) == 1
    gallery.close()
    content = gallery.path.read_bytes()
    assert not [secret for secret in (b"jpeg of", b"front", b"Ada") if secret in content]
    assert stat.S_IMODE(gallery.path.stat().st_mode) == 0o600


def test_nothing_of_those_who_are_over_or_dismissed_stays_in_the_files(tmp_path: Path) -> None:
    with contextlib.closing(opened(tmp_path)) as gallery:

        def files() -> bytes:
            return b"".join(file.read_bytes() for file in tmp_path.iterdir())

        dismissed = seen(gallery, 1, 0)
        assert seen(gallery, 0, 1, keep_days=1e-9) != dismissed
        assert b"jpeg of 1 0" in files() and b"jpeg of 0 1" in files()
        gallery.unknown.purge()
        assert b"jpeg of 0 1" not in files() and b"jpeg of 1 0" in files()
        gallery.unknown.dismiss(dismissed)
        assert b"jpeg of 1 0" not in files()


def test_a_gallery_of_an_older_release_gets_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people.sqlite"
    opened(tmp_path).close()
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("DROP TABLE unknown_face")
        file.execute("DROP TABLE unknown")
        for column in ("threshold", "picture"):
            file.execute(f"ALTER TABLE person DROP COLUMN {column}")
        file.execute("PRAGMA user_version = 1")
    with contextlib.closing(opened(tmp_path)) as gallery:
        assert seen(gallery, 1, 0) == 1
    # And the older release refuses what it does not know.
    monkeypatch.setattr(database_file, "_MIGRATIONS", database_file._MIGRATIONS[:1])
    with pytest.raises(GalleryError, match=r"later release.*version 4"):
        opened(tmp_path)


def test_an_older_gallery_that_cannot_be_written_to_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = opened(tmp_path)
    gallery.add(["Ada"], vectors((1, 0)))
    gallery.close()
    with contextlib.closing(sqlite3.connect(gallery.path)) as file, file:
        file.execute("DROP TABLE unknown_face")
        file.execute("DROP TABLE unknown")
        for column in ("threshold", "picture"):
            file.execute(f"ALTER TABLE person DROP COLUMN {column}")
        file.execute("PRAGMA user_version = 1")
    # Whoever runs the tests as root may write everywhere.
    monkeypatch.setattr(database_file.DatabaseFile, "can_write", False)
    with contextlib.closing(opened(tmp_path)) as gallery:
        assert gallery.search(vectors((1, 0)))[0][0].name == "Ada"
        assert gallery.person("Ada").threshold is None and gallery.thresholds == {}
        assert gallery.unknown.groups() == ([], 0)
        assert gallery.unknown.crop(1) is None and not gallery.unknown.can_keep
