from __future__ import annotations

import socket
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from face_encode.errors import ClusterError, InputError, MissingExtraError
from face_encode.pipeline.cluster.run import check_ray, connected


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[ray\]"'):
        check_ray()


@pytest.mark.parametrize(
    "address", ["ray://head:10001", "head", "head:port", ":6379", "head:99999", "http://head:1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="HOST:PORT, auto or local"), connected(address):
        pass


def test_another_server_at_the_address_is_told_at_once() -> None:
    ray = pytest.importorskip("ray")
    server = ThreadingHTTPServer((ray.util.get_node_ip_address(), 0), SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    with pytest.raises(ClusterError, match=f"{address} is no head of a Ray"), connected(address):
        pass
    server.shutdown()


def test_nobody_at_the_address_is_told_at_once() -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ClusterError, match=f"nobody answers at {address}"), connected(address):
            pass
        assert time.monotonic() - began < 8


def test_who_listens_for_this_machine_alone_is_out_of_rays_reach() -> None:
    ray = pytest.importorskip("ray")
    place = ray.util.get_node_ip_address()
    if place.startswith("127."):
        pytest.skip("this machine has no other address")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        with (
            pytest.raises(ClusterError, match=f"localhost:{port}, which Ray seeks at {place}: "),
            connected(f"localhost:{port}"),
        ):
            pass
        assert time.monotonic() - began < 8
