"""The files of a run's parts: written one by one, found again, and put together at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from face_encode.bulk import without_faces
from face_encode.distributed.parts import Part
from face_encode.embedding_files.arrow import embeddings_of, quantized, schema_of, table_of
from face_encode.embedding_files.parquet import write_tables
from face_encode.embedding_files.parts import (
    CONTENTS,
    is_part,
    part_name,
    read_part,
    write_contents,
    write_part,
)
from face_encode.embedding_files.table import EmbeddingSettings
from face_encode.errors import EmbeddingFileError
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import Place, reporting


class WrittenParts:
    """The files of the parts of one run.

    Attributes:
        face_count: Faces of the parts that were put together.
        left_out: Photos without any, and why.
    """

    def __init__(
        self,
        work: Place,
        settings: EmbeddingSettings,
        others: Sequence[tuple[str, str]],
        parts: Sequence[Part],
    ) -> None:
        """Take the parts; nothing is read or written yet.

        Args:
            work: The folder of the files.
            settings: What the embeddings are made by, float32.
            others: What is told of without being opened, and why.
            parts: Those that belong together, in their order.
        """
        self._work, self._settings, self._parts = work, settings, parts
        self._others = [without_faces(name, reason) for name, reason in others]
        self.face_count = 0
        self.left_out: list[tuple[str, str]] = []

    def tidy(self, *, restart: bool) -> set[str]:
        """Delete the files that are none of this run's; returns the names of the others.

        Args:
            restart: Whether none of those that are there is to be taken over.

        Raises:
            EmbeddingFileError: The folder cannot be looked at.
        """
        wanted = set() if restart else {part.name for part in self._parts}
        with reporting(f"{self._work} cannot be looked at", EmbeddingFileError):
            present = set(self._work.names())
            for name in present - wanted:
                # Unfinished from now on; and nothing that is not ours is touched.
                if is_part(name) or name == CONTENTS:
                    self._work.below(name).delete()
        return present & wanted

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
        self, target: Place, settings: EmbeddingSettings, quantizer: Quantizer | None
    ) -> None:
        """Put one file together, a part at a time.

        Args:
            target: The file.
            settings: What the file says of itself: those of the parts, or with int8.
            quantizer: For int8.

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
        self, target: Place, settings: EmbeddingSettings, quantizer: Quantizer | None
    ) -> None:
        """Say that the parts are all there, after writing them anew where they are to be int8.

        Args:
            target: The folder; for float32 the one that the parts are in.
            settings: What the file says of itself: those of the parts, or with int8.
            quantizer: For int8.

        Raises:
            EmbeddingFileError: A part is gone or damaged, or the folder cannot be written.
        """
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
