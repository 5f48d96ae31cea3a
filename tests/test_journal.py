from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from face_encode.errors import EmbeddingFileError
from face_encode.pipeline.checkpoint import Journal


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
