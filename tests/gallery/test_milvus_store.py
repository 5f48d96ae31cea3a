"""What a gallery in Milvus is kept in: names of places, tokens, servers, folders, programs."""

from __future__ import annotations

import base64
import os
import re
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

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError, MissingExtraError, WrongEncoderError
from face_encode.gallery import milvus_store
from face_encode.gallery.base import Gallery
from face_encode.gallery.milvus_store import TOKEN_VARIABLE, is_milvus, milvus_address
from face_encode.gallery.opening import open_gallery
from tests.conftest import REPOSITORY
from tests.gallery import enrolling
from tests.gallery.common import SIXTEEN, Identity, like_faces, vectors
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
    address = milvus_address(Path("people.db"))
    assert (address.folder, address.url, address.token) == (Path("people.db"), "", "")
    assert (address.label, address.collection) == ("people.db", "face_encode")
    assert milvus_address("people.db", collection="staff").label == "people.db#staff"


@pytest.mark.parametrize(
    ("uri", "url", "collection", "token"),
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
    uri: str, url: str, collection: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    address = milvus_address(uri)
    assert (address.url, address.collection, address.token) == (url, collection, token)
    assert address.folder is None
    for secret in ("sesame", "key"):
        assert secret not in address.label
        assert secret not in repr(address)


def test_what_is_given_comes_before_what_is_in_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "from the environment")
    assert milvus_address("http://host").token == "from the environment"
    assert milvus_address("http://a:b@host").token == "a:b"
    address = milvus_address("http://a:b@host#one", "given", "two")
    assert (address.token, address.collection, address.label) == ("given", "two", "http://host#two")


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
        milvus_address(uri)


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
import io, logging, logging.config, logging.handlers, sys
kept, configure = io.StringIO(), logging.config.dictConfig
handler = logging.handlers.MemoryHandler(9, target=logging.StreamHandler(kept))
logging.getLogger().addHandler(handler)
from face_encode.gallery.milvus_store import milvus_address, open_store
assert "pymilvus" not in sys.modules
open_store(milvus_address("people.db"))
assert "pymilvus" in sys.modules
assert logging.config.dictConfig is configure
logging.warning("still here")
handler.flush()
assert kept.getvalue() == "still here\\n", kept.getvalue()
"""


def test_the_logging_of_the_program_is_left_alone(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", LOGGING],
        check=True,
        cwd=tmp_path,
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


REFUSED = "is open in another program.* several programs share a Milvus server"


def test_a_folder_that_another_program_has_open_is_refused(tmp_path: Path) -> None:
    from milvus_lite import MilvusLite

    path = tmp_path / "people.db"
    gallery = open_gallery(path, encoder=Identity())
    gallery.add(["Ada"], vectors((1, 0)))
    gallery.close()
    # Its lock is by open file, not by process: this stands for another program.
    with MilvusLite(str(path)):
        for use in (lambda: open_gallery(path, encoder=Identity()), gallery.people):
            with pytest.raises(GalleryError, match=f"{path} {REFUSED}"):
                use()
    # A gallery that could not be opened does not keep the folder open.
    gallery.close()
    with pytest.raises(WrongEncoderError):
        open_gallery(path, encoder=Identity("two", "f2"))
    MilvusLite(str(path)).close()
    assert gallery.people() == {"Ada": 1}


def test_threads_share_an_open_folder(tmp_path: Path) -> None:
    path = tmp_path / "people.db"

    def enrol(who: str) -> int:
        gallery = open_gallery(path, encoder=SIXTEEN)
        for number, embedding in enumerate(like_faces(5, seed=sum(who.encode()))):
            gallery.add([who], embedding[np.newaxis], [f"{who}-{number}"])
            gallery.search(embedding[np.newaxis])
            if number == 2:
                # The next use of any thread opens the folder again.
                gallery.close()
        return gallery.people()[who]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(enrol, ["ann", "ben", "cy", "di"])) == [5] * 4
    assert len(open_gallery(path, encoder=SIXTEEN)) == 20


STEPS = 8


def started(uri: str, who: str) -> subprocess.Popen[str]:
    """A program that enrols, and then lives until its input is closed."""
    command = [sys.executable, str(Path(enrolling.__file__)), uri, who, str(STEPS)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def await_steps(program: subprocess.Popen[str], steps: int) -> None:
    assert program.stdout is not None
    for step in range(steps):
        assert program.stdout.readline() == f"step {step}\n"


@pytest.mark.slow
def test_programs_take_turns_at_a_folder_and_a_killed_one_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "people.db"
    with started(str(path), "ann") as ann:
        await_steps(ann, 3)
        with pytest.raises(GalleryError, match=f"{path} {REFUSED}"):
            open_gallery(path, encoder=SIXTEEN)
        ann.kill()
    gallery = open_gallery(path, encoder=SIXTEEN)
    # What was acknowledged is there, whatever became of the rest.
    assert set(gallery.known_photos("eyes")) >= set(digests_of("ann", 3))
    with started(str(path), "ben") as ben:
        _, told = ben.communicate()
        assert ben.returncode == 1
        assert re.search(f"GalleryError: .*{path} {REFUSED}", told)
    gallery.close()
    # These two let go of the folder by ending.
    for who in ("ann", "ben"):
        with started(str(path), who) as program:
            program.communicate()
            assert program.returncode == 0
    check_all_are_held(gallery)


@pytest.mark.slow
def test_programs_at_one_server_lose_nothing_also_where_one_is_killed(milvus_server: str) -> None:
    uri = f"{milvus_server}#t{uuid.uuid4().hex}"
    # Both make the gallery, too: there is none yet.
    with started(uri, "ann") as ann, started(uri, "ben") as ben:
        await_steps(ann, 3)
        ann.kill()
        ben.communicate()
        assert ben.returncode == 0
    gallery = open_gallery(uri, encoder=SIXTEEN)
    # What was acknowledged is there, whatever became of the rest.
    held = set(gallery.known_photos("eyes"))
    assert held >= {*digests_of("ben", STEPS), *digests_of("ann", 3)}
    with started(uri, "ann") as again:
        again.communicate()
        assert again.returncode == 0
    check_all_are_held(gallery)


def check_all_are_held(gallery: Gallery) -> None:
    """All that ann and ben enrol is held once, and found."""
    people = gallery.rows()
    assert Counter(people.digests.tolist()) == Counter(
        digests_of("ann", STEPS) + digests_of("ben", STEPS)
    )
    half = STEPS * IN_A_STEP // 2
    assert gallery.people() == {"both": 2 * half, "ann": half, "ben": half}
    found = gallery.search(people.embeddings)
    assert [match.name for (match,) in found] == people.names.tolist()
