"""A Milvus server for the tests of galleries: Milvus Lite's own, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
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
