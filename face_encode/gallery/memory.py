"""The gallery in memory: one array of embeddings, one of names; kept in an ``.npz`` file."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from face_encode.archives import (
    Arrays,
    TextArray,
    read_archive,
    read_open_archive,
    text_array,
    write_archive,
)
from face_encode.calibration import Calibration
from face_encode.distances import Metric, check_metric
from face_encode.errors import GalleryError, InputError
from face_encode.files import as_path, replacing
from face_encode.gallery.checking import (
    check_embeddings,
    check_labels,
    check_probes,
    check_shape,
)
from face_encode.gallery.gallery import (
    EncoderIdentity,
    Mark,
    Ranking,
    Replaces,
    check_encoder,
    check_ranking,
)
from face_encode.gallery.names import check_name
from face_encode.gallery.npz_file import (
    GALLERY_FORM,
    NEWEST_VERSION,
    PLAIN_VERSION,
    check_file_name,
)
from face_encode.gallery.search_index import SearchIndex
from face_encode.quantization import Codes, Quantizer
from face_encode.types import Embeddings, Match, check_count

# On the unit sphere Euclidean distances rank as cosine does, and need no search of their own.
GALLERY_METRICS: tuple[Metric, ...] = ("cosine", "euclidean")


class MemoryGallery:
    """Embeddings and names as two arrays; exact search by one matrix product.

    Attributes:
        metric: What a search compares by: ``"cosine"``, or ``"euclidean"``, where a similarity
            is the distance of the embeddings as they are, below 0.
        kept: The embeddings as they are kept, in the order of enrolment: float32 ``(n, D)`` as
            the encoder gave them; or int8 ``(n, D)``, a byte a number, by ``quantizer``.
        quantizer: What int8 embeddings stand for; None before the first of them, which sets it,
            and for float32.
        names: n names, str array.
        digests: n content digests of photos, empty where unknown, str array.
        encoder_name: The encoder that fills it.
        encoder_fingerprint: Its fingerprint.
        detector_name: The detector that found the faces, empty where unknown.
    """

    def __init__(
        self,
        encoder: EncoderIdentity,
        path: str | os.PathLike[str] | None = None,
        *,
        int8: bool = False,
        metric: Metric = "cosine",
    ) -> None:
        """Make an empty gallery.

        Args:
            encoder: Whose embeddings it takes.
            path: Where ``close`` and ``save`` without a path write it, or None.
            int8: Whether to keep a quarter of the bytes, and of each embedding the direction
                only, which is all that a search by cosine looks at.
            metric: One of ``GALLERY_METRICS``.

        Raises:
            InputError: No such metric, or int8 for one that looks at lengths.
        """
        self.metric = check_metric(metric, GALLERY_METRICS)
        self.encoder_name = encoder.name
        self.encoder_fingerprint = encoder.fingerprint
        self.detector_name = ""
        self._calibration: Calibration | None = None
        self._path = None if path is None else as_path(path)
        self._changed = False
        self._index: SearchIndex | None = None
        self.quantizer: Quantizer | None = None
        self._set(np.empty((0, encoder.embedding_size), np.float32), text_array([]), text_array([]))
        if int8:
            self.quantize()

    def _set(self, kept: Embeddings | Codes, names: TextArray, digests: TextArray) -> None:
        """Take new arrays; the former ones are never written into, so views stay valid."""
        self.kept, self.names, self.digests = kept, names, digests
        self._index = None
        self._changed = True

    @property
    def calibration(self) -> Calibration | None:
        """What ``face-encode calibrate`` learnt for this encoder, or None."""
        return self._calibration

    @calibration.setter
    def calibration(self, learnt: Calibration | None) -> None:
        self._calibration = learnt
        self._changed = True

    @property
    def is_shared(self) -> bool:
        """False: it is this program's own, and others read its file at the most."""
        return False

    @property
    def precision(self) -> Literal["float32", "int8"]:
        """``"float32"``, or ``"int8"`` where the embeddings are kept as a byte a number."""
        return "int8" if self.kept.dtype == np.int8 else "float32"

    @property
    def embeddings(self) -> Embeddings:
        """float32 ``(n, D)``, in the order of enrolment; from int8 widened anew, of length 1."""
        return self._widened(self.kept)

    def _widened(self, kept: npt.NDArray[Any]) -> Embeddings:
        """Rows as float32, in whatever precision they are kept."""
        if kept.dtype == np.int8 and len(kept) and self.quantizer is not None:
            return self.quantizer.dequantize(kept)
        return np.asarray(kept, np.float32)

    def quantize(self) -> None:
        """Go over to int8 for good: what is enrolled, and whatever will be.

        From then on ``embeddings`` has rows of length 1. Once is enough: again changes nothing.

        Raises:
            InputError: The gallery is searched by Euclidean distance, which looks at lengths.
        """
        if self.metric != "cosine":
            raise InputError(
                "int8 keeps the direction of an embedding only, which is enough for the metric "
                f"'cosine'. Received: a gallery of the metric {self.metric!r}"
            )
        if self.precision == "float32":
            former = self.embeddings
            self._set(np.empty(former.shape, np.int8), self.names, self.digests)
            self.kept = self._as_kept(former)

    def _as_kept(self, embeddings: Embeddings) -> Embeddings | Codes:
        """Embeddings in the precision of this gallery."""
        if self.precision == "float32":
            return embeddings
        if not len(embeddings):
            return np.empty(embeddings.shape, np.int8)
        if self.quantizer is None:
            # Of the first that come; a later mean would round all of them once more.
            self.quantizer = Quantizer.fitted_to([embeddings])
        return self.quantizer.quantize(embeddings)

    def __len__(self) -> int:
        """Number of embeddings enrolled."""
        return len(self.names)

    def add(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str] | None = None,
    ) -> None:
        """Enrol embeddings; see ``Gallery.add``.

        Raises:
            InputError: Another number or length of embeddings, one that is not finite or is
                all zeros, or a name that is empty.
        """
        added = check_embeddings(embeddings, names, self.kept.shape[1])
        new_digests = check_labels(names, digests)
        self._set(
            np.concatenate([self.kept, self._as_kept(added)]),
            np.concatenate([self.names, text_array(names)]),
            np.concatenate([self.digests, text_array(new_digests)]),
        )

    def mark(self, names: Collection[str] | None = None) -> Mark:
        """None: nobody else changes this gallery."""
        return None

    def replace(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str],
        replaces: Replaces = "all",
        *,
        detector_name: str = "",
        mark: Mark = None,
    ) -> None:
        """Enrol embeddings in the place of others; see ``Gallery.replace``.

        Raises:
            InputError: As for ``add``; then nothing has changed.
        """
        former = self.kept, self.names, self.digests
        stay = np.full(len(self), replaces == "nothing")
        if replaces == "same people":
            stay = ~np.isin(self.names, text_array(names))
        self._set(self.kept[stay], self.names[stay], self.digests[stay])
        try:
            self.add(names, embeddings, digests)
        except InputError:
            self._set(*former)
            raise
        # Where people stay whom another detector found, none can be named for all: nothing is
        # then taken for unchanged later.
        if stay.any() and self.detector_name != detector_name:
            detector_name = ""
        self.detector_name = detector_name

    def search(
        self, embeddings: Embeddings, k: int = 1, ranking: Ranking = "best"
    ) -> list[list[Match]]:
        """Find the nearest people by the gallery's metric; see ``Gallery.search``.

        Raises:
            InputError: Another length of embedding, one that is not finite, k below 1, or no
                such ranking.
        """
        probes = check_probes(embeddings, self.kept.shape[1])
        k, ranking = check_count(k, "k"), check_ranking(ranking)
        if not len(self):
            return [[] for _ in probes]
        if self._index is None:
            self._index = SearchIndex.of(self.kept, self.quantizer, self.names, self.metric)
        return self._index.search(probes, k, ranking)

    def remove(self, name: str) -> int:
        """Take a person out without touching the others.

        Raises:
            GalleryError: No such person.
        """
        keep = self.names != name
        removed = len(self) - int(keep.sum())
        if not removed:
            raise GalleryError(f"nobody named {name!r} is enrolled")
        self._set(self.kept[keep], self.names[keep], self.digests[keep])
        return removed

    def rename(self, name: str, new_name: str) -> int:
        """Call a person otherwise; returns how many embeddings that were.

        Raises:
            InputError: The new name is none.
            GalleryError: No such person, or the new name is another person's.
        """
        check_name(new_name)
        hers = self.names == name
        count = int(hers.sum())
        if not count:
            raise GalleryError(f"nobody named {name!r} is enrolled")
        if new_name != name and (self.names == new_name).any():
            raise GalleryError(f"somebody named {new_name!r} is enrolled already")
        names = self.names.astype(np.result_type(self.names, np.str_(new_name)))
        names[hers] = new_name
        self._set(self.kept, names, self.digests)
        return count

    def copy(self) -> MemoryGallery:
        """The same people in a gallery that changes apart from this one.

        The arrays, which are never written into, are shared until then.
        """
        return copy.copy(self)

    def people(self) -> dict[str, int]:
        """How many embeddings each person has, in the order of enrolment."""
        return dict(Counter(self.names.tolist()))

    def known_photos(
        self, detector_name: str, digests: Collection[str] | None = None
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Content digest -> embedding of the photos enrolled with the help of this detector."""
        if detector_name != self.detector_name:
            return {}
        rows = zip(self.digests.tolist(), self.embeddings, strict=True)
        return {digest: row for digest, row in rows if digest}

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the gallery to an ``.npz`` file, atomically.

        Args:
            path: Where to; without one, where it was opened from.

        Raises:
            GalleryError: The name does not end in ``.npz``, or it cannot be written.
        """
        target = self._path if path is None else as_path(path)
        if target is None:
            raise GalleryError("this gallery was not opened from a file; save it to a path")
        check_file_name(target)
        with replacing(target, GalleryError) as temporary:
            self.write(temporary)
        self._changed = False

    def write(self, file: Path | BinaryIO) -> None:
        """Write the ``.npz`` archive as it is, to a path or into an open file."""
        plain = self.precision == "float32" and self.metric == "cosine"
        arrays: Arrays = {
            "format_version": np.array(PLAIN_VERSION if plain else NEWEST_VERSION),
            "encoder_name": np.array(self.encoder_name),
            "encoder_fingerprint": np.array(self.encoder_fingerprint),
            "detector_name": np.array(self.detector_name),
            "metric": np.array(self.metric),
            "names": self.names,
            "digests": self.digests,
            "embeddings": self.kept,
            "calibration": np.array("" if self.calibration is None else self.calibration.to_json()),
        }
        if self.quantizer is not None:
            arrays["centre"] = self.quantizer.centre
        write_archive(file, arrays)

    def close(self) -> None:
        """Save what has changed, where the gallery was opened from a file."""
        if self._path is not None and self._changed:
            self.save()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        encoder: EncoderIdentity,
        *,
        metric: Metric | None = "cosine",
    ) -> MemoryGallery:
        """Read a gallery from an ``.npz`` file.

        Args:
            path: The file.
            encoder: The encoder that filled it.
            metric: The metric that it has to be searched by; None takes the file's.

        Raises:
            GalleryError: Missing, damaged, searched by another metric, or written by a later
                release.
            WrongEncoderError: Another encoder filled it.
        """
        path = as_path(path)
        check_file_name(path)
        stored = read_archive(path, GALLERY_FORM)
        return cls._of(stored, str(path), encoder, metric, path)

    @classmethod
    def read(cls, file: BinaryIO, encoder: EncoderIdentity, label: str) -> MemoryGallery:
        """Read a gallery from an open ``.npz`` archive; ``label`` is what it is called in errors.

        Raises:
            GalleryError: Damaged, searched by another metric than cosine, or written by a later
                release.
            WrongEncoderError: Another encoder filled it.
            OSError: The file cannot be read.
        """
        return cls._of(read_open_archive(file, label, GALLERY_FORM), label, encoder, "cosine")

    @classmethod
    def _of(
        cls,
        stored: Arrays,
        label: str,
        encoder: EncoderIdentity,
        metric: Metric | None,
        path: Path | None = None,
    ) -> MemoryGallery:
        """The gallery whose arrays a file holds."""
        name, fingerprint = str(stored["encoder_name"]), str(stored["encoder_fingerprint"])
        check_encoder(label, name, fingerprint, encoder)
        # Files from before there was a choice are searched by cosine.
        kept = str(stored.get("metric", "cosine"))
        if metric not in (None, kept):
            raise GalleryError(
                f"{label} is searched by the metric {kept!r}, here it is {metric!r}: open it with "
                "face_encode.ReferenceEmbeddings.load"
            )
        try:
            gallery = cls(encoder, path, metric=check_metric(kept))
            gallery.detector_name = str(stored["detector_name"])
            names, digests = stored["names"].tolist(), stored["digests"].tolist()
            if stored["embeddings"].dtype.kind == "i":
                gallery._take_codes(names, stored["embeddings"], digests, stored.get("centre"))
            else:
                gallery.add(names, stored["embeddings"], digests)
            if text := str(stored.get("calibration", "")):
                gallery.calibration = Calibration.from_json(text)
        except InputError as error:
            raise GalleryError(f"the gallery {label} is damaged: {error}") from error
        gallery._changed = False
        return gallery

    def _take_codes(
        self,
        names: Sequence[str],
        codes: npt.NDArray[Any],
        digests: Sequence[str],
        centre: npt.NDArray[Any] | None,
    ) -> None:
        """Enrol what a file holds as int8, without widening it."""
        check_shape(codes.shape, names, self.kept.shape[1])
        new_digests = check_labels(names, digests)
        if codes.dtype != np.int8:
            raise InputError(f"whole numbers as embeddings are int8. Received: {codes.dtype}")
        if centre is not None:
            self.quantizer = Quantizer(np.asarray(centre, np.float32))
        if len(codes) and (centre is None or centre.shape != codes.shape[1:]):
            received = "none" if centre is None else f"shape {centre.shape}"
            raise InputError(
                f"int8 embeddings have a 'centre' of shape {codes.shape[1:]}. Received: {received}"
            )
        self._set(codes, text_array(names), text_array(new_digests))
