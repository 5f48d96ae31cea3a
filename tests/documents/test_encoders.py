"""docs/encoders.md is run, as far as it needs no download, and names what the tables hold."""

from __future__ import annotations

import re
import shlex

import pytest

from face_encode import cli
from face_encode.encoders.registry import KNOWN_ENCODERS
from face_encode.weights import KNOWN_WEIGHTS
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "encoders.md").read_text(encoding="utf-8")


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        exec(compile(block, "encoders.md", "exec"), {})
    printed = capsys.readouterr().out
    assert all(name in printed for name in KNOWN_ENCODERS)


def test_the_commands_are_understood() -> None:
    commands = re.findall(r"^(face-encode .+)$", PAGE, flags=re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        cli.build_parser().parse_args(shlex.split(command)[1:])


def test_every_encoder_and_every_address_is_named() -> None:
    for name in KNOWN_ENCODERS:
        assert f"`{name}`" in PAGE
    for known in KNOWN_WEIGHTS.values():
        assert known.url is None or f"<{known.url}>" in PAGE


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        if not target.startswith("https://"):
            assert (REPOSITORY / "docs" / target).exists(), target
