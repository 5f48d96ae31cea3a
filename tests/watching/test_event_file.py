from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from face_encode.errors import VideoError
from face_encode.video.session import EventFile
from tests.conftest import REPOSITORY


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "events.jsonl"
    for name in ("Ada", "王小明"):
        events = EventFile(path)
        events.write({"name": name})
        assert lines(path)[-1] == {"name": name}  # there at once, not only at the end
        events.close()
    assert lines(path) == [{"name": "Ada"}, {"name": "王小明"}]


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"name": "Ada"}\n{"na')
    events = EventFile(path)
    events.write({"name": "Bob"})
    events.close()
    assert path.read_text().splitlines()[0] == '{"name": "Ada"}'
    assert path.read_text().splitlines()[-1] == '{"name": "Bob"}'


def test_a_kill_leaves_every_line_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    script = (
        "import sys\n"
        "from face_encode.video.session import EventFile\n"
        "events = EventFile(sys.argv[1])\n"
        "while True: events.write({'name': 'A' * 3000})\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 100_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert len(lines(path)) > 30
    assert path.read_bytes().endswith(b"\n")


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="it is a folder"):
        EventFile(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(VideoError, match="is no folder"):
        EventFile(tmp_path / "file" / "events.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_is_told() -> None:
    events = EventFile("/dev/full")
    with pytest.raises(VideoError, match="cannot write /dev/full: no space left"):
        events.write({"name": "Ada"})
    events.close()
