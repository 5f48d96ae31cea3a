"""Who is enrolled: the columns of a gallery, a row an embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.files import TextArray, text_array
from face_encode.gallery.quantization import Coded, Codes, Quantizer
from face_encode.types import Embeddings

DigestColumn: TypeAlias = npt.NDArray[Any]
"""uint8 ``(n, W)``, the bytes that hexadecimal digests of one length stand for, zeros where a
digest is unknown (W is 0 where all are); or a str array of n, where digests are anything else."""


def pack_digests(digests: Sequence[str]) -> DigestColumn:
    """Take digests into half the bytes that they have as text; unknown ones are empty."""
    texts = text_array(digests)
    known = texts != ""
    width = max(map(len, digests), default=0)
    packed = np.zeros((len(texts), width // 2), np.uint8)
    try:
        # Spaces, which it would pass over, make another length, and that the next line refuses.
        content = bytes.fromhex("".join(digests))
        packed[known] = np.frombuffer(content, np.uint8).reshape(-1, max(1, width // 2))
    except ValueError:
        return texts
    return packed if np.array_equal(digest_texts(packed), texts) else texts


def digest_texts(column: DigestColumn) -> TextArray:
    """The digests as text, str array of n, empty where unknown."""
    if column.ndim == 1:
        return np.asarray(column, np.str_)
    if not column.size:
        return np.full(len(column), "", np.str_)
    digits = np.frombuffer(column.tobytes().hex().encode(), f"S{2 * column.shape[1]}")
    texts = digits.astype(np.str_)
    texts[~column.any(axis=1)] = ""
    return texts


def join_digests(first: DigestColumn, second: DigestColumn) -> DigestColumn:
    """One column of two, packed where both are."""
    if first.ndim == second.ndim == 2:
        width = max(first.shape[1], second.shape[1])
        if {first.shape[1], second.shape[1]} <= {0, width}:
            joined = np.zeros((len(first) + len(second), width), np.uint8)
            joined[: len(first), : first.shape[1]] = first
            joined[len(first) :, : second.shape[1]] = second
            return joined
    return np.concatenate([digest_texts(first), digest_texts(second)])


@dataclass(frozen=True, eq=False)
class Enrolled:
    """The columns of a gallery; none is ever written into, so that they can be shared.

    Attributes:
        rows: float32 ``(n, D)``, the embeddings as the encoder gave them; or int8 ``(n, D)``,
            their codes.
        scales: float32 ``(n,)``: of float32 rows the length of each, above 0; of codes the step.
        owners: int32 ``(n,)``, whose each is: a place in ``people``.
        people: The names, in the order of enrolment; everybody has at least one row.
        digests: Of the photos that they come from; see ``DigestColumn``.
        quantizer: What codes stand for; None before the first of them, which sets it, and for
            float32.
        reach: How far what codes stand for is from the quantizer's centre, at the most.
        index: Codes of float32 rows, for a search to look through first; or None.
    """

    rows: Embeddings | Codes
    scales: npt.NDArray[np.float32]
    owners: npt.NDArray[np.int32]
    people: tuple[str, ...]
    digests: DigestColumn
    quantizer: Quantizer | None = None
    reach: float = 0.0
    index: Coded | None = None

    @classmethod
    def nobody(cls, size: int, *, int8: bool = False) -> Enrolled:
        """The columns before anybody is enrolled, for embeddings of so many numbers."""
        none: Embeddings | Codes = np.empty((0, size), np.float32)
        return cls(
            np.empty((0, size), np.int8) if int8 else none,
            np.empty(0, np.float32),
            np.empty(0, np.int32),
            (),
            pack_digests([]),
        )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def is_int8(self) -> bool:
        """Whether the rows are codes."""
        return self.rows.dtype == np.int8

    @property
    def coded(self) -> Coded | None:
        """The codes that a search looks through: the rows, or the index of float32 ones."""
        if not self.is_int8 or self.quantizer is None:
            return self.index
        rows = np.asarray(self.rows, np.int8)
        return Coded(rows, self.scales, self.quantizer, self.reach)

    @property
    def names(self) -> TextArray:
        """The person of each row, str array of n."""
        return text_array(self.people)[self.owners]

    @cached_property
    def counts(self) -> npt.NDArray[np.intp]:
        """How many rows each person has, in the order of ``people``."""
        return np.bincount(self.owners, minlength=len(self.people))

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Name -> place in ``people``."""
        return {name: place for place, name in enumerate(self.people)}

    @property
    def embeddings(self) -> Embeddings:
        """float32 ``(n, D)``; from codes widened anew, of length 1."""
        return self._widened(self.rows)

    def embeddings_of(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> Embeddings:
        """Those of some rows."""
        return self._widened(self.rows[np.asarray(rows, np.intp)])

    def _widened(self, rows: npt.NDArray[Any]) -> Embeddings:
        if self.is_int8 and len(rows) and self.quantizer is not None:
            return self.quantizer.dequantize(np.asarray(rows, np.int8))
        return np.asarray(rows, np.float32)

    @cached_property
    def row_of_digest(self) -> dict[str, int]:
        """Known digest -> row; the last row of those with the same photo."""
        return {digest: row for row, digest in enumerate(self.digest_texts.tolist()) if digest}

    @property
    def digest_texts(self) -> TextArray:
        """The digests as text, str array of n, empty where unknown."""
        return digest_texts(self.digests)

    def joined(
        self, names: Sequence[str], embeddings: Embeddings, digests: Sequence[str]
    ) -> Enrolled:
        """With further rows behind these.

        Args:
            names: m names.
            embeddings: float32 ``(m, D)``, finite and none of zeros.
            digests: m digests, empty where unknown.
        """
        if not len(embeddings):
            return self
        lengths = np.linalg.norm(embeddings, axis=1)
        place_of = dict(self.place_of)
        owners = [place_of.setdefault(name, len(place_of)) for name in names]
        added: npt.NDArray[Any] = embeddings
        quantizer, reach, index = self.quantizer, self.reach, self.index
        if self.is_int8:
            # By what the first of all set; a later mean would round all of them once more.
            coded = Coded.of(embeddings, quantizer)
            added, lengths, quantizer = coded.codes, coded.steps, coded.quantizer
            reach = max(reach, coded.reach)
        elif index is not None:
            coded = Coded.of(embeddings, index.quantizer).blurred_from(embeddings)
            index = index.joined(coded)
        return Enrolled(
            np.concatenate([self.rows, added]),
            np.concatenate([self.scales, lengths], dtype=np.float32),
            np.concatenate([self.owners, np.asarray(owners, np.int32)]),
            tuple(place_of),
            join_digests(self.digests, pack_digests(digests)),
            quantizer,
            reach,
            index,
        )

    def quantized(self) -> Enrolled:
        """The same people with codes for rows."""
        if self.is_int8:
            return self
        if not len(self):
            return Enrolled.nobody(self.rows.shape[1], int8=True)
        coded = self.index or Coded.of(self.embeddings)
        return dataclasses.replace(
            self,
            rows=coded.codes,
            scales=coded.steps,
            quantizer=coded.quantizer,
            reach=coded.reach,
            index=None,
        )

    def indexed(self) -> Enrolled:
        """The same people, float32, with codes to look through first; at least one row."""
        if self.coded is not None:
            return self
        embeddings = self.embeddings
        index = Coded.of(embeddings).blurred_from(embeddings)
        return dataclasses.replace(self, index=index)

    def cleared(self) -> Enrolled:
        """With nobody; whoever comes is coded as those were who are gone."""
        nobody = Enrolled.nobody(self.rows.shape[1], int8=self.is_int8)
        return dataclasses.replace(nobody, quantizer=self.quantizer)

    def without(self, names: Sequence[str]) -> Enrolled:
        """Without some people; names of others are passed over."""
        places = [self.place_of[name] for name in set(names) if name in self.place_of]
        if not places:
            return self
        stays = np.ones(len(self.people), bool)
        stays[places] = False
        rows = stays[self.owners]
        # Where those who stay are found in the shorter list.
        moved = np.cumsum(stays, dtype=np.int32) - np.int32(1)
        return dataclasses.replace(
            self,
            rows=self.rows[rows],
            scales=self.scales[rows],
            owners=moved[self.owners[rows]],
            people=tuple(name for name, stay in zip(self.people, stays, strict=True) if stay),
            digests=self.digests[rows],
            index=None if self.index is None else self.index.of_rows(rows),
        )

    def renamed(self, name: str, new_name: str) -> Enrolled:
        """With one person called otherwise, by a name that nobody else has."""
        people = list(self.people)
        people[self.place_of[name]] = new_name
        return dataclasses.replace(self, people=tuple(people))
