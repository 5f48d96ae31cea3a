"""Embeddings of a folder that outgrows one machine, made on a Ray cluster.

The photos are divided into parts; each part's rows become a file. Names go through Ray Data as a
stream: actors find the faces, further actors encode them, and the rows come back in the order of
the names, to be written a part at a time. Nothing but the names and one part is ever held here.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Literal

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import ClusterError, EmbeddingFileError, InputError, MissingExtraError
from face_encode.files import check_writable
from face_encode.photos.folders import (
    Location,
    PhotoListing,
    list_photos,
    location_of,
    no_photo_below,
    reporting,
)
from face_encode.pipeline.checkpoint import CHECKPOINT_SUFFIX
from face_encode.pipeline.cluster.parts import Part, WrittenParts, divide
from face_encode.pipeline.cluster.stages import Actors, embedded_tables
from face_encode.pipeline.embedding_file import CONTENTS, is_part
from face_encode.pipeline.folder import EmbeddingReport, settings_of, with_names_of_text
from face_encode.pipeline.parquet import check_pyarrow, is_embeddings_file
from face_encode.terminal import progress_bar
from face_encode.types import check_count

# The time within which a head that listens at an address answers.
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
        # Ray would report to its makers; this package promises that nothing is sent anywhere.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray warns of every actor whose constructor has arguments; what goes wrong it raises.
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
    """Refuse a wrong address, and one where nobody listens: Ray itself waits a minute."""
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


# A file of some 20 MB: few enough for 100 million photos, small enough to be made again.
PHOTOS_PER_PART = 32_768


def embed_folder_on_ray(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    detector: Detector,
    encoder: Encoder,
    *,
    faces: Literal["all", "largest"] = "all",
    raw: bool = False,
    int8: bool = False,
    restart: bool = False,
    progress: bool = True,
    parts: bool = False,
    photos_per_part: int = PHOTOS_PER_PART,
    address: str | None = None,
    actors: Actors | None = None,
) -> EmbeddingReport:
    """Embed the faces of all photos in a folder and below it, on a Ray cluster.

    The result is that of ``embed_folder``. A run that was killed is resumed by the same call,
    which embeds no photo again whose part is written and that has not changed.

    Args:
        folder: The photos: a folder that every node sees at the same path, or an address such as
            ``s3://bucket/photos``. Hidden files and folders are passed over.
        output: Ends in ``.parquet``; a path of this machine or an address. Until it is done, the
            parts lie beside it, in a folder with ``.unfinished`` behind its name.
        detector: Finds the faces.
        encoder: Embeds them.
        faces: ``"all"`` of each photo, or its ``"largest"``.
        raw: Whether to keep embeddings as the network gives them, instead of at length 1.
        int8: Whether to keep them as a byte a number.
        restart: Whether to make the parts again that are there already. With ``parts`` and without
            ``int8`` a run that was killed then begins anew, or takes what is left of the former.
        progress: Whether to show a progress bar.
        parts: Whether the output is a folder of parts instead of one file; they lie in it from
            the beginning, except with int8, whose centre takes them all. A former result in it
            stays until the new one is whole.
        photos_per_part: As many in each part.
        address: Of the cluster; see ``connected``.
        actors: How many take part and on what; None chooses by the cluster.

    Raises:
        ClusterError: The cluster cannot be reached, is too small, or its work cannot go on.
        DatasetError: The folder is missing, or holds no photo.
        EmbeddingFileError: The output cannot be written.
        InputError: Settings that exclude each other, or an address of an unknown kind.
        MissingExtraError: Ray is not installed.
    """
    settings = settings_of(detector, encoder, faces=faces, raw=raw, int8=int8)
    check_count(photos_per_part, "photos_per_part")
    source, target = location_of(folder), location_of(output)
    check_output(target, parts=parts)
    # What the cluster writes: codes need the mean of all embeddings, which is known at the end.
    wide = replace(settings, int8=False)
    listing, others = _photos_of(source)
    todo = divide(listing, wide, photos_per_part)
    in_place = parts and not int8
    work = target if in_place else target.with_ending(CHECKPOINT_SUFFIX)
    written = WrittenParts(work, wide, others, todo)
    if restart and not in_place:
        # It holds no result; what a restarted run has left is to be gone on with.
        with reporting(f"{work} cannot be removed", EmbeddingFileError):
            work.delete()
    done = set() if restart else written.done()
    missing = [part for part in todo if part.name not in done]
    resumed = len(listing.names) - sum(len(part) for part in missing)
    if missing:
        with connected(address) as ray:
            tables = embedded_tables(
                ray, source, listing.names, missing, detector, encoder, wide, actors or Actors()
            )
            _write(tables, missing, written, len(listing.names), progress=progress)
    quantizer = written.quantizer() if int8 else None
    if parts:
        written.finish_folder(target, settings, quantizer)
    else:
        written.finish_file(target, settings, quantizer)
    if not in_place:
        with reporting(f"{work} cannot be removed", EmbeddingFileError):
            work.delete()
    return EmbeddingReport(
        photos=len(listing.names) + len(others) - len(listing.unlisted),
        faces=written.face_count,
        resumed=resumed,
        left_out=tuple(written.left_out),
        notes=tuple(written.notes),
    )


def check_output(target: Location, *, parts: bool, overwrite: bool = True) -> None:
    """Refuse an output, or a missing extra, before the work rather than after.

    Args:
        target: Where the embeddings go.
        parts: Whether as a folder.
        overwrite: Whether a file of a store that holds no embeddings may be replaced.

    Raises:
        EmbeddingFileError: Not ``.parquet``, or it cannot be written.
        InputError: A file of a store that may not be replaced.
        MissingExtraError: Ray or pyarrow is not installed.
    """
    if target.suffix != ".parquet":
        raise EmbeddingFileError(
            f"on a cluster embeddings are written as .parquet. Received: {target}"
        )
    check_ray()
    check_pyarrow()
    with reporting(f"{target} cannot be looked at", EmbeddingFileError):
        kind = target.kind()
        names = target.names() if kind == "folder" else []
        is_kept = not (overwrite or target.is_local) and kind == "file"
        is_foreign = is_kept and not is_embeddings_file(target)
    if parts and kind == "file":
        raise EmbeddingFileError(f"{target} is a file; a folder of parts cannot take its place")
    if not parts and kind == "folder":
        raise EmbeddingFileError(f"cannot write {target}: it is a folder")
    if is_foreign:
        raise InputError(
            f"{target} exists and is no file of embeddings that face-encode wrote; --overwrite "
            "replaces it"
        )
    if not all(is_part(name) or name == CONTENTS for name in names):
        raise EmbeddingFileError(f"{target} is in the way: a folder with other things in it")
    if target.is_local:
        inside = target.below(CONTENTS) if kind == "folder" else target
        check_writable(inside.local, EmbeddingFileError)


def _photos_of(source: Location) -> tuple[PhotoListing, list[tuple[str, str]]]:
    """The photos, and those left out without being opened, with the reasons."""
    listing = list_photos(source)
    if not listing.names:
        raise no_photo_below(source, listing.unlisted)
    fine, unnamed = with_names_of_text(listing.names)
    if unnamed:
        kept = set(fine)
        states = listing.states[[name in kept for name in listing.names]]
        listing = PhotoListing(fine, states, listing.unlisted)
    return listing, [*listing.unlisted, *unnamed]


def _write(
    tables: Iterator[Any],
    missing: Sequence[Part],
    written: WrittenParts,
    total: int,
    *,
    progress: bool,
) -> None:
    """Write each part when its last photo has come."""
    waiting = iter(missing)
    part, rows, photos = next(waiting), list[Any](), 0
    bar = progress_bar(total, "Embedding", done=total - sum(map(len, missing)))
    with bar if progress else nullcontext() as advance:
        for table in tables:
            if set(table["part"].unique().to_pylist()) != {part.number}:
                raise ClusterError("the cluster gave photos in another order than asked for")
            rows.append(table.drop_columns(["part"]))
            count = _photo_count(table)
            photos += count
            if photos == len(part):
                written.write(part, rows)
                part, rows, photos = next(waiting, part), [], 0
            if advance:
                advance(count)
    if rows or next(waiting, None) is not None:
        raise ClusterError("the cluster gave fewer photos than asked for")


def _photo_count(table: Any) -> int:
    """How many photos a table's rows are of: each has one first face, or an error."""
    import pyarrow.compute

    first = pyarrow.compute.equal(pyarrow.compute.fill_null(table["face"], 0), 0)
    return int(pyarrow.compute.sum(first).as_py() or 0)
