"""docs/search.md is run: its commands, its Python and its links."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from face_encode import cli
from tests.conftest import REPOSITORY
from tests.documents.reading import broken_links, commands, run_python

PAGE = REPOSITORY / "docs" / "search.md"


def test_the_commands_and_the_python_run(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = commands(PAGE)
    assert len(lines) == 2
    for line in lines:
        assert cli.main(shlex.split(line)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"
    assert "Ada Lovelace" in capsys.readouterr().out
    run_python(PAGE)
    # The largest face of the group, and whose it is.
    assert capsys.readouterr().out.startswith("Bruno_Castell 0.98")


def test_the_links_lead_somewhere() -> None:
    assert broken_links(PAGE) == []
