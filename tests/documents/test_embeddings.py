"""The Python of docs/embeddings.md is run, and its commands are parsed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from face_encode import cli
from tests.conftest import REPOSITORY, VERIFY_DATASET

GUIDE = (REPOSITORY / "docs" / "embeddings.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)


def test_the_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "verify_dataset").symlink_to(VERIFY_DATASET)
    monkeypatch.chdir(tmp_path)
    code = blocks("python")
    assert len(code) == 1
    exec(compile(code[0], "docs/embeddings.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "24 faces in 24 photos embedded" in printed
    assert "(24, 128) ()" in printed


def test_the_commands_are_there() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) >= 4
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        assert program == "face-encode"
        cli.build_parser().parse_args(words)
