"""The columns of a gallery in memory: one row an embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.files import TextArray, text_array
from face_encode.gallery.base import folded_name
from face_encode.gallery.quantization import Coded, Codes, Quantizer
from face_encode.types import Embeddings

DigestColumn: TypeAlias = npt.NDArray[Any]
"""uint8 ``(n, W)``, the bytes of hexadecimal digests of one length, zeros where a digest is unknown
(W is 0 where all are); or a str array of n, where the digests are anything else."""


def pack_digests(digests: Sequence[str]) -> DigestColumn:
    """Pack digests into half the bytes that they have as text; unknown ones are empty."""
    texts = text_array(digests)
    known = texts != ""
    width = max(map(len, digests), default=0)
    packed = np.zeros((len(texts), width // 2), np.uint8)
    try:
        # fromhex skips spaces; the bytes are then too few, and the next line refuses them.
        content = bytes.fromhex("".join(digests))
        packed[known] = np.frombuffer(content, np.uint8).reshape(-1, max(1, width // 2))
    except ValueError:
        return texts
    return packed if np.array_equal(digest_texts(packed), texts) else texts


def digest_texts(column: DigestColumn) -> TextArray:
    """Unpack digests into a str array of n, empty where unknown."""
    if column.ndim == 1:
        return np.asarray(column, np.str_)
    if not column.size:
        return np.full(len(column), "", np.str_)
    digits = np.frombuffer(column.tobytes().hex().encode(), f"S{2 * column.shape[1]}")
    texts = digits.astype(np.str_)
    texts[~column.any(axis=1)] = ""
    return texts


def join_digests(first: DigestColumn, second: DigestColumn) -> DigestColumn:
    """Join two columns, packed where both are."""
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
    """The enrolled people as columns; no array is ever written to, so that they can be shared.

    Attributes:
        rows: float32 ``(n, D)``, the embeddings as the encoder gave them; or int8 ``(n, D)``,
            their codes.
        scales: float32 ``(n,)``: the length of each float32 row, above 0; the step of each code.
        owners: int32 ``(n,)``, the person of each row as an index of ``people``.
        people: The names, in the order of enrolment; each has at least one row.
        digests: Digests of the photos; see ``DigestColumn``.
        quantizer: Converts codes; None for float32, and before the first int8 rows, which set it.
        reach: Largest distance of a coded embedding from the quantizer's centre.
        index: Codes of float32 rows that a search goes through first; or None.
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
    def nobody(
        cls, size: int, *, int8: bool = False, quantizer: Quantizer | None = None
    ) -> Enrolled:
        """The columns before anybody is enrolled, for embeddings of length ``size``."""
        none = np.empty(0, np.float32)
        owners, digests = np.empty(0, np.int32), np.empty((0, 0), np.uint8)
        rows: Embeddings | Codes = np.empty((0, size), np.int8) if int8 else none.reshape(0, size)
        return cls(rows, none, owners, (), digests, quantizer)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_int8(self) -> bool:
        """Whether the rows are codes."""
        return self.rows.dtype == np.int8

    @property
    def coded(self) -> Coded | None:
        """The codes that a search goes through: int8 rows, or the index of float32 rows."""
        if not self.is_int8 or self.quantizer is None:
            return self.index
        return Coded(np.asarray(self.rows, np.int8), self.scales, self.quantizer, self.reach)

    @property
    def names(self) -> TextArray:
        """The person of each row, str array of n."""
        return text_array(self.people)[self.owners]

    @cached_property
    def counts(self) -> npt.NDArray[np.intp]:
        """The number of rows of each person, in the order of ``people``."""
        return np.bincount(self.owners, minlength=len(self.people))

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Name -> index in ``people``."""
        return {name: place for place, name in enumerate(self.people)}

    @cached_property
    def name_of_folded(self) -> dict[str, str]:
        """Folded name -> name; see ``base.folded_name``."""
        return {folded_name(name): name for name in self.people}

    @cached_property
    def row_of_digest(self) -> dict[str, int]:
        """Known digest -> row; the last row where several come from the same photo."""
        return {digest: row for row, digest in enumerate(self.digest_texts.tolist()) if digest}

    @property
    def digest_texts(self) -> TextArray:
        """The digests as text, str array of n, empty where unknown."""
        return digest_texts(self.digests)

    @property
    def embeddings(self) -> Embeddings:
        """float32 ``(n, D)``; converted from codes at each access, and then of length 1."""
        return self.embeddings_of(slice(None))

    def embeddings_of(self, rows: slice | Sequence[int] | npt.NDArray[np.intp]) -> Embeddings:
        """The embeddings of some rows, float32."""
        taken = self.rows[rows if isinstance(rows, slice) else np.asarray(rows, np.intp)]
        if self.is_int8 and len(taken) and self.quantizer is not None:
            return self.quantizer.dequantize(np.asarray(taken, np.int8))
        return np.asarray(taken, np.float32)

    def joined(
        self, names: Sequence[str], embeddings: Embeddings, digests: Sequence[str]
    ) -> Enrolled:
        """These rows followed by new ones.

        Args:
            names: m names.
            embeddings: float32 ``(m, D)``, finite and none of zeros.
            digests: m digests, empty where unknown.
        """
        if not len(embeddings):
            return self
        place_of = {name: place for place, name in enumerate(self.people)}
        owners = [place_of.setdefault(name, len(place_of)) for name in names]
        added: npt.NDArray[Any] = embeddings
        quantizer, reach, index = self.quantizer, self.reach, self.index
        if self.is_int8:
            # The first rows set the quantizer; a later mean would round all of them again.
            coded = Coded.of(embeddings, quantizer)
            added, scales, quantizer = coded.codes, coded.steps, coded.quantizer
            reach = max(reach, coded.reach)
        else:
            scales = np.linalg.norm(embeddings, axis=1)
            if index is not None:
                coded = Coded.of(embeddings, index.quantizer, with_blur=True)
                index = index.joined(coded)
        packed = pack_digests(digests)
        return Enrolled(
            np.concatenate([self.rows, added]),
            np.concatenate([self.scales, scales], dtype=np.float32),
            np.concatenate([self.owners, np.asarray(owners, np.int32)]),
            tuple(place_of),
            join_digests(self.digests, packed) if len(self) else packed,
            quantizer,
            reach,
            index,
        )

    def quantized(self) -> Enrolled:
        """The same people with codes as rows."""
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
        """The same people with codes for a search to go through; at least one row."""
        if self.coded is not None:
            return self
        embeddings = self.embeddings
        return dataclasses.replace(self, index=Coded.of(embeddings, with_blur=True))

    def without(self, names: Sequence[str]) -> Enrolled:
        """The same people except these; unknown names are ignored."""
        places = [self.place_of[name] for name in set(names) if name in self.place_of]
        if not places:
            return self
        stays = np.ones(len(self.people), bool)
        stays[places] = False
        rows = stays[self.owners]
        # The index of each remaining person in the shorter list.
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
        """The same people, one of them under a new name that nobody else has."""
        people = list(self.people)
        people[self.place_of[name]] = new_name
        return dataclasses.replace(self, people=tuple(people))
