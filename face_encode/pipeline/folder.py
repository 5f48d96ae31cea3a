"""Embeddings of a whole folder, in a file: resumable after a kill, in little memory.

What has been embedded goes into a checkpoint beside the output, from which the finished file is put
together. After a kill the same call resumes the run, and ends with the same file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np

from face_encode.detectors.base import Detector, notes_on
from face_encode.encoders.encoder import Encoder
from face_encode.errors import EmbeddingFileError
from face_encode.files import as_path, check_writable
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import no_photo_below, photos_below
from face_encode.pipeline.checkpoint import CHECKPOINT_SUFFIX, Run, checkpoint_in
from face_encode.pipeline.embedding import EmbeddedPhoto, without_embeddings
from face_encode.pipeline.embedding_file import check_embeddings_path, write_embeddings
from face_encode.pipeline.embedding_table import EmbeddingSettings
from face_encode.types import check_count

_NO_TEXT = "its name is no text (UTF-8); rename it"


@dataclass(frozen=True)
class EmbeddingReport:
    """The outcome of embedding a folder.

    Attributes:
        photos: Photos in the folder and below it.
        faces: Faces embedded, the rows of the file.
        resumed: How many of the photos an interrupted run had done already.
        left_out: Each photo without a row, and each folder that cannot be listed, with the reason.
        did: What was done with the faces, in the report's words.
        notes: Remarks on photos: that a file lacks its end, or how small a face was not looked for.
    """

    photos: int
    faces: int
    resumed: int = 0
    left_out: tuple[tuple[str, str], ...] = ()
    did: str = "embedded"
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.faces:,} faces in {self.photos:,} photos {self.did}"
            + (f" ({self.resumed:,} photos by an interrupted run before)" if self.resumed else "")
            + (f", {len(self.left_out):,} left out" if self.left_out else "")
        )


def embed_folder(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    detector: Detector,
    encoder: Encoder,
    *,
    faces: Literal["all", "largest"] = "all",
    raw: bool = False,
    int8: bool = False,
    restart: bool = False,
    workers: int | None = None,
    progress: bool = True,
    batch_size: int | None = None,
) -> EmbeddingReport:
    """Embed the faces of all photos in a folder and below it, into a file.

    A run that was killed is resumed by the same call. The output appears when all is done; a
    former one stays until then. Memory grows with the folder by the photos' names and notes only,
    and for ``.npz``, which is put together in memory, by the embeddings.

    Args:
        folder: The photos; hidden files and folders are passed over.
        output: Ends in ``.npz`` or ``.parquet``. Beside it, with ``.unfinished`` behind its name,
            lies the checkpoint until the file is done.
        detector: Finds the faces.
        encoder: Embeds them.
        faces: ``"all"`` of each photo, or its ``"largest"``.
        raw: Whether to keep embeddings as the network gives them, instead of at length 1.
        int8: Whether to keep them as a byte a number.
        restart: Whether to discard what an interrupted run has embedded.
        workers: Processes that read and detect; None chooses.
        progress: Whether to show a progress bar.
        batch_size: Faces that go through the encoder together; None chooses.

    Raises:
        DatasetError: The folder is missing, or holds no photo.
        EmbeddingFileError: The output cannot be written, the checkpoint is of a run with other
            settings or another engine, or damaged, or another process is at work on it.
        InputError: Settings that exclude each other, or a count that is none.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    if batch_size is not None:
        check_count(batch_size, "batch_size")
    settings = settings_of(detector, encoder, faces=faces, raw=raw, int8=int8)
    target, top = as_path(output), as_path(folder)
    check_embeddings_path(target)
    check_writable(target, EmbeddingFileError)
    photos, unlisted = photos_below(top)
    if not photos:
        raise no_photo_below(top, unlisted)
    photos, unnamed = with_names_of_text(photos)
    path = target.with_name(f"{target.name}{CHECKPOINT_SUFFIX}")
    run_settings = {"run": "embed", "engine": encoder.engine, **asdict(settings)}
    left_out = [*unlisted, *unnamed]
    notes: list[str] = []
    face_count = 0
    with checkpoint_in(path, run_settings, EmbeddingFileError, restart=restart) as checkpoint:
        run = Run(photos, checkpoint, "Embedding", top=top, progress=progress)
        for batch in run.batches(
            ((row, top / photos[row]) for row in run.waiting),
            detector,
            encoder,
            max_faces=None if faces == "all" else 1,
            workers=workers,
            batch_size=batch_size,
        ):
            run.keep(batch)

        def results() -> Iterator[EmbeddedPhoto]:
            """Every photo, from the checkpoint, in the order of the folder; those without first."""
            nonlocal face_count
            yield from (without_embeddings(*each) for each in (*unlisted, *unnamed))
            for photo in photos:
                result = checkpoint.result(photo)
                face_count += len(result.embeddings)
                if result.error is not None:
                    left_out.append((photo, result.error))
                result = replace(result, notes=(*result.notes, *notes_on(detector, *result.size)))
                notes.extend(f"{photo}: {note}" for note in result.notes)
                yield result

        quantizer = None
        if int8:
            # Centred on the mean of all embeddings of the run.
            embedded = (checkpoint.result(photo).embeddings for photo in photos)
            found = (each for each in embedded if len(each))
            first = next(found, None)
            quantizer = (
                Quantizer(np.zeros(settings.embedding_size, np.float32))
                if first is None
                else Quantizer.fitted_to(chain([first], found))
            )
        write_embeddings(target, settings, results(), quantizer)
        checkpoint.remove()
    return EmbeddingReport(
        photos=len(photos) + len(unnamed),
        faces=face_count,
        resumed=len(run.done),
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def settings_of(
    detector: Detector,
    encoder: Encoder,
    *,
    faces: Literal["all", "largest"],
    raw: bool,
    int8: bool,
) -> EmbeddingSettings:
    """The settings of a run's embeddings; see ``embed_folder``.

    Raises:
        InputError: Settings that exclude each other.
    """
    return EmbeddingSettings(
        encoder=encoder.name,
        fingerprint=encoder.fingerprint,
        embedding_size=encoder.embedding_size,
        detector=detector.name,
        faces=faces,
        raw=raw,
        int8=int8,
    )


def with_names_of_text(photos: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The photos whose names any format can hold, and the others with the reason."""
    fine, others = [], []
    for photo in photos:
        try:
            photo.encode()
            fine.append(photo)
        except UnicodeEncodeError:
            others.append((os.fsencode(photo).decode(errors="backslashreplace"), _NO_TEXT))
    return fine, others
