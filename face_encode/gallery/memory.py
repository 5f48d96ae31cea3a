"""The gallery in memory: one array of embeddings, one of names; kept in an ``.npz`` file."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from face_encode.calibration import Calibration
from face_encode.errors import GalleryError, InputError
from face_encode.files import as_path, replacing
from face_encode.gallery.gallery import EncoderIdentity, check_encoder
from face_encode.gallery.names import check_name
from face_encode.gallery.npz_file import FORMAT_VERSION, arrays_in, check_file_name, read_arrays
from face_encode.types import Embeddings, Match, check_count

NameArray = npt.NDArray[np.str_]

# Similarities held at once during a search: 64 MB, whatever the number of probes.
_BLOCK = 16_000_000


@dataclass(frozen=True, eq=False)
class _Index:
    """The embeddings as a search wants them.

    Attributes:
        units: float32 ``(n, D)``, of length 1, one person's behind each other.
        starts: First row of each person.
        names: The person of each start.
    """

    units: Embeddings
    starts: npt.NDArray[np.intp]
    names: list[str]


class MemoryGallery:
    """Embeddings and names as two arrays; exact search by one matrix product.

    Attributes:
        embeddings: float32 ``(n, D)``, as the encoder gave them, in the order of enrolment.
        names: n names, str array.
        digests: n content digests of photos, empty where unknown, str array.
        encoder_name: The encoder that fills it.
        encoder_fingerprint: Its fingerprint.
        detector_name: The detector that found the faces, empty where unknown.
        calibration: What ``face-encode calibrate`` learnt for this encoder, or None.
    """

    def __init__(
        self, encoder: EncoderIdentity, path: str | os.PathLike[str] | None = None
    ) -> None:
        """Make an empty gallery.

        Args:
            encoder: Whose embeddings it takes.
            path: Where ``close`` and ``save`` without a path write it, or None.
        """
        self.encoder_name = encoder.name
        self.encoder_fingerprint = encoder.fingerprint
        self.detector_name = ""
        self.calibration: Calibration | None = None
        self._path = None if path is None else as_path(path)
        self._changed = False
        self._index: _Index | None = None
        self._set(np.empty((0, encoder.embedding_size), np.float32), _texts([]), _texts([]))

    def _set(self, embeddings: Embeddings, names: NameArray, digests: NameArray) -> None:
        """Take new arrays; the former ones are never written into, so views stay valid."""
        self.embeddings, self.names, self.digests = embeddings, names, digests
        self._index = None
        self._changed = True

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
        added = _float32(embeddings)
        size = self.embeddings.shape[1]
        if added.ndim != 2 or added.shape != (len(names), size):
            raise InputError(
                f"{len(names)} names take embeddings of shape ({len(names)}, {size}). "
                f"Received: shape {added.shape}"
            )
        lengths = np.linalg.norm(added, axis=1)
        if not np.isfinite(lengths).all() or not (lengths > 0).all():
            raise InputError("an embedding is finite and not all zeros; at least one is not")
        for name in names:
            check_name(name)
        digests = [""] * len(names) if digests is None else digests
        if len(digests) != len(names):
            raise InputError(f"{len(names)} names take as many digests. Received: {len(digests)}")
        self._set(
            np.concatenate([self.embeddings, added]),
            np.concatenate([self.names, _texts(names)]),
            np.concatenate([self.digests, _texts(digests)]),
        )

    def replace_all(
        self, names: Sequence[str], embeddings: Embeddings, digests: Sequence[str]
    ) -> None:
        """Enrol these in the place of all others, or, where they are refused, change nothing."""
        former = self.embeddings, self.names, self.digests
        self._set(self.embeddings[:0], self.names[:0], self.digests[:0])
        try:
            self.add(names, embeddings, digests)
        except InputError:
            self._set(*former)
            raise

    def search(self, embeddings: Embeddings, k: int = 1) -> list[list[Match]]:
        """Find the nearest people by cosine similarity; see ``Gallery.search``.

        Raises:
            InputError: Another length of embedding, one that is not finite, or k below 1.
        """
        probes = _float32(embeddings)
        if probes.ndim != 2 or probes.shape[1] != self.embeddings.shape[1]:
            raise InputError(
                f"this gallery takes embeddings of shape (m, {self.embeddings.shape[1]}). "
                f"Received: shape {probes.shape}"
            )
        if not np.isfinite(probes).all():
            raise InputError("an embedding is finite; at least one is not")
        k = check_count(k, "k")
        if not len(self):
            return [[] for _ in probes]
        if self._index is None:
            self._index = self._make_index()
        index = self._index
        found: list[list[Match]] = []
        block = max(1, _BLOCK // len(self))
        for start in range(0, len(probes), block):
            similarities = _units(probes[start : start + block]) @ index.units.T
            # Rounding can lead out of the range that people are promised.
            best = np.clip(np.maximum.reduceat(similarities, index.starts, axis=1), -1, 1)
            found += [_nearest(row, index.names, k) for row in best]
        return found

    def _make_index(self) -> _Index:
        """Sort by person, so that a person's best is the maximum over a run of rows."""
        people, person = np.unique(self.names, return_inverse=True)
        order = np.argsort(person, kind="stable")
        starts = np.searchsorted(person[order], np.arange(len(people)))
        return _Index(_units(self.embeddings[order]), starts, people.tolist())

    def remove(self, name: str) -> int:
        """Take a person out without touching the others.

        Raises:
            GalleryError: No such person.
        """
        keep = self.names != name
        removed = len(self) - int(keep.sum())
        if not removed:
            raise GalleryError(f"nobody named {name!r} is enrolled")
        self._set(self.embeddings[keep], self.names[keep], self.digests[keep])
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
        self._set(self.embeddings, names, self.digests)
        return count

    def copy(self) -> MemoryGallery:
        """The same people in a gallery that changes apart from this one.

        The arrays, which are never written into, are shared until then.
        """
        return copy.copy(self)

    def people(self) -> dict[str, int]:
        """How many embeddings each person has, in the order of enrolment."""
        return dict(Counter(self.names.tolist()))

    def known_photos(self, detector_name: str) -> Mapping[str, npt.NDArray[np.float32]]:
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
        np.savez(
            file,
            format_version=np.array(FORMAT_VERSION),
            encoder_name=np.array(self.encoder_name),
            encoder_fingerprint=np.array(self.encoder_fingerprint),
            detector_name=np.array(self.detector_name),
            names=self.names,
            digests=self.digests,
            embeddings=self.embeddings,
            calibration=np.array("" if self.calibration is None else self.calibration.to_json()),
        )

    def close(self) -> None:
        """Save what has changed, where the gallery was opened from a file."""
        if self._path is not None and self._changed:
            self.save()

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: EncoderIdentity) -> MemoryGallery:
        """Read a gallery from an ``.npz`` file.

        Raises:
            GalleryError: Missing, damaged, or written by a later release.
            WrongEncoderError: Another encoder filled it.
        """
        path = as_path(path)
        check_file_name(path)
        return cls(encoder, path)._filled(read_arrays(path), str(path), encoder)

    @classmethod
    def read(cls, file: BinaryIO, encoder: EncoderIdentity, label: str) -> MemoryGallery:
        """Read a gallery from an open ``.npz`` archive; ``label`` is what it is called in errors.

        Raises:
            GalleryError: Damaged, or written by a later release.
            WrongEncoderError: Another encoder filled it.
        """
        return cls(encoder)._filled(arrays_in(file, label), label, encoder)

    def _filled(
        self, stored: dict[str, npt.NDArray[Any]], label: str, encoder: EncoderIdentity
    ) -> MemoryGallery:
        """Take what a file holds."""
        name, fingerprint = str(stored["encoder_name"]), str(stored["encoder_fingerprint"])
        check_encoder(label, name, fingerprint, encoder)
        self.detector_name = str(stored["detector_name"])
        try:
            self.add(stored["names"].tolist(), stored["embeddings"], stored["digests"].tolist())
            if text := str(stored["calibration"]):
                self.calibration = Calibration.from_json(text)
        except InputError as error:
            raise GalleryError(f"the gallery {label} is damaged: {error}") from error
        self._changed = False
        return self


def _texts(values: Sequence[str]) -> NameArray:
    """A text array, also of nothing."""
    return np.array(values, dtype=np.str_).reshape(len(values))


def _float32(embeddings: Any) -> Embeddings:
    """Embeddings as float32."""
    try:
        # What float32 cannot hold becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            return np.asarray(embeddings, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"embeddings are an array of numbers: {error}") from error


def _units(embeddings: Embeddings) -> Embeddings:
    """The rows brought to length 1."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def _nearest(similarities: npt.NDArray[np.float32], names: list[str], k: int) -> list[Match]:
    """The k nearest people, best first; the first by name where two are equally near."""
    if k == 1:
        best = int(similarities.argmax())
        return [Match(names[best], float(similarities[best]))]
    k = min(k, len(names))
    candidates = np.argpartition(-similarities, k - 1)[:k]
    order = candidates[np.lexsort((candidates, -similarities[candidates]))]
    return [Match(names[index], float(similarities[index])) for index in order]
