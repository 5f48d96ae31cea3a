"""The guides are run, from top to bottom, by a shell, before a camera on loopback."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.streaming import streaming
from face_encode import cli
from face_encode.gallery.database import DatabaseGallery
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray
from tests.conftest import REPOSITORY, VERIFY_DATASET
from tests.documents.reading import blocks, broken_links, commands

GUIDES = sorted((REPOSITORY / "docs" / "guides").glob("*.md"))


def guide(name: str) -> Path:
    return REPOSITORY / "docs" / "guides" / f"{name}.md"


def photo_of(person: str) -> ImageArray:
    return np.ascontiguousarray(read_image(VERIFY_DATASET / person / "1.jpg")[:, :392])


def run(page: Path, folder: Path) -> str:
    """Run a guide's shell blocks; returns what they print."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    # Not on this machine: installing, and the commands of root.
    script = "\n".join(line for line in lines if not line.startswith(("pip ", "# ")))
    # The port that the guides show may be taken here.
    with socket.create_server(("127.0.0.1", 0)) as free:
        script = script.replace("8000", str(free.getsockname()[1]))
    ada, mei = photo_of("Ada_Mirova"), photo_of("Mei_Oshara")
    with streaming(lambda _: ada, 10) as one, streaming(lambda _: mei, 10) as other:
        programs = Path(sys.executable).parent
        environment = {
            **os.environ,
            "CAMERA": one.address,
            "OTHER_CAMERA": other.address,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
        }
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=900,
            check=True,
        )
    return done.stdout


@pytest.mark.parametrize("page", GUIDES, ids=[page.stem for page in GUIDES])
def test_the_commands_and_links_are_there(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line.split(" > ")[0].removesuffix("\\").removesuffix("&"))
        cli.build_parser().parse_args(words[1:])
    assert broken_links(page) == []


@pytest.mark.slow
def test_a_door_opens(clone: Path) -> None:
    printed = run(guide("door"), clone)
    assert "Ada Lovelace is there" in printed
    assert "opens for Ada Lovelace\nthe door is open\n" in printed


@pytest.mark.slow
def test_attendance_is_a_table(clone: Path) -> None:
    *_, header, row = run(guide("attendance"), clone).splitlines()
    assert header == "day,name,first,last,minutes,stays"
    day, name, first, last, minutes, stays = row.split(",")
    assert (name, stays) == ("Ada Lovelace", "1")
    assert day.count("-") == 2
    assert first <= last
    assert 0.1 <= float(minutes) < 1


@pytest.mark.slow
def test_several_cameras_share_a_gallery_and_a_file(clone: Path) -> None:
    printed = run(guide("cameras"), clone).replace('{"status":"ok"}', "").splitlines()
    assert "front live ['Ada Lovelace']" in printed and "yard live ['Mei_Oshara']" in printed
    there = {line for line in printed if "has left" in line}
    assert there == {"front Ada Lovelace has left", "yard Mei_Oshara has left"}
    events = [json.loads(line) for line in (clone / "all.jsonl").read_text().splitlines()]
    assert sorted(event["event"] for event in events) == sorted(
        2 * ["started", "arrived", "left", "stopped"]
    )


@pytest.mark.slow
def test_a_photo_library_finds_a_person(tmp_path: Path) -> None:
    for person in ("Ada_Mirova", "Mei_Oshara"):
        for photo in (VERIFY_DATASET / person).iterdir():
            (tmp_path / "photos").mkdir(exist_ok=True)
            shutil.copy(photo, tmp_path / "photos" / f"{person}-{photo.name}")
    *_, last = run(guide("library"), tmp_path).splitlines()
    gallery = DatabaseGallery(tmp_path / "people.sqlite", create=False)
    assert gallery.people() == {"Ada Lovelace": 4}
    assert [group.id for group in gallery.unknown.groups()[0]] == ["unknown-2"]
    assert len(list((tmp_path / "faces" / "unknown-2").iterdir())) == 4
    printed = [line for line in (tmp_path / "named.json").read_text().splitlines() if line]
    assert printed and last.startswith("photos/")
