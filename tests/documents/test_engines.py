"""docs/engines.md is run, and its commands are understood."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from face_encode import cli
from face_encode.encoders.engines import engine_names
from tests.conftest import REPOSITORY
from tests.documents.reading import broken_links, commands, run_python

PAGE = REPOSITORY / "docs" / "engines.md"


@pytest.mark.slow
def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    monkeypatch.chdir(tmp_path)
    run_python(PAGE)
    assert (tmp_path / "face.onnx.json").is_file()


def test_the_commands_are_understood() -> None:
    assert len(commands(PAGE)) >= 3
    for command in commands(PAGE):
        cli.build_parser().parse_args(shlex.split(command)[1:])


def test_every_engine_is_named_and_the_links_lead_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in engine_names())
    assert broken_links(PAGE) == []
