"""For the tests of galleries: each kind of them, a Milvus server, both ways to open a file."""

from __future__ import annotations

import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from face_encode.gallery import npz
from face_encode.gallery.base import EncoderIdentity, Gallery
from face_encode.gallery.encryption import KEY_VARIABLE
from face_encode.gallery.opening import open_gallery
from tests.gallery.stores import Store


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Milvus server: Milvus Lite's own, in a process of its own."""
    pytest.importorskip("milvus_lite")
    folder = tmp_path_factory.mktemp("milvus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1"]
    command += ["--data-dir", str(folder), "--port", str(port)]
    # Unbuffered, so that it is heard when it tells that it listens.
    command[1:1] = ["-u"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert "listening" in line, line
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture(params=[True, False], ids=["mapped", "read"])
def is_mapped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways to open a file, whatever its size."""
    monkeypatch.setattr(npz, "_MAPPED_FROM_BYTES", 0 if request.param else 1 << 60)
    return bool(request.param)


@pytest.fixture(
    params=[
        "memory",
        "npz",
        "int8",
        "database",
        "database int8",
        pytest.param("encrypted database", marks=pytest.mark.slow),
        "milvus lite",
        pytest.param("milvus server", marks=pytest.mark.slow),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each kind of gallery."""
    kind: str = request.param
    if kind == "memory":
        yield Store(lambda encoder: open_gallery(encoder=encoder), is_kept=False)
        return
    if kind in ("npz", "int8"):
        small = kind == "int8"
        path = tmp_path / "people.npz"
        yield Store(lambda encoder: open_gallery(path, encoder=encoder, int8=small), int8=small)
        return
    opened: list[Gallery] = []
    if "database" in kind:
        if "encrypted" in kind:
            request.getfixturevalue("monkeypatch").setenv(KEY_VARIABLE, "ab" * 32)
        small = "int8" in kind

        def open_database(encoder: EncoderIdentity) -> Gallery:
            opened.append(open_gallery(tmp_path / "people.sqlite", encoder=encoder, int8=small))
            return opened[-1]

        yield Store(open_database, int8=small, keeps_digests="encrypted" not in kind)
        for gallery in opened:
            gallery.close()
        return
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    if kind == "milvus lite":
        uri = str(tmp_path / "people.db")
    else:
        uri = f"{request.getfixturevalue('milvus_server')}#t{uuid.uuid4().hex}"

    def open_one(encoder: EncoderIdentity) -> Gallery:
        opened.append(open_gallery(uri, encoder=encoder))
        return opened[-1]

    yield Store(open_one, holds_once=True)
    for gallery in opened:
        gallery.close()
