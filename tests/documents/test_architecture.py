"""docs/architecture.md names the layers and files that there are."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "architecture.md"
PACKAGE = REPOSITORY / "face_encode"


def test_the_layers_are_those_of_the_contract() -> None:
    settings = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (contract,) = re.findall(r"^layers = \[\n(.*?)^\]", settings, re.DOTALL | re.MULTILINE)
    layers = re.findall(r'"([^"]+)"', contract)
    text = PAGE.read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```\n(cli\n.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert shown.splitlines() == layers


def test_every_file_that_is_named_is_there_and_every_room_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)/` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {room for room, _ in rows} == {
        path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()
    }
    for room, files in rows:
        for name in re.findall(r"`([\w/]+)`", files):
            path = PACKAGE / room / name
            assert path.is_dir() if name.endswith("/") else path.with_suffix(".py").is_file(), name


def test_every_file_is_named_or_of_a_kind_that_has_a_file_each() -> None:
    rows = re.findall(r"^\| `(\w+)/` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    for room, files in rows:
        there = {path.stem for path in (PACKAGE / room).glob("[!_]*.py")}
        there |= {f"{path.parent.name}/" for path in (PACKAGE / room).glob("*/__init__.py")}
        if room == "cli":
            # A file per family of commands; the line names what they share.
            continue
        if "one file per" in files:
            # What the registry opens: detectors, networks.
            registry = (PACKAGE / room / "registry.py").read_text(encoding="utf-8")
            there -= set(re.findall(rf"^from face_encode\.{room}\.(\w+) import", registry, re.M))
        assert there - set(re.findall(r"`([\w/]+)`", files)) == set(), room
