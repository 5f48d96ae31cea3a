"""docs/encoders.md is run, as far as it needs no download, and names every known encoder."""

from __future__ import annotations

import shlex

import pytest

from face_encode import cli
from face_encode.encoders.registry import KNOWN_ENCODERS
from face_encode.weights import KNOWN_WEIGHTS
from tests.conftest import REPOSITORY
from tests.documents.reading import broken_links, commands, run_python

PAGE = REPOSITORY / "docs" / "encoders.md"


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run_python(PAGE)
    printed = capsys.readouterr().out
    assert all(name in printed for name in KNOWN_ENCODERS)


def test_the_commands_are_understood() -> None:
    assert len(commands(PAGE)) >= 2
    for command in commands(PAGE):
        cli.build_parser().parse_args(shlex.split(command)[1:])


def test_every_encoder_and_every_address_is_named_and_the_links_lead_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in KNOWN_ENCODERS:
        assert f"`{name}`" in text
    for known in KNOWN_WEIGHTS.values():
        assert known.url is None or f"<{known.url}>" in text
    assert broken_links(PAGE) == []
