"""The way to a Ray cluster, with errors that say what to do."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from face_encode.errors import ClusterError, InputError, MissingExtraError

# Whoever listens at an address answers within this, or nobody does.
_ANSWER_SECONDS = 5.0
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_TYPE, _SETTINGS_FRAME = 3, 4
# The head of a frame: length, type, flags, stream.
_EMPTY_SETTINGS = bytes([0, 0, 0, _SETTINGS_FRAME, 0, 0, 0, 0, 0])
_LOCAL = "local"
_RUNNING_HERE = "auto"
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def check_ray() -> None:
    """Refuse work on a cluster where Ray is not installed.

    Raises:
        MissingExtraError: It is not.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            'the engine ray needs Ray: pip install "face_encode[ray]"'
        ) from error


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Gives the module ``ray``, connected to a cluster until the block ends.

    A program that has connected already keeps its connection.

    Args:
        address: ``host:port`` of a cluster's head; ``"auto"`` for the one running on this
            machine; ``"local"`` for one of this machine's own, started here and ended with the
            block. None takes the address in the environment's ``RAY_ADDRESS``, and otherwise
            ``"local"``.

    Raises:
        ClusterError: There is no cluster at the address, or it does not take this program in.
        InputError: No such address.
        MissingExtraError: Ray is not installed.
    """
    check_ray()
    import ray

    if ray.is_initialized():
        if address is not None:
            raise InputError(
                "this program is connected to a Ray cluster already; give no address, or "
                f"ray.shutdown() first. Received: {address!r}"
            )
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    _check_address(address)
    if address == _LOCAL:
        # Ray would report to its makers; what is told here is that nothing is sent anywhere.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray tells of every actor that its constructor has arguments; what goes wrong it raises.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({"include_dashboard": False} if address == _LOCAL else {}),
        )
    # Ray raises whatever it trips over: ConnectionError, RuntimeError of another release,
    # ValueError, errors of gRPC.
    except Exception as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ClusterError(f"no Ray cluster takes us in at {address!r}: {first_line}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse what is no address, and one where nobody listens: Ray itself waits a minute."""
    if address in (_LOCAL, _RUNNING_HERE):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        hint = ""
        if address.startswith("ray://"):
            hint = "; ray:// is for interactive work: run this on the cluster, by ray job submit"
        raise InputError(
            f"a cluster's address is HOST:PORT, auto or local{hint}. Received: {address!r}"
        )
    host, sought = host.strip("[]"), ""
    if host in _THIS_MACHINE:
        from ray.util import get_node_ip_address

        # Ray does not look there, but at the address by which others reach this machine. Who
        # listens for this machine alone would be waited for, for longer than any patience.
        host = get_node_ip_address()
        sought = f", which Ray seeks at {host}"
    try:
        with socket.create_connection((host, int(port)), _ANSWER_SECONDS) as line:
            # Behind TLS nobody answers in plain words.
            speaks = os.environ.get("RAY_USE_TLS", "0") != "0" or _speaks_grpc(line)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ClusterError(f"nobody answers at {address}{sought}: {reason}") from error
    if not speaks:
        raise ClusterError(
            f"what answers at {address} is no head of a Ray cluster; its port is 6379 unless it "
            "was started with another"
        )


def _speaks_grpc(line: socket.socket) -> bool:
    """Whether the other side greets as HTTP/2 does (RFC 9113, section 3.4), as Ray's head must."""
    line.sendall(_HTTP2_PREFACE + _EMPTY_SETTINGS)
    answer = b""
    while len(answer) < len(_EMPTY_SETTINGS):
        received = line.recv(len(_EMPTY_SETTINGS) - len(answer))
        if not received:
            return False
        answer += received
    return answer[_FRAME_TYPE] == _SETTINGS_FRAME and answer[5:9] == _EMPTY_SETTINGS[5:9]
