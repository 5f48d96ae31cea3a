"""The client against services in processes of their own, and against what is none."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

pytest.importorskip("httpx")
pytest.importorskip("fastapi")

from benchmarks.serving import RunningService
from face_encode import client as module
from face_encode.client import Client
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError, ServiceError
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.unknown import Sight
from face_encode.server import schemas
from face_encode.types import Embeddings
from tests.conftest import EXAMPLES, VERIFY_DATASET

READ, WRITE = "reader-0123456789abcdef", "writer-0123456789abcdef"
ADA, BRUNO = ("Ada_Mirova", "Bruno_Castell")
STRANGER = EXAMPLES / "stranger.jpg"


def photo(name: str, number: int) -> Path:
    return VERIFY_DATASET / name / f"{number}.jpg"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's gallery."""
    return tmp_path_factory.mktemp("client") / "people.sqlite"


@pytest.fixture(scope="module")
def url(people: Path) -> Iterator[str]:
    """The address of a service that keeps crops, and takes two tokens."""
    options = ("--people", str(people), "--detector", "dlib_hog", "--workers", "1", "--keep-crops")
    tokens = {"FACE_ENCODE_TOKEN": READ, "FACE_ENCODE_WRITE_TOKEN": WRITE}
    with RunningService(*options, environment=tokens) as service:
        yield f"http://127.0.0.1:{service.port}"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A client that may write, with two photos of Ada and one of Bruno enrolled."""
    with Client(url, WRITE) as client:
        for person in client.people()["people"]:
            client.remove(person["name"], forget=True)
        client.enrol(ADA, [photo(ADA, 1), str(photo(ADA, 2))])
        client.enrol(BRUNO, [photo(BRUNO, 1).read_bytes()])
        yield client


def test_faces_are_named_compared_and_embedded(client: Client) -> None:
    found = client.match(EXAMPLES / "ada_mirova.jpg", candidates=2, thorough=False)
    (face,) = found["faces"]
    assert (face["name"], face["is_match"]) == (ADA, True)
    assert [each["name"] for each in face["candidates"]] == [ADA, BRUNO]
    assert client.match(STRANGER, max_faces=1)["faces"][0]["is_match"] is False
    assert client.match(STRANGER, threshold=-1)["faces"][0]["is_match"] is True
    assert client.verify(photo(ADA, 1), photo(ADA, 2))["is_match"] is True
    assert client.verify(photo(ADA, 1), photo(ADA, 2), threshold=1)["is_match"] is False
    assert client.verify_person(ADA, photo(ADA, 3))["is_match"] is True
    assert client.verify_person(BRUNO, photo(ADA, 3))["is_match"] is False
    (embedded,) = client.embed(STRANGER, max_faces=1)["faces"]
    assert len(embedded["embedding"]) == 128


def test_people_are_enrolled_corrected_and_removed(client: Client) -> None:
    report = client.enrol("Zoë 王", [STRANGER, photo(ADA, 3)], refuse_mistakes=True)
    assert (report["name"], report["enrolled"]) == ("Zoë 王", 1)
    assert report["left_out"][0]["photo"] == "3.jpg"
    assert client.people(search="zoe\u0308")["total"] == 1
    assert client.note("Zoë 王", "a guest")["note"] == "a guest"
    assert client.set_threshold("Zoë 王", 0.95)["threshold"] == 0.95
    assert client.set_threshold("Zoë 王", None)["threshold"] is None
    assert client.rename("Zoë 王", "Zoë")["name"] == "Zoë"
    assert client.person("zoë")["photos"] == 1
    (own,) = client.photos("Zoë")
    assert own["source"] == "stranger.jpg"
    assert client.crop(own["id"]).startswith(b"\xff\xd8")
    assert client.set_picture(own["id"])["name"] == "Zoë"
    assert client.move_photo(own["id"], BRUNO)["name"] == BRUNO
    removed = client.remove_photo(own["id"])
    assert (removed["name"], removed["photos"]) == (BRUNO, 1)
    undone = client.undo(removed["change"])
    assert undone["undone"]["action"] == "remove"
    merged = client.merge(BRUNO, into=ADA)
    assert merged["photos"] == 4
    client.undo()
    assert {each["name"]: each["photos"] for each in client.people()["people"]} == {
        ADA: 2,
        BRUNO: 2,
    }
    assert client.remove(BRUNO)["photos"] == 2
    assert client.changes(since=merged["change"] or 0)[-1]["action"] == "remove"
    settings = client.settings()
    assert (settings["people"], settings["may_write"]) == (1, True)


def test_people_without_a_name_are_named_merged_and_dismissed(
    client: Client, people: Path, encoder: Encoder
) -> None:
    with closing(DatabaseGallery(people, encoder)) as gallery:
        embeddings: Embeddings = np.eye(4, encoder.embedding_size, dtype=np.float32)
        for face in embeddings:
            gallery.unknown.see(Sight(face, PhotoDetails("hall", crop=b"jpeg")), 0.9)
    found = client.unknown()
    assert found["total"] == 4
    (one, two, three, four) = sorted(person["id"] for person in found["people"])
    (kept,) = found["people"][0]["faces"]
    assert (kept["source"], client.unknown_crop(kept["id"])) == ("hall", b"jpeg")
    assert client.name_unknown(one, BRUNO)["photos"] == 1
    assert client.merge_unknown(three, into=two)["id"] == two
    assert client.dismiss_unknown(four)["change"] is not None
    assert [person["id"] for person in client.unknown(start=0, count=9)["people"]] == [two]
    assert client.changes()[-1]["unknown"] == [four]
    with pytest.raises(ServiceError, match=f"no {four}"):
        client.name_unknown(four, ADA)
    client.dismiss_unknown(two)


def test_photos_are_looked_at_before_and_a_face_is_chosen(client: Client) -> None:
    told = client.check(ADA, [EXAMPLES / "group.jpg", photo(BRUNO, 2)])
    group, other = told["photos"]
    assert (told["name"], group["photo"], len(group["faces"])) == (ADA, "group.jpg", 5)
    assert other["faces"][0]["doubts"][0]["person"] == BRUNO
    assert group["face"] is not None
    report = client.enrol(ADA, [EXAMPLES / "group.jpg"], faces=[group["face"]])
    assert report["enrolled"] == 1
    assert client.photos(ADA)[-1]["box"] == group["faces"][group["face"]]["bounding_box"]


def test_what_the_service_refuses_is_an_error(client: Client, url: str, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="Nobody of that name") as caught:
        client.person("Nobody")
    assert (caught.value.status, caught.value.kind) == (404, "nobody-of-that-name")
    with pytest.raises(ServiceError, match=r"notes\.txt: not a photo"):
        (tmp_path / "notes.txt").write_text("no photo")
        client.enrol("Nobody", [tmp_path / "notes.txt"])
    with Client(url, READ) as reader, pytest.raises(ServiceError) as caught:
        reader.remove(ADA)
    assert (caught.value.status, caught.value.kind) == (403, "read-only-token")
    with Client(url) as nobody, pytest.raises(ServiceError) as caught:
        nobody.settings()
    assert caught.value.kind == "token-missing"
    with Client(f"{url}/below/a/path", WRITE) as lost, pytest.raises(ServiceError) as caught:
        lost.settings()
    assert caught.value.status == 404


def test_wrong_arguments_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    for url in ("hall:8000", "ftp://hall", "http://", "http://hall:port"):
        with pytest.raises(InputError, match="address"):
            Client(url)
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(InputError, match="cannot be read"):
            client.match(tmp_path / "missing.jpg")
        none_or_one: list[Any] = [[], "1.jpg", b"\xff\xd8"]
        for photos in none_or_one:
            with pytest.raises(InputError, match="list of at least one photo"):
                client.enrol("Ada", photos)
        for name in ("", ".", "../match"):
            with pytest.raises(InputError, match="begins with no dot"):
                client.remove(name)
        for unknown in ("", "..", "Ada", "unknown-1/../x"):
            with pytest.raises(InputError, match="unknown-7 or so"):
                client.dismiss_unknown(unknown)
        with pytest.raises(ServiceError, match="cannot be reached") as caught:
            client.settings()
    assert (caught.value.status, caught.value.kind) == (None, "not-reached")


WRONG_TOKENS = ["…", "schlüssel-0123456789", "reader-0123456789abcdef\n", "", " "]


@pytest.mark.parametrize("token", WRONG_TOKENS)
def test_a_token_that_no_header_holds_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(InputError, match=f"ASCII. Received: {len(token)} characters$"):
        Client("http://127.0.0.1:1", token)


def test_what_is_no_photo_is_refused() -> None:
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(InputError, match=r"'a\\x00b\.jpg' cannot be read"):
            client.match("a\0b.jpg")
        no_photos: list[Any] = [5, None, [b"\xff\xd8"]]
        for each in no_photos:
            with pytest.raises(InputError, match=f"Received: {type(each).__name__}"):
                client.match(each)


def test_what_no_request_holds_is_refused() -> None:
    with Client("http://127.0.0.1:1") as client:
        half = "\ud800"
        for refused in (
            lambda: client.person(half),
            lambda: client.camera_frame(half),
            lambda: client.rename("Ada", half),
            lambda: client.people(half),
            lambda: client.enrol(half, [b"\xff\xd8"]),
            lambda: client.person("x" * 70_000),
            lambda: client.set_threshold("Ada", math.nan),
        ):
            with pytest.raises(InputError, match="can hold"):
                refused()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_photo_is_sent_as_bytes_of_any_kind(kind: Any) -> None:
    with answering(GOOD, GOOD) as (url, asked), Client(url) as client:
        assert client.match(kind(b"\xff\xd8")) == {"faces": [], "notes": []}
        with pytest.raises(InputError, match="list of at least one photo"):
            client.enrol("Ada", kind(b"\xff\xd8"))
    assert len(asked) == 1


Answer = tuple[int, dict[str, str], str]


@contextmanager
def answering(*answers: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers in turn; its address, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Keep the tests' output clean."""

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, headers, text = answers[len(asked)]
            asked.append(f"{self.command} {self.path}")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/faces", asked
    finally:
        server.shutdown()
        server.server_close()


