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

from face_encode.bulk import EmbeddingReport, settings_of, with_names_of_text, without_faces
from face_encode.detectors.detector import Detector
from face_encode.distributed.connection import check_ray, connected
from face_encode.distributed.parts import Part, divide
from face_encode.distributed.stream import Actors, embedded_tables
from face_encode.embedding_files.parquet import (
    check_pyarrow,
    embeddings_of,
    quantized,
    schema_of,
    table_of,
    write_tables,
)
from face_encode.embedding_files.parts import (
    CONTENTS,
    is_part,
    part_name,
    read_part,
    write_contents,
    write_part,
)
from face_encode.embedding_files.table import EmbeddingSettings
from face_encode.encoders.encoder import Encoder
from face_encode.errors import ClusterError, DatasetError, EmbeddingFileError
from face_encode.files import check_writable
from face_encode.progress import tracked
from face_encode.quantization import Quantizer
from face_encode.resuming import UNFINISHED_SUFFIX
from face_encode.storage import PhotoListing, Place, list_photos, place_of, reporting
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
    done = _tidied(work, todo, restart=restart)
    run = _Run(work, wide, others, todo)
    missing = [part for part in todo if part.name not in done]
    resumed = len(listing.names) - sum(len(part) for part in missing)
    if missing:
        with connected(address) as ray:
            tables = embedded_tables(
                ray, source, listing.names, missing, detector, encoder, wide, actors or Actors()
            )
            _write(tables, missing, run, len(listing.names), progress=progress)
    quantizer = run.quantizer() if int8 else None
    if parts:
        run.finish_folder(target, settings, quantizer)
    else:
        run.finish_file(target, settings, quantizer)
    if not in_place:
        with reporting(f"{work} cannot be removed", EmbeddingFileError):
            work.delete()
    return EmbeddingReport(
        photos=len(listing.names) + len(others) - len(listing.unlisted),
        faces=run.face_count,
        resumed=resumed,
        left_out=tuple(run.left_out),
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
        raise DatasetError(f"{source}: no photo in it or below it")
    fine, unnamed = with_names_of_text(listing.names)
    if unnamed:
        kept = set(fine)
        states = listing.states[[name in kept for name in listing.names]]
        listing = PhotoListing(fine, states, listing.unlisted)
    return listing, [*listing.unlisted, *unnamed]


def _tidied(work: Place, todo: Sequence[Part], *, restart: bool) -> set[str]:
    """The parts that are there; those that are none of this run's are deleted."""
    wanted = set() if restart else {part.name for part in todo}
    with reporting(f"{work} cannot be looked at", EmbeddingFileError):
        present = set(work.names())
        for name in present - wanted:
            # Unfinished from now on; and nothing that is not ours is touched.
            if is_part(name) or name == CONTENTS:
                work.below(name).delete()
    return present & wanted


def _write(
    tables: Iterator[Any], missing: Sequence[Part], run: _Run, total: int, *, progress: bool
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
                run.write(part, rows)
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


class _Run:
    """The parts of one run, and what becomes of them.

    Attributes:
        face_count: Faces met so far.
        left_out: Photos without any, and why.
    """

    def __init__(
        self,
        work: Place,
        settings: EmbeddingSettings,
        others: Sequence[tuple[str, str]],
        parts: Sequence[Part],
    ) -> None:
        """Nothing is counted yet."""
        self._work, self._settings, self._parts = work, settings, parts
        self._others = [without_faces(name, reason) for name, reason in others]
        self.face_count = 0
        self.left_out: list[tuple[str, str]] = []

    def write(self, part: Part, tables: Sequence[Any]) -> None:
        """Put a part's rows into its file."""
        # Of the stages' own schema, which knows nothing of the metadata.
        schema = schema_of(self._settings, None)
        write_part(
            self._work.below(part.name),
            self._settings,
            [table.select(schema.names).cast(schema) for table in tables],
        )

    def _tables(self, columns: list[str] | None = None) -> Iterator[tuple[str, Any]]:
        """Each part's name and rows, in order."""
        for part in self._parts:
            yield part.name, read_part(self._work.below(part.name), columns)

    def quantizer(self) -> Quantizer:
        """Centred on the mean of all embeddings of the run."""
        batches = (embeddings_of(table) for _, table in self._tables(["embedding"]))
        return Quantizer.fitted_to(batch for batch in batches if len(batch))

    def finish_file(
        self, target: Place, settings: EmbeddingSettings, quantizer: Quantizer | None
    ) -> None:
        """Put one file together, a part at a time."""

        def tables() -> Iterator[Any]:
            if self._others:
                yield self._counted(table_of(self._others, settings, quantizer))
            for _, table in self._tables():
                self._counted(table)
                yield table if quantizer is None else quantized(table, settings, quantizer)

        with target.writing(EmbeddingFileError) as file:
            write_tables(file, settings, tables(), quantizer)

    def finish_folder(
        self, target: Place, settings: EmbeddingSettings, quantizer: Quantizer | None
    ) -> None:
        """Say that the parts are all there, and write those anew that are to be of int8."""
        names = []
        if self._others:
            names.append(part_name(0, "0" * 16))
            rows = self._counted(table_of(self._others, settings, quantizer))
            write_part(target.below(names[0]), settings, [rows], quantizer)
        columns = ["photo", "error"] if quantizer is None else None
        for name, table in self._tables(columns):
            names.append(name)
            self._counted(table)
            if quantizer is not None:
                codes = quantized(table, settings, quantizer)
                write_part(target.below(name), settings, [codes], quantizer)
        write_contents(target, names)

    def _counted(self, table: Any) -> Any:
        """Count a table's faces and note its errors; returns it."""
        failed = table.select(["photo", "error"]).filter(table["error"].is_valid())
        pairs = zip(failed["photo"].to_pylist(), failed["error"].to_pylist(), strict=True)
        self.left_out += pairs
        self.face_count += len(table) - len(failed)
        return table
