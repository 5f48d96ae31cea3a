"""Embeddings of a whole folder, in a file: resumable after a kill, in little memory.

What has been embedded goes into a journal beside the output, from which the finished file is put
together; see ``resuming``. The same call after a kill goes on, and ends with the same file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import EmbeddingFileError
from face_encode.files import as_path, check_writable
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import no_photo_below, photos_below
from face_encode.pipeline.checkpoint import UNFINISHED_SUFFIX, UnfinishedRun
from face_encode.pipeline.embedding import EmbeddedPhoto, embed_batches
from face_encode.pipeline.embedding_file import check_embeddings_path, write_embeddings
from face_encode.pipeline.embedding_table import EmbeddingSettings, PhotoFaces
from face_encode.terminal import tracked

_NO_TEXT = "its name is no text (UTF-8); rename it"


@dataclass(frozen=True)
class EmbeddingReport:
    """What became of the photos of a folder.

    Attributes:
        photos: Photos in the folder and below it.
        faces: Faces embedded, the rows of the file.
        resumed: How many of the photos an interrupted run had done already.
        left_out: Each photo without a row, and why; also folders that cannot be listed.
    """

    photos: int
    faces: int
    resumed: int = 0
    left_out: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self) -> str:
        """The counts, in a line."""
        return (
            f"{self.faces:,} faces in {self.photos:,} photos embedded"
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

    A run that was killed is continued by the same call. The output appears when all is done; a
    former one stays until then. Memory grows with the folder by the photos' names only, and for
    ``.npz``, which is put together in memory, by the embeddings.

    Args:
        folder: The photos; hidden files and folders are passed over.
        output: Ends in ``.npz`` or ``.parquet``. Beside it, with ``.unfinished`` behind its name,
            lies the journal until the file is done.
        detector: Finds the faces.
        encoder: Embeds them.
        faces: ``"all"`` of each photo, or its ``"largest"``.
        raw: Whether to keep embeddings as the network gives them, instead of at length 1.
        int8: Whether to keep them as a byte a number.
        restart: Whether to begin anew where there is a journal.
        workers: Processes that read and detect; None chooses.
        progress: Whether to show a progress bar.
        batch_size: Faces that go through the encoder together; None chooses.

    Raises:
        DatasetError: The folder is missing, or holds no photo.
        EmbeddingFileError: The output cannot be written, the journal is of a run with other
            settings or another engine, or another process is at work on it.
        InputError: Settings that exclude each other.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    settings = settings_of(detector, encoder, faces=faces, raw=raw, int8=int8)
    target, top = as_path(output), as_path(folder)
    check_embeddings_path(target)
    check_writable(target, EmbeddingFileError)
    photos, unlisted = photos_below(top)
    if not photos:
        raise no_photo_below(top, unlisted)
    photos, unnamed = with_names_of_text(photos)
    journal_path = target.with_name(f"{target.name}{UNFINISHED_SUFFIX}")
    run_settings = {"run": "embed", "engine": encoder.engine, **asdict(settings)}
    with UnfinishedRun(
        journal_path, run_settings, EmbeddingFileError, restart=restart
    ) as unfinished:
        done = unfinished.resume(photos, top)
        run = _Run(top, photos, unfinished)
        batches = embed_batches(
            run.todo(),
            detector,
            encoder,
            max_faces=None if faces == "all" else 1,
            workers=workers,
            digests=True,
            batch_size=batch_size,
        )
        kept = _kept(batches, unfinished)
        for _ in tracked(kept, len(photos), "Embedding", show=progress, done=done):
            pass
        quantizer = run.quantizer(settings) if int8 else None
        write_embeddings(target, settings, run.finished((*unlisted, *unnamed)), quantizer)
        unfinished.remove()
    return EmbeddingReport(
        photos=len(photos) + len(unnamed),
        faces=run.face_count,
        resumed=done,
        left_out=(*unlisted, *unnamed, *run.left_out),
    )


def settings_of(
    detector: Detector,
    encoder: Encoder,
    *,
    faces: Literal["all", "largest"],
    raw: bool,
    int8: bool,
) -> EmbeddingSettings:
    """What a run's embeddings are made by; see ``embed_folder``.

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


class _Run:
    """One run over a folder, with what its journal holds.

    Attributes:
        face_count: Faces met while the file was put together.
        left_out: Photos without any, and why.
    """

    def __init__(self, top: Path, photos: Sequence[str], unfinished: UnfinishedRun) -> None:
        """Nothing is done yet."""
        self._top, self._photos, self._unfinished = top, photos, unfinished
        self.face_count = 0
        self.left_out: list[tuple[str, str]] = []

    def todo(self) -> Iterator[Path]:
        """The photos that are not done, as they are asked for."""
        for row, photo in enumerate(self._photos):
            if not self._unfinished.is_done(row):
                self._unfinished.begin(row)
                yield self._top / photo

    def _all(self) -> Iterator[PhotoFaces]:
        """Every photo, from the journal, in the order of the folder."""
        for row, photo in enumerate(self._photos):
            yield faces_of(self._unfinished.result(row), photo)

    def quantizer(self, settings: EmbeddingSettings) -> Quantizer:
        """Centred on the mean of all embeddings of the run."""
        if not any(len(each.boxes) for each in self._all()):
            return Quantizer(np.zeros(settings.embedding_size, np.float32))
        return Quantizer.fitted_to(each.embeddings for each in self._all() if len(each.boxes))

    def finished(self, others: Sequence[tuple[str, str]]) -> Iterator[PhotoFaces]:
        """Every photo for the file, those that were never opened first; counts them."""
        for name, reason in others:
            yield without_faces(name, reason)
        for each in self._all():
            self.face_count += len(each.boxes)
            if each.error is not None:
                self.left_out.append((each.photo, each.error))
            yield each


def _kept(
    batches: Iterator[list[EmbeddedPhoto]], unfinished: UnfinishedRun
) -> Iterator[EmbeddedPhoto]:
    """The photos of batches, each of which is in the journal by then."""
    for batch in batches:
        unfinished.keep(batch)
        yield from batch


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


def without_faces(photo: str, reason: str, digest: str = "", size: int = 0) -> PhotoFaces:
    """What a file says of a photo in which no face was embedded."""
    return PhotoFaces(
        photo,
        digest,
        np.empty((0, 4), np.int32),
        np.empty(0, np.float32),
        np.empty((0, size), np.float32),
        reason,
    )


def faces_of(found: EmbeddedPhoto, photo: str) -> PhotoFaces:
    """What the pipeline found in a photo, under the name that it has in the file."""
    if found.error is not None:
        return without_faces(photo, found.error, found.digest, found.embeddings.shape[1])
    faces = found.faces[: len(found.embeddings)]
    boxes = [(face.box.left, face.box.top, face.box.width, face.box.height) for face in faces]
    return PhotoFaces(
        photo,
        found.digest,
        np.array(boxes, np.int32),
        np.array([face.score for face in faces], np.float32),
        found.embeddings,
    )
