"""Age, gender and expression of the faces in many photos, and of a whole folder in a table.

A network of attributes goes through the pipeline as an encoder does, and its rows of numbers take
the place of the embeddings: so processes find the faces, batches are made, and a run over a folder
is resumed after a kill, all as for embeddings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from face_encode.attributes.answers import EXPRESSIONS, GENDERS, Attributes, read_answers
from face_encode.attributes.network import AttributeNetwork
from face_encode.detectors.base import Detector, notes_on
from face_encode.errors import EmbeddingFileError
from face_encode.files import as_path, check_writable, replacing
from face_encode.liveness.judging import LivenessJudge
from face_encode.photos.folders import no_photo_below, photos_below
from face_encode.pipeline.checkpoint import CHECKPOINT_SUFFIX, Run, checkpoint_in
from face_encode.pipeline.embedding import (
    NO_FACE,
    EmbeddedPhoto,
    embed_photos,
    without_embeddings,
)
from face_encode.pipeline.folder import EmbeddingReport, with_names_of_text
from face_encode.pipeline.parquet import check_pyarrow
from face_encode.types import Face, Photo, check_counts

# Rows of a table that are written together.
_ROW_GROUP = 32_768


@dataclass(frozen=True, eq=False)
class AnalyzedPhoto:
    """A photo, the faces in it and what they show.

    Attributes:
        photo: Its path, or ``array``.
        faces: The faces, the largest first, each with its quality, and its liveness where asked.
        attributes: What each shows.
        size: Width and height of the photo in pixels, ``(0, 0)`` where it cannot be read.
        error: Why the photo cannot be read, or None. A photo without a face is no error.
        notes: Remarks on the file, and on what the detector did not look for in it.
    """

    photo: str
    faces: tuple[Face, ...]
    attributes: tuple[Attributes, ...]
    size: tuple[int, int]
    error: str | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The photo as plain JSON values, see ``face_encode.analyze``."""
        faces = [
            face_as_dict(face, shown)
            for face, shown in zip(self.faces, self.attributes, strict=True)
        ]
        notes = list(self.notes)
        return {"photo": self.photo, "faces": faces, "error": self.error, "notes": notes}


def face_as_dict(face: Face, shown: Attributes) -> dict[str, Any]:
    """A face and what it shows as plain JSON values; see ``analyze``."""
    quality = face.quality
    return {
        "bounding_box": face.box.as_dict(),
        **shown.as_dict(),
        "quality": None if quality is None else round(quality.value, 4),
        "quality_reason": quality and quality.reason,
        **(face.liveness.as_dict() if face.liveness else {}),
    }


def analyzed(photo: EmbeddedPhoto, network: AttributeNetwork, detector: Detector) -> AnalyzedPhoto:
    """What the faces of a photo show, whose "embeddings" are the network's rows."""
    faces = photo.faces[: len(photo.embeddings)]
    attributes = (
        read_answers(photo.embeddings, network.calibration, [face.quality for face in faces])
        if len(faces)
        else []
    )
    error = None if photo.error == NO_FACE else photo.error
    notes = (*photo.notes, *notes_on(detector, *photo.size))
    return AnalyzedPhoto(photo.photo, faces, tuple(attributes), photo.size, error, notes)


def analyze_photos(
    photos: Iterable[Photo],
    detector: Detector,
    network: AttributeNetwork,
    *,
    max_faces: int | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    judge: LivenessJudge | None = None,
) -> Iterator[AnalyzedPhoto]:
    """Tell what the faces of many photos show, in their order, with bounded memory.

    A photo that cannot be read is an element with its ``error``, never an exception. The arguments
    are those of ``embed_photos``, and the network of attributes.
    """
    embedded = embed_photos(
        photos,
        detector,
        network.encoder,
        max_faces=max_faces,
        workers=workers,
        batch_size=batch_size,
        judge=judge,
    )
    return (analyzed(photo, network, detector) for photo in embedded)


