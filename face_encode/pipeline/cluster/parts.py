"""The parts that a large folder is embedded in: a file each, found again by a later run.

A part's name carries a digest of the settings and of its photos' names, sizes and times of change.
So a file of that name holds the rows that this run would write, whenever it was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from face_encode.errors import EmbeddingFileError
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import Location, PhotoListing, reporting
from face_encode.pipeline.embedding import without_embeddings
from face_encode.pipeline.embedding_file import (
    is_part,
    part_name,
    read_part,
    write_contents,
    write_part,
)
from face_encode.pipeline.embedding_table import EmbeddingSettings
from face_encode.pipeline.parquet import embeddings_of, quantized, schema_of, table_of, write_tables


@dataclass(frozen=True)
class Part:
    """The photos of one file.

    Attributes:
        number: The part's number, from 1 on.
        start: The row of its first photo among all.
        stop: The row behind its last photo.
        name: The file's name.
    """

    number: int
    start: int
    stop: int
    name: str

    def __len__(self) -> int:
        return self.stop - self.start


def divide(listing: PhotoListing, settings: EmbeddingSettings, photos_per_part: int) -> list[Part]:
    """Divide the photos of a folder, in their order, into parts; the last has what is left."""
    starts = range(0, len(listing.names), photos_per_part)
    parts = []
    # The number 0 is that of the photos that were never opened.
    for number, start in enumerate(starts, 1):
        stop = min(start + photos_per_part, len(listing.names))
        made_of = [
            settings.to_json(),
            # A former release's part, of fewer columns, is made again.
            schema_of(settings, None).names,
            listing.names[start:stop],
            listing.states[start:stop].tolist(),
        ]
        digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
        parts.append(Part(number, start, stop, part_name(number, digest)))
    return parts


def chunks(parts: Sequence[Part], names: Sequence[str], size: int) -> Iterator[Any]:
    """The photos of some parts as pyarrow's tables, each of one part and ``size`` photos at most.

    ``names`` are those of all photos.
    """
    import pyarrow

    for part in parts:
        for start in range(part.start, part.stop, size):
            photos = names[start : min(start + size, part.stop)]
            numbers = pyarrow.array([part.number] * len(photos), pyarrow.int32())
            yield pyarrow.table({"part": numbers, "photo": pyarrow.array(photos, pyarrow.string())})


class WrittenParts:
    """The files of the parts of one run.

    Attributes:
        face_count: Faces of the parts that were put together.
        left_out: Photos without any, and why.
        notes: Remarks on photos, behind their names.
    """

    def __init__(
        self,
        work: Location,
        settings: EmbeddingSettings,
        others: Sequence[tuple[str, str]],
        parts: Sequence[Part],
    ) -> None:
        """Take the parts of a run, in their order.

        Args:
            work: The folder of the files.
            settings: The settings of the embeddings, float32.
            others: The photos that are left out without being opened, and why.
            parts: The parts.
        """
        self._work, self._settings, self._parts = work, settings, parts
        self._others = [without_embeddings(name, reason) for name, reason in others]
        self.face_count = 0
        self.left_out: list[tuple[str, str]] = []
        self.notes: list[str] = []

    def done(self) -> set[str]:
        """The names of the parts that are written already.

        Raises:
            EmbeddingFileError: The folder cannot be looked at.
        """
        with reporting(f"{self._work} cannot be looked at", EmbeddingFileError):
            return set(self._work.names()) & {part.name for part in self._parts}

    def write(self, part: Part, tables: Sequence[Any]) -> None:
        """Put a part's rows, pyarrow's tables in the order of its photos, into its file.

        Raises:
            EmbeddingFileError: It cannot be written.
        """
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
        """Centred on the mean of all embeddings of the run.

        Raises:
            EmbeddingFileError: A part is gone, or damaged.
        """
        batches = (embeddings_of(table) for _, table in self._tables(["embedding"]))
        return Quantizer.fitted_to(batch for batch in batches if len(batch))

    def finish_file(
        self, target: Location, settings: EmbeddingSettings, quantizer: Quantizer | None
    ) -> None:
        """Put one file together, a part at a time; ``settings`` may be int8, by the quantizer.

        Raises:
            EmbeddingFileError: A part is gone or damaged, or the file cannot be written.
        """

        def tables() -> Iterator[Any]:
            if self._others:
                yield self._counted(table_of(self._others, settings, quantizer))
            for _, table in self._tables():
                self._counted(table)
                yield table if quantizer is None else quantized(table, settings, quantizer)

        with target.writing(EmbeddingFileError) as file:
            write_tables(file, settings, tables(), quantizer)

    def finish_folder(
        self, target: Location, settings: EmbeddingSettings, quantizer: Quantizer | None
    ) -> None:
        """Write the table of contents of a folder of parts, for int8 after the parts themselves.

        A former result in the folder can be read until then. Parts of that one only are deleted at
        the end, and nothing else.

        Raises:
            EmbeddingFileError: A part is gone or damaged, or the folder cannot be written.
        """
        centre = None if quantizer is None else quantizer.centre.tolist()

        def own_name(number: int, *made_of: Any) -> str:
            """A name that no file of a former result has, unless it holds the same."""
            text = json.dumps([settings.to_json(), centre, *made_of])
            return part_name(number, hashlib.sha256(text.encode()).hexdigest())

        names = []
        if self._others:
            names.append(own_name(0, *((each.photo, each.error) for each in self._others)))
            rows = self._counted(table_of(self._others, settings, quantizer))
            write_part(target.below(names[0]), settings, [rows], quantizer)
        columns = ["photo", "face", "error", "notes"] if quantizer is None else None
        for number, (name, table) in enumerate(self._tables(columns), 1):
            names.append(name if quantizer is None else own_name(number, name))
            self._counted(table)
            if quantizer is not None:
                codes = quantized(table, settings, quantizer)
                write_part(target.below(names[-1]), settings, [codes], quantizer)
        write_contents(target, names)
        with reporting(f"parts of a former run in {target} cannot be removed", EmbeddingFileError):
            for name in target.names():
                if is_part(name) and name not in names:
                    target.below(name).delete()

    def _counted(self, table: Any) -> Any:
        """Count a table's faces and collect its errors and notes; returns it."""
        import pyarrow.compute

        failed = table.select(["photo", "error"]).filter(table["error"].is_valid())
        pairs = zip(failed["photo"].to_pylist(), failed["error"].to_pylist(), strict=True)
        self.left_out += pairs
        self.face_count += len(table) - len(failed)
        told = table.select(["photo", "face", "notes"])
        # Most photos have none.
        told = told.filter(pyarrow.compute.list_value_length(told["notes"]).cast("bool"))
        for row in told.to_pylist():
            # Once a photo: at its first face, or where it has none.
            if not row["face"]:
                self.notes += [f"{row['photo']}: {note}" for note in row["notes"]]
        return table
