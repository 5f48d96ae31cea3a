"""The gallery in memory: one array of embeddings, one of names; kept in an ``.npz`` file."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.calibration import Calibration
from face_encode.distances import Metric, check_metric, distances
from face_encode.errors import GalleryError, InputError
from face_encode.files import as_path, replacing
from face_encode.gallery.gallery import EncoderIdentity, check_encoder
from face_encode.gallery.npz_file import FORMAT_VERSION, check_file_name, read_arrays
from face_encode.types import Embeddings, Match, check_count

NameArray = npt.NDArray[np.str_]

# On the unit sphere Euclidean distances rank as cosine does, and need no search of their own.
GALLERY_METRICS: tuple[Metric, ...] = ("cosine", "euclidean")

# Similarities held at once during a search: 64 MB, whatever the number of probes.
_BLOCK = 16_000_000


@dataclass(frozen=True, eq=False)
class _Index:
    """The embeddings as a search wants them.

    Attributes:
        rows: float32 ``(n, D)``, one person's behind each other; of length 1 for cosine.
        starts: First row of each person.
        names: The person of each start.
    """

    rows: Embeddings
    starts: npt.NDArray[np.intp]
    names: list[str]


class MemoryGallery:
    """Embeddings and names as two arrays; exact search by one matrix product.

    Attributes:
        metric: What a search compares by: ``"cosine"``, or ``"euclidean"``, where a similarity
            is the distance of the embeddings as they are, below 0.
        embeddings: float32 ``(n, D)``, as the encoder gave them, in the order of enrolment.
        names: n names, str array.
        digests: n content digests of photos, empty where unknown, str array.
        encoder_name: The encoder that fills it.
        encoder_fingerprint: Its fingerprint.
        detector_name: The detector that found the faces, empty where unknown.
        calibration: What ``face-encode calibrate`` learnt for this encoder, or None.
    """

    def __init__(
        self,
        encoder: EncoderIdentity,
        path: str | os.PathLike[str] | None = None,
        *,
        metric: Metric = "cosine",
    ) -> None:
        """Make an empty gallery.

        Args:
            encoder: Whose embeddings it takes.
            path: Where ``close`` and ``save`` without a path write it, or None.
            metric: One of ``GALLERY_METRICS``.

        Raises:
            InputError: No such metric.
        """
        self.metric = check_metric(metric, GALLERY_METRICS)
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
        """Find the nearest people by the gallery's metric; see ``Gallery.search``.

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
            similarities = self._similarities(probes[start : start + block], index.rows)
            best = np.maximum.reduceat(similarities, index.starts, axis=1)
            if self.metric == "cosine":
                # Rounding can lead out of the range that people are promised.
                best = np.clip(best, -1, 1)
            found += [_nearest(row, index.names, k) for row in best]
        return found

    def _similarities(self, probes: Embeddings, rows: Embeddings) -> npt.NDArray[np.float32]:
        """Of each probe to each row of the index, higher is nearer."""
        if self.metric == "euclidean":
            return np.asarray(-distances(probes, rows, "euclidean"), np.float32)
        return np.asarray(_units(probes) @ rows.T, np.float32)

    def _make_index(self) -> _Index:
        """Sort by person, so that a person's best is the maximum over a run of rows."""
        people, person = np.unique(self.names, return_inverse=True)
        order = np.argsort(person, kind="stable")
        starts = np.searchsorted(person[order], np.arange(len(people)))
        rows = self.embeddings[order]
        return _Index(_units(rows) if self.metric == "cosine" else rows, starts, people.tolist())

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
            np.savez(
                temporary,
                format_version=np.array(FORMAT_VERSION),
                encoder_name=np.array(self.encoder_name),
                encoder_fingerprint=np.array(self.encoder_fingerprint),
                detector_name=np.array(self.detector_name),
                metric=np.array(self.metric),
                names=self.names,
                digests=self.digests,
                embeddings=self.embeddings,
                calibration=np.array(
                    "" if self.calibration is None else self.calibration.to_json()
                ),
            )
        self._changed = False

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
        stored = read_arrays(path)
        name, fingerprint = str(stored["encoder_name"]), str(stored["encoder_fingerprint"])
        check_encoder(str(path), name, fingerprint, encoder)
        kept = str(stored["metric"])
        if metric not in (None, kept):
            raise GalleryError(
                f"{path} is searched by the metric {kept!r}, here it is {metric!r}: open it with "
                "face_encode.ReferenceEmbeddings.load"
            )
        try:
            gallery = cls(encoder, path, metric=check_metric(kept))
            gallery.detector_name = str(stored["detector_name"])
            gallery.add(stored["names"].tolist(), stored["embeddings"], stored["digests"].tolist())
            if text := str(stored["calibration"]):
                gallery.calibration = Calibration.from_json(text)
        except InputError as error:
            raise GalleryError(f"the gallery {path} is damaged: {error}") from error
        gallery._changed = False
        return gallery


def check_name(name: str) -> None:
    """Refuse what is no person's name.

    Raises:
        InputError: No text, empty, or with control characters or broken encoding in it. Joiners
            without a width are allowed: Persian and Hindi names are written with them.
    """
    if (
        not isinstance(name, str)
        or not name.strip()
        or any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    ):
        raise InputError(
            f"a person's name is text without control characters, not empty. Received: {name!r}"
        )


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
