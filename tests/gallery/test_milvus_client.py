"""Clients, also of a server that lets in who shows the right token: Milvus Lite's own, guarded."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from face_encode.errors import GalleryError, MissingExtraError
from face_encode.gallery.milvus_places import TOKEN_VARIABLE
from face_encode.gallery.opening import open_gallery
from tests.conftest import REPOSITORY
from tests.gallery.common import Identity, vectors

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")
grpc = pytest.importorskip("grpc")

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
from face_encode.gallery.milvus_client import check_milvus
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
