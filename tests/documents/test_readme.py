"""The README is run: its Python in one go, and its commands on the invented people."""

from __future__ import annotations

import glob
import shlex
from pathlib import Path

import pytest

from face_encode import cli
from tests.conftest import REPOSITORY
from tests.documents.reading import blocks, broken_links, commands, run_python

README = REPOSITORY / "README.md"


def test_the_python_runs(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(blocks(README, "python")) >= 3
    run_python(README)
    assert (clone / "people.sqlite").is_file()
    assert "photos of" in capsys.readouterr().out


def test_the_commands_run(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = commands(README)
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "train":
            # Six people are too few to train on; tests/training runs this on more.
            assert cli.build_parser().parse_args(words).data == Path("my_people")
            continue
        if words[0] in ("serve", "watch"):
            # These run until they are stopped; tests of their own start them.
            assert callable(cli.build_parser().parse_args(words).run)
            continue
        expanded = [path for word in words for path in sorted(glob.glob(word)) or [word]]
        assert cli.main(expanded) == 0, f"{line}\n{capsys.readouterr().err}"


def test_the_links_lead_somewhere() -> None:
    assert broken_links(README) == []


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    assert "python -m pytest" in (REPOSITORY / ".ci" / "run").read_text()
    assert any("python -m pytest" in block for block in blocks(README, "sh"))
