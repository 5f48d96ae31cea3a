"""docs/enrolment.md is run, and its commands are parsed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from face_encode import cli, open_gallery
from tests.conftest import REPOSITORY
from tests.documents.reading import broken_links, commands, run_python

PAGE = REPOSITORY / "docs" / "enrolment.md"


def test_the_python_runs(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_python(PAGE)
    assert "24 photos of 6 people enrolled" in capsys.readouterr().out
    assert open_gallery(clone / "people.sqlite").people()["Ada Lovelace"] == 4


def test_the_commands_and_links_are_there() -> None:
    lines = commands(PAGE)
    assert len(lines) == 3
    for line in lines:
        cli.build_parser().parse_args(shlex.split(line)[1:])
    assert broken_links(PAGE) == []
