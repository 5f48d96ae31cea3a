"""Who is enrolled: the columns of a gallery, a row an embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.archives import TextArray, text_array
from face_encode.errors import InputError
from face_encode.gallery.digests import (
    DigestColumn,
    digest_texts,
    join_digests,
    pack_digests,
)
from face_encode.quantization import Codes, Quantizer
from face_encode.types import Embeddings


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
        reach: How far from the quantizer's centre the embeddings of codes lie at the most.
    """

    rows: Embeddings | Codes
    scales: npt.NDArray[np.float32]
    owners: npt.NDArray[np.int32]
    people: tuple[str, ...]
    digests: DigestColumn
    quantizer: Quantizer | None = None
    reach: float = 0.0

    @classmethod
    def nobody(cls, size: int, *, int8: bool = False) -> Enrolled:
        """The columns before anybody is enrolled, for embeddings of so many numbers."""
        return cls(
            np.empty((0, size), np.int8 if int8 else np.float32),
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
        if self.is_int8 and len(self) and self.quantizer is not None:
            return self.quantizer.dequantize(np.asarray(self.rows, np.int8))
        return np.asarray(self.rows, np.float32)

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
            embeddings: float32 ``(m, D)``.
            digests: m digests, empty where unknown.

        Raises:
            InputError: An embedding is not finite, or is all zeros.
        """
        if not len(embeddings):
            return self
        lengths = np.linalg.norm(embeddings, axis=1)
        if not np.isfinite(lengths).all() or not (lengths > 0).all():
            raise InputError("an embedding is finite and not all zeros; at least one is not")
        place_of = dict(self.place_of)
        owners = [place_of.setdefault(name, len(place_of)) for name in names]
        added, scales, quantizer, reach = self._as_kept(embeddings, lengths)
        return Enrolled(
            np.concatenate([self.rows, added]),
            np.concatenate([self.scales, scales], dtype=np.float32),
            np.concatenate([self.owners, np.asarray(owners, np.int32)]),
            tuple(place_of),
            join_digests(self.digests, pack_digests(digests)),
            quantizer,
            max(self.reach, reach),
        )

    def _as_kept(
        self, embeddings: Embeddings, lengths: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], Quantizer | None, float]:
        """New rows in the precision of these, their scales, the quantizer and their reach."""
        if not self.is_int8:
            return embeddings, lengths, None, 0.0
        # Of the first that come; a later mean would round all of them once more.
        quantizer = self.quantizer or Quantizer.fitted_to([embeddings])
        codes = quantizer.quantize(embeddings)
        steps = quantizer.steps(codes)
        return codes, steps, quantizer, farthest(codes, steps)

    def quantized(self) -> Enrolled:
        """The same people with codes for rows."""
        if self.is_int8:
            return self
        empty = Enrolled.nobody(self.rows.shape[1], int8=True)
        if not len(self):
            return empty
        codes, steps, quantizer, reach = empty._as_kept(self.embeddings, self.scales)
        return dataclasses.replace(self, rows=codes, scales=steps, quantizer=quantizer, reach=reach)

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
        )

    def renamed(self, name: str, new_name: str) -> Enrolled:
        """With one person called otherwise, by a name that nobody else has."""
        people = list(self.people)
        people[self.place_of[name]] = new_name
        return dataclasses.replace(self, people=tuple(people))


def farthest(codes: Codes, steps: npt.NDArray[np.float32]) -> float:
    """How far from their quantizer's centre the embeddings of codes lie at the most."""
    # Of whole numbers; einsum takes no memory for their squares.
    squares = np.einsum("nd,nd->n", codes, codes, dtype=np.int32)
    return float((np.sqrt(squares) * steps).max(initial=0))
