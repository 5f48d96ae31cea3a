"""Programs that share a gallery database: what one changes is seen, kept or refused by another."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from face_encode.errors import GalleryError, NotEnrolledError, WrongEncoderError
from face_encode.gallery import database_file
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.database_file import DatabaseFile
from face_encode.gallery.encryption import Cipher
from face_encode.gallery.people_rows import PeopleRows
from face_encode.gallery.thresholds import Calibration
from tests.conftest import REPOSITORY
from tests.gallery.calibrations import BY_HAND
from tests.gallery.common import Identity, vectors

CIPHER = Cipher([b"k" * 32])

# Enrols the person of each line in a process of its own, and tells who is in the file.
OTHER = """
import sys
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from tests.gallery.common import Identity, vectors
for line in sys.stdin:
    gallery = DatabaseGallery(sys.argv[1], Identity())
    gallery.add([line.strip()], vectors((1, 0)))
    print(*gallery.people(), flush=True)
    gallery.close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.sqlite"


@contextlib.contextmanager
def program(script: str, path: Path) -> Iterator[Callable[[str], str]]:
    """Run a script in a process of its own; yields what asks it: a line for a line."""
    with subprocess.Popen(
        [sys.executable, "-c", script, os.fspath(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as process:

        def ask(line: str) -> str:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield ask


def test_a_program_may_open_a_file_twice_beside_another(path: Path) -> None:
    # SQLite's locks are the process's: opening and closing the file otherwise drops them, and then
    # the other program deletes the log under this one.
    first = DatabaseGallery(path, Identity())
    first.add(["a0"], vectors((1, 0)))
    second = DatabaseGallery(path, Identity())
    enrolled = {"a0"}
    with program(OTHER, path) as enrol:
        for round_ in range(3):
            assert set(enrol(f"b{round_}").split()) == enrolled | {f"b{round_}"}
            first.add([f"c{round_}"], vectors((1, 0)))
            second.add([f"d{round_}"], vectors((1, 0)))
            enrolled |= {f"{letter}{round_}" for letter in "bcd"}
        assert set(enrol("last").split()) == enrolled | {"last"}
    first.close()
    second.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_what_was_encrypted_meanwhile_takes_no_plain_rows(path: Path) -> None:
    plain = DatabaseGallery(path, Identity())
    plain.add(["Ada"], vectors((1, 0)))
    encrypted = DatabaseGallery(path, Identity(), cipher=CIPHER)
    for asked in (lambda: plain.add(["Bo"], vectors((0, 1))), plain.people, plain.rows):
        with pytest.raises(GalleryError, match=r"is encrypted: its key belongs in"):
            asked()
    encrypted.add(["Bo"], vectors((0, 1)))
    encrypted.rekey(Cipher([b"n" * 32, b"k" * 32]))
    assert DatabaseGallery(path, Identity(), cipher=Cipher([b"n" * 32])).people() == {
        "Ada": 1,
        "Bo": 1,
    }


def test_programs_that_encrypt_at_once_agree_on_a_key(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encrypt, held = DatabaseFile.rekey, list[DatabaseGallery]()

    def late(file: DatabaseFile, cipher: Cipher) -> None:
        monkeypatch.setattr(DatabaseFile, "rekey", encrypt)
        held.append(DatabaseGallery(path, Identity(), cipher=cipher))
        held[0].add(["Ada"], vectors((1, 0)), ["a"])
        encrypt(file, cipher)

    monkeypatch.setattr(DatabaseFile, "rekey", late)
    last = DatabaseGallery(path, Identity(), cipher=CIPHER)
    last.add(["ada"], vectors((0, 1)), ["b"])
    assert last.people() == held[0].people() == {"Ada": 2}
    assert last.find_name("ADA") == held[0].find_name("ADA") == "Ada"


def test_an_encoder_is_not_written_over_photos_of_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DatabaseGallery(path, Identity()).close()
    transaction = DatabaseFile.transaction

    def late(file: DatabaseFile) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        monkeypatch.setattr(DatabaseFile, "transaction", transaction)
        with contextlib.closing(DatabaseGallery(path, Identity())) as faster:
            faster.add(["Ada"], vectors((1, 0)))
        return transaction(file)

    monkeypatch.setattr(DatabaseFile, "transaction", late)
    with pytest.raises(WrongEncoderError, match="'one'"):
        DatabaseGallery(path, Identity("two", "f2"))
    assert DatabaseGallery(path, Identity()).people() == {"Ada": 1}


def test_a_calibration_is_its_encoders(path: Path) -> None:
    gallery = DatabaseGallery(path, Identity(), int8=True)
    gallery.add(["Ada"], vectors((1, 0)))
    gallery.calibration = BY_HAND
    gallery.remove("Ada")
    again = DatabaseGallery(path, Identity())
    assert isinstance(again.calibration, Calibration) and again.precision == "int8"
    other = DatabaseGallery(path, Identity("two", "f2"))
    assert other.calibration is None
    other.add(["Bo"], vectors((1, 0)))
    with pytest.raises(WrongEncoderError, match="by now"):
        gallery.calibration = BY_HAND


def test_a_copy_is_read_while_it_is_changed(path: Path, tmp_path: Path) -> None:
    with contextlib.closing(DatabaseGallery(path, Identity())) as gallery:
        gallery.add(["Ada"], vectors((1, 0)))
        gallery.copy_to(tmp_path / "copy.sqlite")
    copy = DatabaseGallery(tmp_path / "copy.sqlite", Identity())
    with copy._file.transaction() as connection:
        PeopleRows(copy._file, connection).people_of(["Bo"])
        assert DatabaseGallery(tmp_path / "copy.sqlite", Identity()).people() == {"Ada": 1}
    ((mode,),) = sqlite3.connect(tmp_path / "copy.sqlite").execute("PRAGMA journal_mode")
    assert mode == "wal"


READER = """
import os, sys
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.search import search_enrolled
from tests.gallery.common import Identity, vectors
# Imports what is imported late, from where another user may not read.
gallery = DatabaseGallery(sys.argv[1] + ".first.sqlite", Identity())
gallery.add(["Cy"], vectors((1, 0)))
gallery.search(vectors((1, 0)))
gallery.add(["Dy"], vectors((1, 0)))
gallery.remove("Cy")
gallery.search(vectors((1, 0)))
gallery.close()
os.setgid(65534)
os.setuid(65534)
gallery = DatabaseGallery(sys.argv[1], Identity(), create=False)
for line in sys.stdin:
    found = gallery.search(vectors((1, 0)))[0]
    print([match.name for match in found], gallery.people(), flush=True)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_who_may_only_read_sees_every_change() -> None:
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        if not all(above.stat().st_mode & stat.S_IXOTH for above in Path(folder).parents):
            pytest.skip("other users may not enter the folder of temporary files")
        check_reader(Path(folder) / "people.sqlite")


def check_reader(path: Path) -> None:
    with contextlib.closing(DatabaseGallery(path, Identity())) as gallery:
        gallery.add(["Ada"], vectors((1, 0)))
    path.chmod(0o644)
    with program(READER, path) as asked:
        assert asked("") == "['Ada'] {'Ada': 1}"
        with contextlib.closing(DatabaseGallery(path, Identity())) as gallery:
            gallery.add(["Bo"], vectors((1, 0)))
            gallery.remove("Ada")
        assert asked("") == "['Bo'] {'Bo': 1}"
        assert asked("") == "['Bo'] {'Bo': 1}"


def test_somebody_is_forgotten_in_every_spelling(path: Path) -> None:
    with contextlib.closing(DatabaseGallery(path, Identity())) as gallery:
        gallery.add(["ADA LOVELACE", "Bo"], vectors((1, 0), (0, 1)))
        gallery.remove("ada lovelace")
        gallery.add(["Ada Lovelace"], vectors((1, 0)))
        gallery.forget("Ada Lovelace")
        changes = gallery.changes()
        assert set().union(*(change.names for change in changes)) == {"(forgotten)", "Bo"}
        with pytest.raises(GalleryError, match="somebody whom it concerns was forgotten"):
            gallery.undo(changes[0].id)
    assert b"LOVELACE" not in path.read_bytes()


def test_it_is_told_where_the_log_still_holds_who_was_forgotten(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_file, "BUSY_SECONDS", 0.1)
    gallery = DatabaseGallery(path, Identity())
    gallery.add(["Ada", "Bo"], vectors((1, 0), (0, 1)))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM photo").fetchall()
        assert gallery.forget("Ada") == 1
        assert "still holds what was removed" in caplog.text
    caplog.clear()
    assert gallery.people() == {"Bo": 1} and gallery.forget("Bo") == 1
    assert not caplog.messages


def test_who_comes_back_by_undoing_has_what_was_that_persons(path: Path) -> None:
    gallery = DatabaseGallery(path, Identity())
    gallery.add(["Ada", "Bo"], vectors((1, 0), (0, 1)))
    gallery.set_threshold("Ada", 0.99)
    gallery.set_note("Ada", "opens the safe")
    gallery.set_note("Bo", "a guest")
    for change in (
        lambda: gallery.remove("Ada"),
        lambda: gallery.merge("Ada", "Bo"),
        lambda: gallery.move_photos([1], "Bo"),
        lambda: gallery.remove_photos([1]),
        lambda: gallery.replace(["Cy"], vectors((0, 1)), [""], "all"),
    ):
        change()
        assert gallery.thresholds == {}
        gallery.undo()
        assert gallery.thresholds == {"Ada": 0.99}
        assert gallery.person("Ada").note == "opens the safe"
        assert gallery.person("Bo").note == "a guest"
    gallery.merge("Ada", "Bo")
    assert gallery.person("Bo").note == "a guest\nopens the safe"
    # Another program remembers no notes; the audit holds the threshold.
    other = DatabaseGallery(path, Identity())
    other.undo()
    assert other.thresholds == {"Ada": 0.99} and other.person("Ada").note == ""


def test_undoing_leaves_what_was_chosen_since(path: Path) -> None:
    gallery = DatabaseGallery(path, Identity())
    details = [PhotoDetails(crop=b"jpeg")] * 2
    gallery.add(["Ada", "Bo"], vectors((1, 0), (0, 1)), details=details)
    gallery.set_picture(1)
    gallery.set_threshold("Ada", 0.99)
    gallery.remove("Ada")
    removed = gallery.last_change
    gallery.add(["Ada"], vectors((1, 1)), details=details[:1])
    gallery.set_picture(3)
    gallery.undo(removed)
    assert gallery.people() == {"Ada": 2, "Bo": 1}
    assert gallery.thresholds == {} and gallery.person("Ada").crop == 3
    gallery.set_note("Ada", "new")
    gallery.merge("Ada", "Bo")
    gallery.undo()
    assert gallery.person("Ada").crop == 3 and gallery.person("Bo").note == ""
    gallery.undo(gallery.last_change)
    assert gallery.person("Bo").note == "new"


def test_a_link_to_a_file_that_is_to_be_made_is_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "real.sqlite")
    with contextlib.closing(DatabaseGallery(path, Identity())) as gallery:
        gallery.add(["Ada"], vectors((1, 0)))
    assert (tmp_path / "real.sqlite").stat().st_size


def test_undoing_is_told_by_the_names_of_now(path: Path) -> None:
    gallery = DatabaseGallery(path, Identity())
    gallery.add(["ada", "Bo"], vectors((1, 0), (0, 1)))
    gallery.move_photos([1], "Bo")
    moved = gallery.last_change
    gallery.add(["Ada"], vectors((1, 1)))
    gallery.undo(moved)
    assert gallery.people() == {"Ada": 2, "Bo": 1}
    assert gallery.changes()[-1].added == {"Ada": [1]}
    gallery.undo(gallery.last_change)
    assert gallery.people() == {"Bo": 2, "Ada": 1}


def test_numbers_that_no_database_holds_are_refused(path: Path) -> None:
    gallery = DatabaseGallery(path, Identity())
    gallery.add(["Ada"], vectors((1, 0)))
    for asked in (
        lambda: gallery.remove_photos([10**20]),
        lambda: gallery.crop(10**20),
        lambda: gallery.changes(0, -(10**20)),
    ):
        with pytest.raises(NotEnrolledError, match="so high a number"):
            asked()
    gallery.close()
    with pytest.raises(GalleryError, match=r"people\.sqlite is closed"):
        gallery.people()


def test_a_path_that_is_not_utf8_is_opened(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.sqlite"))
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system has no such names")
    path.unlink()
    with contextlib.closing(DatabaseGallery(path, Identity())) as gallery:
        gallery.add(["Ada"], vectors((1, 0)))
    assert path.exists()
