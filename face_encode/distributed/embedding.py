"""Embeddings of a folder that outgrows one machine, made on a Ray cluster.

The photos are divided into parts; each part's rows become a file. Names go through Ray Data as a
stream: actors find the faces, further actors encode them, and the rows come back in the order of
the names, to be written a part at a time. Nothing but the names and one part is ever held here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from face_encode.bulk import EmbeddingReport, settings_of, with_names_of_text
from face_encode.detectors.base import Detector
from face_encode.distributed.connection import check_ray, connected
from face_encode.distributed.parts import Part, divide
from face_encode.distributed.stream import Actors, embedded_tables
from face_encode.distributed.written_parts import WrittenParts
from face_encode.embedding_files.parquet import check_pyarrow
from face_encode.embedding_files.parts import CONTENTS, is_part
from face_encode.encoders.encoder import Encoder
from face_encode.errors import ClusterError, EmbeddingFileError
from face_encode.files import check_writable
from face_encode.photos.folders import (
    PhotoListing,
    Place,
    list_photos,
    no_photo_below,
    place_of,
    reporting,
)
from face_encode.resuming import UNFINISHED_SUFFIX
from face_encode.terminal import tracked
from face_encode.types import check_count

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

    The result is that of ``embed_folder``. A run that was killed is continued by the same call,
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
        restart: Whether to begin anew where there are parts already.
        progress: Whether to show a progress bar.
        parts: Whether the output is a folder of parts instead of one file; they lie in it from
            the beginning, except with int8, whose centre takes them all.
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
    source, target = place_of(folder), place_of(output)
    check_output(target, parts=parts)
    # What the cluster writes: codes need the mean of all embeddings, which is known at the end.
    wide = replace(settings, int8=False)
    listing, others = _photos_of(source)
    todo = divide(listing, wide, photos_per_part)
    in_place = parts and not int8
    work = target if in_place else target.with_ending(UNFINISHED_SUFFIX)
    written = WrittenParts(work, wide, others, todo)
    done = written.tidy(restart=restart)
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
    )


def check_output(target: Place, *, parts: bool) -> None:
    """Refuse a place, or a missing extra, before hours of work rather than after.

    Args:
        target: Where the embeddings go.
        parts: Whether as a folder.

    Raises:
        EmbeddingFileError: Not ``.parquet``, or it cannot be written.
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
    if parts and kind == "file":
        raise EmbeddingFileError(f"{target} is a file; a folder of parts cannot take its place")
    if not parts and kind == "folder":
        raise EmbeddingFileError(f"cannot write {target}: it is a folder")
    if not all(is_part(name) or name == CONTENTS for name in names):
        raise EmbeddingFileError(f"{target} is in the way: a folder with other things in it")
    if target.is_local:
        inside = target.below(CONTENTS) if kind == "folder" else target
        check_writable(inside.local, EmbeddingFileError)


def _photos_of(source: Place) -> tuple[PhotoListing, list[tuple[str, str]]]:
    """The photos, and what is told of without being opened, with the reasons."""
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

    def arrived() -> Iterator[None]:
        nonlocal part, rows, photos
        for table in tables:
            if set(table["part"].unique().to_pylist()) != {part.number}:
                raise ClusterError("the cluster gave photos in another order than asked for")
            rows.append(table.drop_columns(["part"]))
            firsts = _photo_count(table)
            photos += firsts
            if photos == len(part):
                written.write(part, rows)
                part, rows, photos = next(waiting, part), [], 0
            yield from (None for _ in range(firsts))
        if rows or next(waiting, None) is not None:
            raise ClusterError("the cluster gave fewer photos than asked for")

    for _ in tracked(
        arrived(), total, "Embedding", show=progress, done=total - sum(map(len, missing))
    ):
        pass


def _photo_count(table: Any) -> int:
    """How many photos a table's rows are of: each has one first face, or an error."""
    import pyarrow.compute

    first = pyarrow.compute.equal(pyarrow.compute.fill_null(table["face"], 0), 0)
    return int(pyarrow.compute.sum(first).as_py() or 0)
