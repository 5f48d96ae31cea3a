"""Whatever a command writes of people is for its owner only, unless a user let others in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from face_encode import cli
from face_encode.files import make_private_folder
from face_encode.pipeline.checkpoint import StoreFile
from face_encode.video.events import EventFile
from tests.conftest import EXAMPLES, VERIFY_DATASET

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")

ADA = str(EXAMPLES / "ada_mirova.jpg")


@pytest.fixture(autouse=True)
def in_the_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of the test's own, and a umask that lets everybody read."""
    monkeypatch.chdir(tmp_path)
    former = os.umask(0o022)
    yield
    os.umask(former)


def modes(folder: Path) -> dict[str, int]:
    """The permissions of everything below a folder."""
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
    }


def assert_private(folder: Path, count: int) -> None:
    found = modes(folder)
    wrong = {
        name: oct(mode)
        for name, mode in found.items()
        if mode != (0o700 if (folder / name).is_dir() else 0o600)
    }
    assert not wrong
    assert len(found) >= count


def test_what_commands_write_of_people_is_private(tiny_file: Path, tmp_path: Path) -> None:
    people, model = str(VERIFY_DATASET), ["--model", str(tiny_file), "--detector", "dlib_hog"]
    for command in (
        ["enroll", people, "-g", "people.sqlite", "--keep-crops", *model],
        ["enroll", people, "-g", "new/people.npz", *model],
        ["embed", people, "-o", "embeddings/new/e.npz", *model],
        ["match", "people.sqlite", ADA, "--annotate", "drawn", *model],
        ["photos", "people.sqlite", "Ada_Mirova", "--save-crops", "crops"],
        ["export", "people.sqlite", "-o", "exported/copy.sqlite"],
        ["export", "people.sqlite", "-o", "exported/people.npz"],
        ["export", "people.sqlite", "-o", "exported/crops"],
        ["export", "people.sqlite", "--person", "Ada_Mirova", "-o", "exported/ada.zip"],
    ):
        assert cli.main(command) == 0
    crops = len(list(VERIFY_DATASET.glob("*/*.jpg")))
    ada = len(list((VERIFY_DATASET / "Ada_Mirova").iterdir()))
    assert_private(tmp_path, 1 + 2 + 3 + 2 + 1 + ada + 4 + 1 + 6 + crops)


def test_a_user_lets_others_in_and_it_stays_so(tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    model = ["--model", str(tiny_file), "--detector", "dlib_hog"]
    command = ["enroll", str(VERIFY_DATASET), "-g", "shared/people.npz", *model]
    assert cli.main(command) == 0
    (tmp_path / "shared" / "people.npz").chmod(0o640)
    assert cli.main([*command, "--any-quality"]) == 0
    assert modes(tmp_path) == {"shared": 0o755, "shared/people.npz": 0o640}


def test_checkpoints_and_events_are_private(tmp_path: Path) -> None:
    store = StoreFile(tmp_path / "new" / "run", {"a": 1}, ValueError)  # type: ignore[arg-type]
    store.put([(b"photo", b"content")])
    events = EventFile(tmp_path / "logs" / "today" / "events.jsonl")
    events.write({"name": "Ada"})
    # The checkpoint, and what SQLite keeps beside it.
    assert_private(tmp_path, 2 + 1 + 3)
    events.close()
    store.close()


def test_folders_that_were_there_stay_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(0o755)
    make_private_folder(tmp_path / "mine" / "new" / "one")
    make_private_folder(tmp_path / "mine")
    assert modes(tmp_path) == {"mine": 0o755, "mine/new": 0o700, "mine/new/one": 0o700}