def analyze_folder(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    detector: Detector,
    network: AttributeNetwork,
    *,
    max_faces: int | None = None,
    restart: bool = False,
    workers: int | None = None,
    progress: bool = True,
    batch_size: int | None = None,
    judge: LivenessJudge | None = None,
) -> EmbeddingReport:
    """Tell what the faces of all photos in a folder and below it show, in a Parquet table.

    A row a face: ``photo`` (path relative to the folder), ``face`` (0 for the photo's largest),
    ``left``, ``top``, ``width``, ``height``, ``age``, ``age_low``, ``age_high``, ``gender``,
    ``woman``, ``man``, ``expression``, a column for each expression's probability, ``quality``,
    ``quality_reason``, with a judge ``liveness`` and ``is_live``, ``error`` and ``notes``, a list
    of the remarks on the photo. A photo without a face has one row, with the reason in ``error``. A
    run that was killed is resumed by the same call, as for ``embed_folder``, which has the other
    arguments; ``judge`` is that of ``embed_photos``.

    Returns:
        The number of photos and faces, and each photo without a face.

    Raises:
        DatasetError: The folder is missing, or holds no photo.
        EmbeddingFileError: The output does not end in ``.parquet`` or cannot be written, or the
            checkpoint is of a run with other settings.
        InputError: A count that is none.
        MissingExtraError: pyarrow is not installed.
    """
    check_pyarrow()
    check_counts(max_faces=max_faces, workers=workers, batch_size=batch_size)
    target, top = as_path(output), as_path(folder)
    if target.suffix != ".parquet":
        raise EmbeddingFileError(f"a table's name ends in .parquet. Received: {target}")
    check_writable(target, EmbeddingFileError)
    photos, unlisted = photos_below(top)
    if not photos:
        raise no_photo_below(top, unlisted)
    photos, unnamed = with_names_of_text(photos)
    encoder = network.encoder
    settings = {
        "run": "analyze",
        "engine": encoder.engine,
        "encoder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "embedding_size": encoder.embedding_size,
        "calibration": asdict(network.calibration),
        "detector": detector.name,
        "max_faces": max_faces,
        "liveness_threshold": None if judge is None else judge.threshold,
    }
    left_out = [*unlisted, *unnamed]
    notes: list[str] = []
    face_count = 0
    path = target.with_name(f"{target.name}{CHECKPOINT_SUFFIX}")
    with checkpoint_in(path, settings, EmbeddingFileError, restart=restart) as checkpoint:
        run = Run(photos, checkpoint, "Analyzing", top=top, progress=progress)
        for batch in run.batches(
            ((row, top / photos[row]) for row in run.waiting),
            detector,
            encoder,
            max_faces=max_faces,
            workers=workers,
            batch_size=batch_size,
            judge=judge,
        ):
            run.keep(batch)

        def results() -> Iterator[AnalyzedPhoto]:
            """Every photo, in the order of the folder; those without a name of text first."""
            nonlocal face_count
            for each in (*unlisted, *unnamed):
                yield analyzed(without_embeddings(*each), network, detector)
            for photo in photos:
                embedded = checkpoint.result(photo)
                face_count += len(embedded.embeddings)
                if embedded.error is not None:
                    left_out.append((photo, embedded.error))
                told = analyzed(embedded, network, detector)
                notes.extend(f"{photo}: {note}" for note in told.notes)
                yield told

        _write(target, results(), settings)
        checkpoint.remove()
    return EmbeddingReport(
        photos=len(photos) + len(unnamed),
        faces=face_count,
        resumed=len(run.done),
        left_out=tuple(left_out),
        did="analyzed",
        notes=tuple(notes),
    )


def _write(path: Path, photos: Iterable[AnalyzedPhoto], settings: dict[str, Any]) -> None:
    """Write a table, in memory of one row group."""
    import pyarrow
    import pyarrow.parquet

    text, number, whole = pyarrow.string(), pyarrow.float32(), pyarrow.int32()
    has_liveness = settings["liveness_threshold"] is not None
    judged = [("liveness", number), ("is_live", pyarrow.bool_())] if has_liveness else []
    schema = pyarrow.schema(
        [
            ("photo", text),
            ("face", whole),
            *((side, whole) for side in ("left", "top", "width", "height")),
            *((name, number) for name in ("age", "age_low", "age_high")),
            ("gender", text),
            *((name, number) for name in GENDERS),
            ("expression", text),
            *((name, number) for name in EXPRESSIONS),
            ("quality", number),
            ("quality_reason", text),
            *judged,
            ("error", text),
            ("notes", pyarrow.list_(text)),
        ],
        metadata={"face_encode_attributes": json.dumps(settings)},
    )
    with (
        replacing(path, EmbeddingFileError) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, write_page_checksum=True) as writer,
    ):
        waiting: list[dict[str, Any]] = []
        for photo in photos:
            waiting += _rows(photo)
            if len(waiting) >= _ROW_GROUP:
                writer.write_table(pyarrow.Table.from_pylist(waiting, schema=schema))
                waiting = []
        writer.write_table(pyarrow.Table.from_pylist(waiting, schema=schema))


def _rows(photo: AnalyzedPhoto) -> list[dict[str, Any]]:
    """A row for each face; one for a photo without any."""
    rows, notes = [], list(photo.notes)
    for number, (face, shown) in enumerate(zip(photo.faces, photo.attributes, strict=True)):
        low, high = shown.age_interval or (None, None)
        rows.append(
            {
                "photo": photo.photo,
                "face": number,
                **asdict(face.box),
                "age": shown.age,
                "age_low": low,
                "age_high": high,
                "gender": shown.gender,
                **(shown.gender_probabilities or {}),
                "expression": shown.expression,
                **(shown.expression_probabilities or {}),
                "quality": face.quality and face.quality.value,
                "quality_reason": face.quality and face.quality.reason,
                **(face.liveness.as_dict() if face.liveness else {}),
                "notes": notes,
            }
        )
    return rows or [{"photo": photo.photo, "error": photo.error or NO_FACE, "notes": notes}]
