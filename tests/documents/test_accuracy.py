"""The promise of the README, on real photos where they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from face_encode import cli


def test_people_are_told_apart(
    lfw_photos: Path, lfw_pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "pairs", "--photos", lfw_photos, "--pairs", lfw_pairs, "--json"]
    assert cli.main([str(argument) for argument in arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["pairs"] == 2200
    assert result["accuracy"] >= 0.988
    # Of some 3,000 photos; a pair without a face in one of them counts as an error above.
    assert len(result["not_found"]) <= 3
