"""What a gallery in Milvus is kept in: names of places, tokens, servers, folders, programs."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from face_encode.errors import GalleryError, InputError, MissingExtraError
from face_encode.gallery import milvus_store
from face_encode.gallery.milvus_store import TOKEN_VARIABLE, is_milvus, milvus_place
from face_encode.gallery.opening import open_gallery
from tests.conftest import REPOSITORY
from tests.gallery import enrolling
from tests.gallery.common import SIXTEEN, Identity, vectors
from tests.gallery.enrolling import IN_A_STEP, digests_of

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")
grpc = pytest.importorskip("grpc")


def test_which_names_are_milvus() -> None:
    for uri in ("people.db", Path("a/people.db"), "http://host", "https://host:19530/x#y"):
        assert is_milvus(uri)
    for uri in ("people.npz", Path("people"), "people", ":memory:", Path("http:/x")):
        assert not is_milvus(uri)
    with pytest.raises(InputError, match="a path is"):
        is_milvus("")
    for uri in ("ftp://me:sesame@host", "s3://bucket/people.db", "://x"):
        with pytest.raises(GalleryError, match="begins with http:// or") as raised:
            is_milvus(uri)
        assert "sesame" not in str(raised.value)


def test_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    place = milvus_place(Path("people.db"))
    assert (place.path, place.address, place.token) == (Path("people.db"), "", "")
    assert (place.label, place.collection) == ("people.db", "face_encode")
    assert milvus_place("people.db", collection="staff").label == "people.db#staff"


@pytest.mark.parametrize(
    ("uri", "address", "collection", "token"),
    [
        ("http://host:19530", "http://host:19530", "face_encode", ""),
        ("https://host", "https://host", "face_encode", ""),
        ("http://host:1/door#staff", "http://host:1/door", "staff", ""),
        ("http://root:sesame@host:1", "http://host:1", "face_encode", "root:sesame"),
        ("http://key@host:1/door#a", "http://host:1/door", "a", "key"),
        ("http://[::1]:19530", "http://[::1]:19530", "face_encode", ""),
    ],
)
def test_an_address(
    uri: str, address: str, collection: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    place = milvus_place(uri)
    assert (place.address, place.collection, place.token) == (address, collection, token)
    assert place.path is None
    for secret in ("sesame", "key"):
        assert secret not in place.label
        assert secret not in repr(place)


def test_what_is_given_comes_before_what_is_in_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "from the environment")
    assert milvus_place("http://host").token == "from the environment"
    assert milvus_place("http://a:b@host").token == "a:b"
    place = milvus_place("http://a:b@host#one", "given", "two")
    assert (place.token, place.collection, place.label) == ("given", "two", "http://host#two")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://", "without a host"),
        ("http://host:port", "Port could not be cast"),
        ("http://host:99999", "out of range"),
        ("http://host#a-b", "letters, digits and underscores"),
        ("http://host#1a", "no digit"),
        ("http://host#" + "a" * 256, "up to 255"),
    ],
)
def test_what_is_no_address_is_refused(uri: str, told: str) -> None:
    with pytest.raises(GalleryError, match=told):
        milvus_place(uri)


TOKEN = "root:sesame"


class Guard(grpc.ServerInterceptor):  # type: ignore[misc, name-defined]
    """Answers as Milvus does where the token is missing or wrong."""

    def intercept_service(self, go_on: Callable[[Any], Any], call: Any) -> Any:
        shown = dict(call.invocation_metadata).get("authorization", "")
        if shown == base64.b64encode(TOKEN.encode()).decode():
            return go_on(call)

        def refuse(request: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """Its host and port."""
    from milvus_lite.adapter.grpc.servicer import MilvusServicer
    from milvus_lite.db import MilvusLite
    from pymilvus.grpc_gen import milvus_pb2_grpc

    database = MilvusLite(str(tmp_path / "store"))
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[Guard()])
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=0)
    database.close()


def test_the_right_token_opens(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_gallery(f"http://{guarded}", encoder=Identity(), token=TOKEN).add(["Ada"], vectors((1, 0)))
    assert len(open_gallery(f"http://{TOKEN}@{guarded}", encoder=Identity())) == 1
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert open_gallery(f"http://{guarded}", encoder=Identity()).people() == {"Ada": 1}


@pytest.mark.parametrize("token", [None, "root:wrong"])
def test_another_token_is_refused_with_the_reason(
    token: str | None, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    began = time.monotonic()
    with pytest.raises(GalleryError) as raised:
        open_gallery(f"http://{guarded}", encoder=Identity(), token=token)
    assert time.monotonic() - began < 15
    assert f"http://{guarded}" in str(raised.value)
    assert "auth check failure" in str(raised.value)
    assert "wrong" not in str(raised.value)


@pytest.mark.parametrize("missing", ["pymilvus", "milvus_lite"])
def test_without_the_extra_it_is_told_how_to_get_it(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[milvus\]"'):
        open_gallery(tmp_path / "people.db", encoder=Identity())


# In a process of its own, where pymilvus was not imported before.
LOGGING = """
import io, logging, logging.config, sys
kept, configure = io.StringIO(), logging.config.dictConfig
handler = logging.handlers.MemoryHandler(9, target=logging.StreamHandler(kept))
logging.getLogger().addHandler(handler)
from face_encode.gallery.milvus_store import check_milvus
assert "pymilvus" not in sys.modules
check_milvus(embedded=True)
assert "pymilvus" in sys.modules
assert logging.config.dictConfig is configure
logging.warning("still here")
handler.flush()
assert kept.getvalue() == "still here\\n", kept.getvalue()
"""


def test_the_logging_of_the_program_is_left_alone() -> None:
    subprocess.run(
        [sys.executable, "-c", "import logging.handlers\n" + LOGGING],
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_a_server_that_is_not_there_is_told_soon_and_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(GalleryError, match=f"http://127.0.0.1:{port} cannot be reached") as raised:
        open_gallery(f"http://root:sesame@127.0.0.1:{port}", encoder=Identity())
    assert time.monotonic() - began < 15
    assert "sesame" not in str(raised.value)


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_store, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(GalleryError, match="cannot be reached"):
            open_gallery(address, encoder=Identity(), token="sesame")


def test_a_damaged_store_is_told(tmp_path: Path) -> None:
    path = tmp_path / "people.db"
    gallery = open_gallery(path, encoder=Identity())
    gallery.add(["Ada"], vectors((1, 0)))
    gallery.close()
    (path / "collections" / "face_encode" / "schema.json").write_text("{")
    with pytest.raises(GalleryError, match="not valid JSON"):
        open_gallery(path, encoder=Identity())


def test_what_cannot_be_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="its folder does not exist"):
        open_gallery(tmp_path / "none" / "people.db", encoder=Identity())
    (tmp_path / "file.db").write_text("no folder")
    with pytest.raises(GalleryError, match="is a file"):
        open_gallery(tmp_path / "file.db", encoder=Identity())


def test_a_store_that_another_program_keeps_is_waited_for_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people.db"
    open_gallery(path, encoder=Identity()).add(["Ada"], vectors((1, 0)))
    milvus_store.embedded_store(path).close()
    code = f"from pymilvus import MilvusClient; MilvusClient({str(path)!r}); print(); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        other.stdout.readline()
        monkeypatch.setattr(milvus_store, "TURN_SECONDS", 0.5)
        with pytest.raises(GalleryError, match="kept open by another program"):
            open_gallery(path, encoder=Identity())
        other.kill()
    assert open_gallery(path, encoder=Identity()).people() == {"Ada": 1}


STEPS = 8


def started(uri: str, who: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(enrolling.__file__)), uri, who, str(STEPS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture(params=["embedded", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "embedded":
        return str(tmp_path / "people.db")
    return f"{request.getfixturevalue('milvus_server')}#t{uuid.uuid4().hex}"


def test_programs_that_enrol_at_once_lose_nothing_also_where_one_is_killed(uri: str) -> None:
    # Both make the gallery, too: there is none yet.
    with started(uri, "ann") as ann, started(uri, "ben") as ben:
        assert ann.stdout is not None
        for step in range(3):
            assert ann.stdout.readline() == f"step {step}\n"
        ann.kill()
        assert ben.wait() == 0
    gallery = open_gallery(uri, encoder=SIXTEEN)
    held = set(gallery.known_photos("eyes"))
    # What was acknowledged is there, whatever became of the rest.
    assert held >= {*digests_of("ben", STEPS), *digests_of("ann", 3)}
    with started(uri, "ann") as again:
        assert again.wait() == 0
    people = gallery.copy()
    assert Counter(people.digests.tolist()) == Counter(
        digests_of("ann", STEPS) + digests_of("ben", STEPS)
    )
    half = STEPS * IN_A_STEP // 2
    assert people.people() == {"both": 2 * half, "ann": half, "ben": half}
    found = gallery.search(people.embeddings)
    assert [match.name for (match,) in found] == people.names.tolist()
