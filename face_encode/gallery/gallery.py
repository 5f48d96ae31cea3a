"""What a gallery is, wherever it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from face_encode.errors import WrongEncoderError
from face_encode.types import Embeddings, Match


class EncoderIdentity(Protocol):
    """What a gallery has to know of the encoder that fills it."""

    @property
    def name(self) -> str:
        """What the encoder is called."""

    @property
    def fingerprint(self) -> str:
        """The same for two encoders exactly when they embed alike."""

    @property
    def embedding_size(self) -> int:
        """Length D of an embedding."""


class Gallery(Protocol):
    """The enrolled people: their embeddings and names, and the search in them."""

    def __len__(self) -> int:
        """Number of embeddings enrolled."""

    def add(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str] | None = None,
    ) -> None:
        """Enrol embeddings.

        Args:
            names: n names of people; one person may have many embeddings.
            embeddings: float32 ``(n, D)``.
            digests: n content digests of the photos they come from, if known, so that the same
                photo need not be encoded again.
        """

    def search(self, embeddings: Embeddings, k: int = 1) -> list[list[Match]]:
        """Find the nearest people.

        Args:
            embeddings: float32 ``(m, D)``.
            k: How many people for each, at the most.

        Returns:
            m lists, each with the nearest person first, one entry a person: the similarity is
            that of the person's nearest embedding.
        """

    def remove(self, name: str) -> int:
        """Take a person out; returns how many embeddings that were."""

    def rename(self, name: str, new_name: str) -> int:
        """Call a person otherwise; returns how many embeddings that were."""

    def people(self) -> dict[str, int]:
        """How many embeddings each person has, in the order of enrolment."""

    def close(self) -> None:
        """Keep what is to be kept, and let go of it."""


def check_encoder(where: str, name: str, fingerprint: str, encoder: EncoderIdentity) -> None:
    """Refuse to use a gallery with another encoder than the one that filled it.

    Raises:
        WrongEncoderError: Names both.
    """
    if fingerprint != encoder.fingerprint:
        raise WrongEncoderError(
            f"{where} was filled by the encoder {name!r} ({fingerprint}); its embeddings cannot "
            f"be compared with those of {encoder.name!r} ({encoder.fingerprint}). Use the same "
            "encoder, or enrol the photos again"
        )
