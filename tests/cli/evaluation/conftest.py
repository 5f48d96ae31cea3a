"""Commands run in this process, on a few real photos where there are any."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from face_encode.cli.evaluate import add_commands

Run: TypeAlias = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], cache_folder: Path) -> Run:
    """Run a command: what it printed, or with ``--json`` the value."""

    def run_command(*arguments: object) -> Any:
        parser = argparse.ArgumentParser()
        add_commands(parser.add_subparsers(required=True))
        options = parser.parse_args([str(argument) for argument in arguments])
        capsys.readouterr()
        assert options.run(options) == 0
        output = capsys.readouterr().out
        return json.loads(output) if "--json" in arguments else output

    return run_command


@pytest.fixture(scope="session")
def several(lfw_photos: Path) -> list[Path]:
    """Folders of people with at least four photos."""
    folders = [each for each in sorted((lfw_photos).iterdir()) if each.is_dir()]
    return [each for each in folders if len(list(each.iterdir())) >= 4][:8]


def link_people(target: Path, people: list[Path], first: int, last: int) -> Path:
    """A folder of people with some of each one's photos, as links."""
    for person in people:
        folder = target / person.name
        folder.mkdir(parents=True)
        for photo in sorted(person.iterdir())[first:last]:
            (folder / photo.name).symlink_to(photo)
    return target


@pytest.fixture
def link() -> Callable[[Path, list[Path], int, int], Path]:
    """``link_people``, for tests, which cannot import from here."""
    return link_people