def problem(kind: str) -> str:
    return f'{{"type": "urn:face-encode:problem:{kind}", "detail": "Why."}}'


FULL: Answer = (429, {"Retry-After": "0"}, problem("too-busy"))
GOOD: Answer = (200, {}, '{"faces": [], "notes": []}')


def test_a_service_without_room_is_asked_again_and_not_for_ever() -> None:
    with answering(FULL, FULL, GOOD) as (url, asked), Client(url) as client:
        assert client.match(b"photo")["faces"] == []
    assert asked == ["POST /faces/v1/match"] * 3
    with answering(*[FULL] * 3) as (url, asked), Client(url, retries=2) as client:
        with pytest.raises(ServiceError) as caught:
            client.match(b"photo")
        assert (caught.value.kind, caught.value.detail, len(asked)) == ("too-busy", "Why.", 3)


@pytest.mark.parametrize(
    "answer",
    [
        (429, {"Retry-After": "61"}, problem("too-busy")),
        (503, {}, problem("took-too-long")),
        # The change may still be made: made again it would be another one.
        (503, {"Retry-After": "0"}, problem("took-too-long")),
        (422, {"Retry-After": "0"}, problem("not-valid")),
    ],
)
def test_what_would_not_help_is_not_tried(answer: Answer) -> None:
    with answering(answer) as (url, asked), Client(url) as client:
        with pytest.raises(ServiceError):
            client.undo()
        assert asked == ["POST /faces/v1/undo"]


