"""Clients of Milvus: opened in silence, and what goes wrong told as an error of ours."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from face_encode.errors import GalleryError, MissingExtraError

CONNECT_SECONDS = 10.0
# Of each call, with what is tried again within it while a server is being restarted.
CALL_SECONDS = 30.0

# Some servers end a connection on which there are more pings than one in five minutes, and
# pymilvus sends one in ten seconds. That an answer fails to come, its time limit tells.
_KEEPALIVE = {"grpc.keepalive_time_ms": 310_000, "grpc.keepalive_permit_without_calls": 0}


def check_milvus(*, embedded: bool) -> None:
    """Refuse a gallery in Milvus where what it takes is not installed.

    Args:
        embedded: Whether it is kept by Milvus Lite.

    Raises:
        MissingExtraError: ``pymilvus``, or ``milvus-lite``, is not installed.
    """
    _import_pymilvus()
    if embedded:
        try:
            import milvus_lite  # noqa: F401
        except ImportError as error:
            raise _missing() from error


def open_client(place: str, token: str = "", options: Mapping[str, int] | None = None) -> Any:
    """Open a ``pymilvus.MilvusClient`` with a connection of its own.

    Args:
        place: A server's address, or the folder of an embedded store.
        token: What the server is to be shown; empty for none.
        options: Of gRPC, beside those that every connection has.

    Raises:
        MissingExtraError: ``pymilvus`` is not installed.
        Exception: Whatever Milvus raises; see ``telling``.
    """
    return _import_pymilvus().MilvusClient(
        place,
        token=token,
        timeout=CONNECT_SECONDS,
        dedicated=True,
        grpc_options={**_KEEPALIVE, **(options or {})},
    )


@contextmanager
def telling(what: str, token: str = "") -> Iterator[None]:
    """Tell of what Milvus refuses or fails at as an error of ours.

    Raises:
        GalleryError: With the store and the reason in it, never with the token.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        reason = getattr(error, "message", "") or str(error)
        # Of a token that is refused the message says nothing; the cause does.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, grpc.RpcError) and (details := getattr(cause, "details", None)):
            reason = f"{details()}: {reason}"
        for secret in (token, *token.split(":", 1)[1:]):
            reason = reason.replace(secret, "…") if secret else reason
        # Its messages go on with a stack, line by line.
        raise GalleryError(f"the gallery {what}: {reason.strip().splitlines()[0]}") from error


def _import_pymilvus() -> Any:
    """``pymilvus``, silent: it logs the errors that it raises, with their tracebacks.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        with _logging_left_alone():
            import pymilvus
    except ImportError as error:
        raise _missing() from error
    for name in ("pymilvus", "pymilvus.milvus_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


@contextmanager
def _logging_left_alone() -> Iterator[None]:
    """Keep pymilvus, while it is imported, from setting logging up.

    That would close all handlers of the program: what it logs to memory or to a file of its own
    is cut off, and absl's handler, which TensorFlow brings, takes a redirected ``sys.stderr`` with
    it.
    """
    configure = logging.config.dictConfig

    def configure_others(config: Any) -> None:
        if "pymilvus" not in config.get("loggers", {}):
            configure(config)

    logging.config.dictConfig = configure_others
    try:
        yield
    finally:
        logging.config.dictConfig = configure


def _missing() -> MissingExtraError:
    return MissingExtraError(
        'a gallery in Milvus takes pymilvus and milvus-lite: pip install "face_encode[milvus]"'
    )
