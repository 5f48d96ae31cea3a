"""A service, another one, and the command line on one gallery: each sees what the others change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from benchmarks.serving import Client, Reply, RunningService
from face_encode.cli import main
from face_encode.encoders.encoder import Encoder
from face_encode.gallery.audit import replayed
from face_encode.gallery.database import DatabaseGallery
from tests.conftest import VERIFY_DATASET

pytestmark = pytest.mark.skipif(os.name != "posix", reason="speaks of processes the POSIX way")

ADA, BRUNO, ELIN = "Ada_Mirova", "Bruno_Castell", "Elin_Sorrel"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beside") / "people.sqlite"


class Visitor:
    """Asks a service, each time over a connection of its own: an idle one is closed."""

    def __init__(self, port: int) -> None:
        self._port = port

    def request(self, *request: object) -> Reply:
        with closing(Client(self._port)) as client:
            return client.request(*request)  # type: ignore[arg-type]

    def enrol(self, name: str, content: bytes) -> Reply:
        with closing(Client(self._port)) as client:
            return client.post("/v1/people", [("photos", content)], {"name": name})

    def named(self, content: bytes) -> str | None:
        with closing(Client(self._port)) as client:
            (face,) = client.post("/v1/match", [("photo", content)]).json["faces"]
        return face["name"] if face["is_match"] else None


@pytest.fixture(scope="module")
def clients(path: Path) -> Iterator[tuple[Visitor, Visitor]]:
    """Two services on one file, in processes of their own."""
    options = ("--people", str(path), "--keep-crops", "--detector", "dlib_hog", "--workers", "1")
    with RunningService(*options) as first, RunningService(*options) as second:
        yield Visitor(first.port), Visitor(second.port)


def photo(name: str, number: int) -> bytes:
    return (VERIFY_DATASET / name / f"{number}.jpg").read_bytes()


def enroll(path: Path, folder: Path, *names: str) -> None:
    """Enrol people by the command line, beside those in the gallery."""
    for name in names:
        shutil.copytree(VERIFY_DATASET / name, folder / name)
    model = ("--detector", "dlib_hog")
    assert main(["enroll", str(folder), "-g", str(path), "--add", *model]) == 0


def test_what_the_command_line_enrols_is_recognised_and_stays(
    path: Path, clients: tuple[Visitor, Visitor], tmp_path: Path
) -> None:
    assert [client.named(photo(ADA, 1)) for client in clients] == [None, None]
    enroll(path, tmp_path / "people", ADA, BRUNO)
    assert [client.named(photo(ADA, 1)) for client in clients] == [ADA, ADA]
    reply = clients[0].enrol(ELIN, photo(ELIN, 1))
    assert reply.status == 200
    # Another enrolment beside the running services takes nobody out.
    enroll(path, tmp_path / "more", "Teo_Varga")
    for client in clients:
        people = client.request("GET", "/v1/people").json["people"]
        assert [person["name"] for person in people] == [ADA, BRUNO, ELIN, "Teo_Varga"]
        assert client.named(photo(ELIN, 2)) == ELIN


def test_whom_the_command_line_removes_is_gone_for_good(
    path: Path, clients: tuple[Visitor, Visitor], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["remove", str(path), "teo_varga"]) == 0
    assert "removed: 4 photos; " in capsys.readouterr().out
    assert [client.named(photo("Teo_Varga", 1)) for client in clients] == [None, None]
    # The next change of the service does not write the person back.
    body, json = b'{"name": "Elin"}', {"Content-Type": "application/json"}
    assert clients[0].request("PATCH", f"/v1/people/{ELIN}", body, json).status == 200
    for client in clients:
        assert client.request("GET", "/v1/people/Teo_Varga").status == 404
    told = clients[1].request("GET", "/v1/changes").json["changes"]
    assert [each["action"] for each in told[-2:]] == ["remove", "rename"]
    assert "Teo_Varga" in told[-2]["removed"]


def test_a_photo_enrolled_by_one_service_is_taken_out_by_another(
    path: Path, clients: tuple[Visitor, Visitor], encoder: Encoder
) -> None:
    one, other = clients
    # A photo of Bruno under the name of Ada.
    reply = one.enrol(ADA, photo(BRUNO, 2))
    assert any(f"the same photo is enrolled as {BRUNO}" in note for note in reply.json["notes"])
    photos = other.request("GET", f"/v1/people/{quote(ADA)}/photos").json["photos"]
    assert other.request("GET", f"/v1/photos/{photos[-1]['id']}/crop").content[:2] == b"\xff\xd8"
    removed = other.request("DELETE", f"/v1/photos/{photos[-1]['id']}").json
    assert removed["name"] == ADA
    assert len(one.request("GET", f"/v1/people/{ADA}/photos").json["photos"]) == len(photos) - 1
    # Only the service that removed it can put it back.
    undo = f"/v1/undo?change={removed['change']}"
    assert one.request("POST", undo).status == 409
    assert other.request("POST", undo).status == 200
    assert len(one.request("GET", f"/v1/people/{ADA}/photos").json["photos"]) == len(photos)
    with closing(DatabaseGallery(path, encoder)) as gallery:
        photos_of = {name: {each.id for each in gallery.photos(name)} for name in gallery.people()}
        assert replayed(gallery.changes()) == photos_of
