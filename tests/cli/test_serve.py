"""``face-encode serve``: a process of its own, spoken to over the wire."""

from __future__ import annotations

import gc
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.serving import Client, RunningService
from face_encode.cli import main
from face_encode.cli.serve import gallery_path
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server import attack, hostile
from tests.server.killing import Expected, kill_while_changing

pytestmark = pytest.mark.skipif(os.name != "posix", reason="speaks of processes the POSIX way")

PHOTO = (EXAMPLES / "ada_mirova.jpg").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(VERIFY_DATASET, folder / "people")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[RunningService]:
    """On a folder of people, with tokens, and with little patience."""
    people = str(folder / "people")
    options = ("--people", people, "--detector", "dlib_hog", "--workers", "1", *hostile.OPTIONS)
    with RunningService(*options, environment=hostile.TOKENS) as service:
        yield service


@pytest.mark.parametrize("given", [".", "./", "../people", "below/.."])
def test_the_gallery_lies_beside_the_folder_however_that_is_given(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "people" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "people")
    assert gallery_path(given) == tmp_path / "people.sqlite"
    assert gallery_path("..") == Path(f"{tmp_path}.sqlite")


def test_a_folder_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"give a folder with a name.*Received: /"):
        gallery_path("/")


def test_a_folder_is_enrolled_into_a_file_beside_it(service: RunningService, folder: Path) -> None:
    assert "24 photos of 6 people enrolled" in service.lines
    assert service.lines[-1].startswith(
        f"serving 6 people of {folder / 'people.sqlite'} at http://"
    )
    # Only its owner may read it, and the files that SQLite puts beside it.
    files = list(folder.glob("people.sqlite*"))
    assert files and all(file.stat().st_mode & 0o077 == 0 for file in files)
    with closing(Client(service.port, hostile.READ)) as client:
        (face,) = client.post("/v1/match", [("photo", PHOTO)]).json["faces"]
    assert (face["name"], face["is_match"]) == ("Ada_Mirova", True)


@pytest.mark.slow
def test_every_hostile_request_is_refused_and_the_next_good_one_answered(
    service: RunningService,
) -> None:
    kinds = {each.kind for each in hostile.hostile_requests(100)}
    outcomes = list(hostile.play(service.port, len(kinds)))
    assert {each.kind for each in outcomes} == kinds
    assert [each for each in outcomes if each.status not in range(400, 500)] == []
    assert [each for each in outcomes if not each.problem] == []
    assert {each.good_status for each in outcomes} == {200}
    statuses = {each.kind: each.status for each in outcomes}
    assert statuses["slow body"] == statuses["slow headers"] == 408
    assert statuses["announced too large"] == statuses["too large unannounced"] == 413
    assert statuses["wrong token"] == 401
    with closing(Client(service.port, hostile.READ)) as client:
        assert client.request("GET", "/v1/people").json["total"] == 6


def test_a_connection_that_says_nothing_is_closed(service: RunningService) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=120) as silent:
        assert b" 408 " in silent.recv(1_000)


@pytest.mark.slow
def test_killed_at_any_moment_it_loses_nothing_acknowledged(
    tmp_path: Path, encoder: Encoder
) -> None:
    expected = Expected()
    for kill, seconds in enumerate((0.3, 1.0)):
        done = kill_while_changing(tmp_path, encoder, expected, f"Kill {kill}", seconds)
        assert done.acknowledged and done.faults == [] and done.orphans == []
    people = str(tmp_path / "people.sqlite")
    with (
        RunningService("--people", people, "--workers", "1") as again,
        closing(Client(again.port)) as client,
    ):
        listed = client.request("GET", "/v1/people").json["people"]
        assert {person["name"]: person["photos"] for person in listed} == {
            name: photos for name, photos in expected.photos.items() if photos
        }
        assert again.stop() in (0, -15)


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Return the message of a service that does not start."""
    assert main(["serve", *options]) == 1
    return capsys.readouterr().err


def test_elsewhere_it_does_not_start_without_a_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = ("--people", str(tmp_path / "people.sqlite"))
    for host in ("0.0.0.0", "::", "192.0.2.1", "hall.example"):
        assert "takes a token" in refused(capsys, *people, "--host", host)
    message = refused(capsys, *people, "--allowed-host", "face.example")
    assert "through a proxy" in message


def test_a_port_that_is_taken_is_reported_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        message = refused(capsys, "--people", str(tmp_path / "people.sqlite"), "--port", port)
    assert "cannot serve at 127.0.0.1" in message and "in use" in message


def test_what_was_opened_is_closed_when_the_start_fails(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.sqlite").write_bytes(b"damaged")
    refused(capsys, "--port", "0", "--people", str(tmp_path / "people.sqlite"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        refused(capsys, "--people", str(tmp_path / "new.sqlite"), "--port", port)
    (tmp_path / "nobody").mkdir()
    refused(capsys, "--port", "0", "--people", str(tmp_path / "nobody"))
    gc.collect()
    assert [str(each.message) for each in recwarn if each.category is ResourceWarning] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--people", "people.txt"), "ends in .sqlite. Received: people.txt"),
        (("--people", "people.npz"), "face-encode import people.npz people.sqlite"),
        (("--people", "people.db"), "copy them from Milvus into one"),
        (("--people", ""), "a path is text"),
        (("--people", "a.sqlite", "--token-file", "nowhere"), "token file nowhere cannot be read"),
        (("--people", "/dev/null/a.sqlite"), "the gallery /dev/null/a.sqlite cannot be read"),
    ],
)
def test_wrong_options_are_reported_in_one_line(
    options: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, "--port", "0", *options)
    assert words in message and message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_gallery_is_reported_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "people.sqlite"
    path.write_bytes(b"damaged")
    message = refused(capsys, "--port", "0", "--people", str(path))
    assert "is not a gallery database, or damaged" in message
    assert path.read_bytes() == b"damaged"


@pytest.mark.slow
def test_under_attack_honest_clients_are_answered(tmp_path: Path) -> None:
    (tmp_path / "people").symlink_to(VERIFY_DATASET)
    options = ("--people", str(tmp_path / "people"), "--detector", "dlib_hog", "--workers", "2")
    photos = attack.laborious_photos()
    with RunningService(*options, environment=hostile.TOKENS) as service:
        seen = attack.attack(service, 20, photos)
    assert set(seen.honest) == {200} and len(seen.seconds) > attack.HONEST
    # Refused, each of them, but for the one that is within the bounds and shows nobody.
    assert seen.attacks.keys() <= {200, 422} and seen.attacks[422]
    assert seen.held > attack.CONNECTIONS
    assert set(seen.ready) == {200}
