from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from face_encode.server.audit import AuditError, AuditLog, Author

DESK = Author("front-desk", "10.0.0.7")


def test_lines_are_added_for_every_change(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for number in range(2):
        log = AuditLog(path)
        log.write([(DESK, "enrol", {"person": "王\n小明", "photos": number}), (DESK, "remove", {})])
        log.close()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["action"] for line in lines] == ["enrol", "remove"] * 2
    assert lines[0]["person"] == "王\n小明" and lines[2]["photos"] == 1
    assert lines[0]["token"] == "front-desk" and lines[0]["address"] == "10.0.0.7"
    assert lines[0]["time"].endswith("+00:00")
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name != "posix", reason="the lock is POSIX's")
def test_a_second_service_on_the_same_files_is_refused(tmp_path: Path) -> None:
    first = AuditLog(tmp_path / "audit.jsonl")
    with pytest.raises(AuditError, match="one service a gallery"):
        AuditLog(tmp_path / "audit.jsonl")
    first.close()
    AuditLog(tmp_path / "audit.jsonl").close()


def test_a_log_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="cannot write the audit log"):
        AuditLog(tmp_path)
