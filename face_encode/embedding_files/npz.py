"""Files of embeddings as ``.npz``, which needs nothing but numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.embedding_files.table import (
    FORMAT_VERSION,
    EmbeddingSettings,
    EmbeddingTable,
    PhotoFaces,
    finished,
)
from face_encode.errors import EmbeddingFileError, InputError
from face_encode.files import ArchiveForm, read_archive, text_array, write_archive
from face_encode.gallery.quantization import Codes, Quantizer
from face_encode.types import Embeddings

_FORM = ArchiveForm(
    what="file of embeddings",
    newest=FORMAT_VERSION,
    arrays={
        "settings": ("U", 0),
        "photos": ("U", 1),
        "digests": ("U", 1),
        "faces": ("i", 1),
        "boxes": ("i", 2),
        "scores": ("f", 1),
        "embeddings": ("fi", 2),
        "left_out_photos": ("U", 1),
        "left_out_reasons": ("U", 1),
    },
    optional={"centre": ("f", 1)},
    error_type=EmbeddingFileError,
)


def write_npz(
    path: Path,
    settings: EmbeddingSettings,
    photos: Iterable[PhotoFaces],
    quantizer: Quantizer | None,
) -> None:
    """Collect the rows in memory, and write them all at once; see ``write_embeddings``."""
    names: list[str] = []
    digests: list[str] = []
    numbers: list[int] = []
    left_out: list[tuple[str, str]] = []
    none = np.empty((0, settings.embedding_size), np.float32)
    boxes = [np.empty((0, 4), np.int32)]
    scores = [np.empty(0, np.float32)]
    kept: list[Embeddings | Codes] = [none.astype(np.int8) if settings.int8 else none]
    for each in photos:
        if each.error is not None:
            left_out.append((each.photo, each.error))
            continue
        count = len(each.boxes)
        names += [each.photo] * count
        digests += [each.digest] * count
        numbers += range(count)
        boxes.append(each.boxes)
        scores.append(each.scores)
        kept.append(finished(each.embeddings, settings, quantizer))
    arrays: dict[str, npt.NDArray[Any]] = {
        "format_version": np.array(FORMAT_VERSION),
        "settings": np.array(settings.to_json()),
        "photos": text_array(names),
        "digests": text_array(digests),
        "faces": np.array(numbers, np.int32),
        "boxes": np.concatenate(boxes),
        "scores": np.concatenate(scores),
        "embeddings": np.concatenate(kept),
        "left_out_photos": text_array([photo for photo, _ in left_out]),
        "left_out_reasons": text_array([reason for _, reason in left_out]),
    }
    if quantizer is not None:
        arrays["centre"] = quantizer.centre
    write_archive(path, arrays)


def read_npz(path: Path) -> EmbeddingTable:
    """Read a file; see ``read_embeddings``.

    Raises:
        EmbeddingFileError: Missing, damaged, or of another kind.
        InputError: Its parts do not fit together.
    """
    stored = read_archive(path, _FORM)
    reasons = stored["left_out_reasons"].tolist()
    photos: Sequence[str] = stored["left_out_photos"].tolist()
    if len(photos) != len(reasons):
        raise InputError("its columns are of unequal lengths")
    centre = stored.get("centre")
    return EmbeddingTable(
        photos=stored["photos"],
        digests=stored["digests"],
        faces=stored["faces"],
        boxes=stored["boxes"],
        scores=stored["scores"],
        kept=stored["embeddings"],
        quantizer=None if centre is None else Quantizer(np.asarray(centre, np.float32)),
        left_out=tuple(zip(photos, reasons, strict=True)),
        settings=EmbeddingSettings.from_json(str(stored["settings"])),
    )