@pytest.mark.parametrize("text", ["<html>Bad gateway", "[]", '{"type": 1, "detail": ""}', "null"])
@pytest.mark.parametrize("status", [502, 404])
def test_an_answer_of_something_else_is_told(status: int, text: str) -> None:
    with answering((status, {}, text)) as (url, _), Client(url) as client:
        with pytest.raises(ServiceError, match="not answered by the service") as caught:
            client.settings()
        assert (caught.value.status, caught.value.kind) == (status, "not-the-service")


def test_a_page_in_place_of_an_answer_is_told() -> None:
    with (
        answering((200, {}, "<html>")) as (url, _),
        Client(url) as client,
        pytest.raises(ServiceError, match="not answered by the service"),
    ):
        client.settings()


@pytest.mark.parametrize(
    ("own", "answer"),
    [
        ("Matched", "MatchAnswer"),
        ("MatchedFace", "MatchedFace"),
        ("Candidate", "Candidate"),
        ("Verified", "VerifyAnswer"),
        ("PersonVerified", "PersonVerifyAnswer"),
        ("Embedded", "EmbedAnswer"),
        ("EmbeddedFace", "EmbeddedFace"),
        ("Analyzed", "AnalyzeAnswer"),
        ("AnalyzedFace", "AnalyzedFace"),
        ("Enrolled", "EnrolmentAnswer"),
        ("LeftOut", "LeftOutPhoto"),
        ("Person", "Person"),
        ("ChangedPerson", "ChangedPerson"),
        ("People", "PeopleAnswer"),
        ("EnrolledPhoto", "EnrolledPhoto"),
        ("Changed", "ChangedAnswer"),
        ("AuditedChange", "AuditedChange"),
        ("Undone", "UndoneAnswer"),
        ("UnknownPeople", "UnknownAnswer"),
        ("UnknownPerson", "UnknownPerson"),
        ("UnknownFace", "UnknownFace"),
        ("ChangedUnknown", "ChangedUnknown"),
        ("Camera", "CameraAnswer"),
        ("CameraFace", "CameraFace"),
        ("PersonThere", "PersonThere"),
        ("Removed", "RemovedAnswer"),
        ("UnknownLikeness", "UnknownLikeness"),
        ("Settings", "SettingsAnswer"),
        ("BoundingBox", "BoundingBox"),
    ],
)
def test_answers_are_typed_as_the_service_describes_them(own: str, answer: str) -> None:
    described = set(getattr(schemas, answer).model_fields)
    assert set(get_type_hints(getattr(module, own))) == described


def test_the_client_loads_no_other_part_of_the_package() -> None:
    script = "import sys, face_encode.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    own = {name for name in loaded if name.partition(".")[0] == "face_encode"}
    assert own == {"face_encode", "face_encode.client", "face_encode.errors"}
    assert not {"numpy", "tensorflow", "keras", "PIL", "fastapi"} & set(loaded)


def test_errors_pass_from_one_process_to_another() -> None:
    error = ServiceError("No face.", 422, "no-face")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, again.kind) == ("No face.", 422, "no-face")
