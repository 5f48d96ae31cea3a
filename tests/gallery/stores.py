"""A kind of gallery, as the tests see it that are the same for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from face_encode.gallery.base import EncoderIdentity, Gallery
from tests.gallery.common import Identity, vectors


@dataclass(frozen=True)
class Store:
    """A kind of gallery.

    Attributes:
        open: Opens the one gallery of a test, also once more, for an encoder.
        int8: Whether it rounds, and keeps directions only.
        is_kept: Whether opening it once more finds what it held.
        holds_once: Whether the same photo of the same person is held once.
        keeps_digests: Whether the digests of photos can be read again, not only looked up.
    """

    open: Callable[[EncoderIdentity], Gallery]
    int8: bool = False
    is_kept: bool = True
    holds_once: bool = False
    keeps_digests: bool = True

    def filled(self) -> Gallery:
        gallery = self.open(Identity())
        gallery.add(["Ada", "Bo", "Ada"], vectors((1, 0), (0, 2), (3, 3)), ["a", "b", "c"])
        return gallery

    def again(self, gallery: Gallery, encoder: EncoderIdentity | None = None) -> Gallery:
        """The same gallery, closed and opened once more, where there is one to open."""
        gallery.close()
        return self.open(encoder or Identity()) if self.is_kept else gallery

    def assert_holds(self, gallery: Gallery, *rows: tuple[float, ...]) -> None:
        expected = vectors(*rows)
        held = gallery.embeddings
        assert held.dtype == np.float32
        if self.int8:
            expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(held, expected, atol=self.tolerance if self.int8 else 0)

    def asked(self, *digests: str) -> set[str] | None:
        """These digests; None, for all, where they can be read again."""
        return None if self.keeps_digests else set(digests)

    @property
    def tolerance(self) -> float:
        """Of similarities."""
        return 0.01 if self.int8 else 1e-6
