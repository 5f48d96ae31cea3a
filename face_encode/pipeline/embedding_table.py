"""The content of a file of embeddings, of either format."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from face_encode.errors import EmbeddingFileError, InputError
from face_encode.files import TextArray
from face_encode.gallery.distances import unit_length
from face_encode.gallery.quantization import Codes, Quantizer
from face_encode.types import Box, Embeddings, Quality

FORMAT_VERSION = 1


@dataclass(frozen=True)
class EmbeddingSettings:
    """The encoder, detector and options that the embeddings of a file were made by.

    Attributes:
        encoder: The encoder's name.
        fingerprint: Its fingerprint: embeddings of two files can be compared exactly when these
            are equal.
        embedding_size: Length D of an embedding.
        detector: The detector's name.
        faces: ``"all"`` of a photo, or its ``"largest"``.
        raw: Whether embeddings are as the network gives them; else they have length 1.
        int8: Whether they are kept as a byte a number.
    """

    encoder: str
    fingerprint: str
    embedding_size: int
    detector: str
    faces: Literal["all", "largest"] = "all"
    raw: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        """Refuse options that exclude each other.

        Raises:
            InputError: Other faces than those, or raw embeddings as int8.
        """
        if self.faces not in ("all", "largest"):
            raise InputError(f"faces are 'all' or 'largest'. Received: {self.faces!r}")
        if self.raw and self.int8:
            raise InputError(
                "int8 keeps the direction of an embedding only, and raw keeps its length too: "
                "choose one of the two. Received: both"
            )

    def to_json(self) -> str:
        """The settings as JSON; equal settings give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EmbeddingSettings:
        """Settings from the JSON of a file.

        Raises:
            InputError: Not these settings.
        """
        try:
            values = json.loads(text)
            kinds = {name: type(value) for name, value in values.items()}
            expected = {name: type(value) for name, value in asdict(cls("", "", 0, "")).items()}
            if kinds != expected:
                raise ValueError(f"fields {sorted(kinds)}")
            return cls(**values)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"its settings are damaged: {error}") from error


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """A file of embeddings in memory: one row a face.

    Attributes:
        photos: str ``(N,)``, path of each face's photo, relative to the folder, parted by ``/``.
        digests: str ``(N,)``, SHA-256 of the photo's content.
        faces: int32 ``(N,)``, number of the face in its photo, 0 for the largest.
        boxes: int32 ``(N, 4)``: left, top, width, height, in pixels of the photo.
        scores: float32 ``(N,)``, the detector's confidence.
        qualities: float32 ``(N,)``, how far each embedding can be trusted, 0..1; NaN where that is
            not known.
        quality_reasons: str ``(N,)``, why one cannot be trusted; empty where it can.
        kept: The embeddings as they are kept: float32 ``(N, D)``, or int8 codes.
        quantizer: What int8 codes stand for; None for float32.
        left_out: Each photo without a row, and why.
        settings: What made them.
    """

    photos: TextArray
    digests: TextArray
    faces: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    qualities: npt.NDArray[np.float32]
    quality_reasons: TextArray
    kept: Embeddings | Codes
    quantizer: Quantizer | None
    left_out: tuple[tuple[str, str], ...]
    settings: EmbeddingSettings

    def __post_init__(self) -> None:
        count = len(self.photos)
        columns = (self.digests, self.faces, self.boxes, self.scores, self.qualities)
        expected = (count, self.settings.embedding_size)
        lengths = {len(column) for column in (*columns, self.quality_reasons)}
        if lengths != {count} or self.boxes.shape != (count, 4):
            raise InputError("its columns are of unequal lengths")
        if self.kept.shape != expected:
            raise InputError(f"embeddings have shape {expected}. Received: {self.kept.shape}")
        if (self.quantizer is None) != (self.kept.dtype == np.float32) or (
            self.quantizer is not None
            and (self.kept.dtype != np.int8 or self.quantizer.centre.shape != expected[1:])
        ):
            raise InputError("embeddings are float32, or int8 with a centre")

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def embeddings(self) -> Embeddings:
        """float32 ``(N, D)``; of int8 codes, the vectors that they stand for."""
        if self.quantizer is None:
            return np.asarray(self.kept, np.float32)
        return self.quantizer.dequantize(np.asarray(self.kept, np.int8))

    def quality(self, row: int) -> Quality | None:
        """The quality of a row's face; None where it is not known."""
        value = float(self.qualities[row])
        return None if math.isnan(value) else Quality(value, self.quality_reasons[row] or None)

    def box(self, row: int) -> Box:
        """The box of a row's face in its photo."""
        return Box(*self.boxes[row].tolist())


def check_version(version: object, name: str) -> None:
    """Refuse a file, called ``name`` in the error, of a later release.

    Raises:
        EmbeddingFileError: Another version than this release's.
    """
    if version != FORMAT_VERSION:
        raise EmbeddingFileError(
            f"{name} was written by a later release of face_encode; this one reads version "
            f"{FORMAT_VERSION}. Received: version {version}"
        )


def finished(
    embeddings: Embeddings, settings: EmbeddingSettings, quantizer: Quantizer | None
) -> Embeddings | Codes:
    """Embeddings as the network gave them, in the form that the settings ask for."""
    if quantizer is not None:
        return quantizer.quantize(embeddings)
    return embeddings if settings.raw else unit_length(embeddings)
