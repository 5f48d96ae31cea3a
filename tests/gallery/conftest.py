"""What the tests of galleries ask for: a Milvus server, and both ways to open a file."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from face_encode.gallery import npz_file


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
    monkeypatch.setattr(npz_file, "_MAPPED_FROM_BYTES", 0 if request.param else 1 << 60)
    return bool(request.param)
