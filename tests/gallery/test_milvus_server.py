from __future__ import annotations

import socket
import time

import pytest

from face_encode.errors import GalleryError
from face_encode.gallery import milvus_client
from face_encode.gallery.opening import open_gallery
from tests.gallery.common import Identity

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def test_a_server_that_is_not_there_is_told_soon_and_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(GalleryError, match=f"http://127.0.0.1:{port} cannot be reached") as raised:
        open_gallery(f"http://root:sesame@127.0.0.1:{port}", encoder=Identity())
    assert time.monotonic() - began < 15
    assert "sesame" not in str(raised.value)


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_client, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(GalleryError, match="cannot be reached"):
            open_gallery(address, encoder=Identity(), token="sesame")
