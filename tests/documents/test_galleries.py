"""docs/galleries.md is run: its commands, its Python and its links."""

from __future__ import annotations

import glob
import shlex
from pathlib import Path

import pytest

from face_encode import cli
from tests.conftest import REPOSITORY
from tests.documents.reading import broken_links, commands, run_python

GUIDE = REPOSITORY / "docs" / "galleries.md"

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def test_the_commands_and_the_python_run(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = commands(GUIDE)
    assert len(lines) >= 4
    for line in lines:
        words = [
            path
            for word in shlex.split(line, comments=True)[1:]
            for path in sorted(glob.glob(word)) or [word]
        ]
        assert cli.main(words) == 0, f"{line}\n{capsys.readouterr().err}"
    assert "Ada Lovelace removed: 4 photos; 20 remain" in capsys.readouterr().out
    run_python(GUIDE)
    assert (clone / "exported.npz").is_file()
    # Enrolling a folder takes nobody out of a gallery that others share.
    assert cli.main(["enroll", "verify_dataset", "-g", "other.db", "--json"]) == 0
    # Two of the photos are known, though by another name.
    assert '"reused": 22' in capsys.readouterr().out
    assert cli.main(["remove", "other.db", "Ada Lovelace"]) == 0
    assert "2 photos; 24 remain" in capsys.readouterr().out


def test_the_links_lead_somewhere() -> None:
    assert broken_links(GUIDE) == []
