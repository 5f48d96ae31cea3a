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
    assert len(lines) >= 20
    for line in lines:
        words = [
            path
            for word in shlex.split(line, comments=True)[1:]
            for path in sorted(glob.glob(word)) or [word]
        ]
        assert cli.main(words) == 0, f"{line}\n{capsys.readouterr().err}"
    told = capsys.readouterr().out
    # In Milvus; in the database two of the photos were moved before, and one removed.
    assert "Ada Lovelace removed: 4 photos; 20 remain" in told
    assert "Annabella Byron removed: 1 photos; 22 remain" in told
    assert "22 photos embedded by vgg_embedding" in told
    assert "Mei_Oshara forgotten: 4 photos" in told
    assert (clone / "ada" / "4.jpg").is_file()
    assert "22 photos of 6 people imported: imported.sqlite" in told
    (clone / "people.sqlite").unlink()
    assert cli.main(["enroll", "people", "-g", "people.sqlite"]) == 0
    run_python(GUIDE)
    assert "passport.jpg" in capsys.readouterr().out
    assert (clone / "from_milvus.sqlite").is_file()
    # Enrolling a folder takes nobody out of a gallery that others share.
    assert cli.main(["enroll", "verify_dataset", "-g", "other.db", "--json"]) == 0
    # Two of the photos are known, though by another name.
    assert '"reused": 22' in capsys.readouterr().out
    assert cli.main(["remove", "other.db", "Ada Lovelace"]) == 0
    assert "2 photos; 24 remain" in capsys.readouterr().out


def test_the_links_lead_somewhere() -> None:
    assert broken_links(GUIDE) == []
