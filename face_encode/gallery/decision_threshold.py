"""The decision threshold: the similarity from which a face counts as the person found."""

from __future__ import annotations

import numbers

from face_encode.errors import InputError
from face_encode.gallery.gallery import Gallery


class DecisionThreshold:
    """Cosine similarity from which two faces count as one person.

    The one given; else the gallery's, where it was calibrated, for as many photos as are compared;
    else the encoder's.

    Attributes:
        given: The one given, or None.
    """

    def __init__(self, given: float | None = None) -> None:
        """Take the threshold that is given, if any.

        Args:
            given: Within -1..1.

        Raises:
            InputError: Out of that range.
        """
        if given is not None and (not isinstance(given, numbers.Real) or not -1 <= given <= 1):
            raise InputError(f"a cosine threshold lies within -1..1. Received: {given!r}")
        self.given: float | None = None if given is None else float(given)

    def of_search(self, gallery: Gallery, encoder_threshold: float) -> float:
        """The threshold of a search of all who are enrolled.

        Args:
            gallery: They.
            encoder_threshold: The encoder's own.
        """
        return self._of(gallery, encoder_threshold, None)

    def of_comparison(self, gallery: Gallery, encoder_threshold: float) -> float:
        """The threshold of a comparison of two photos.

        Args:
            gallery: Whose calibration counts; nobody in it is compared.
            encoder_threshold: The encoder's own.
        """
        return self._of(gallery, encoder_threshold, 1)

    def source(self, gallery: Gallery) -> str:
        """Where the threshold comes from: ``"set"``, ``"calibration"`` or ``"encoder"``."""
        if self.given is not None:
            return "set"
        return "encoder" if gallery.calibration is None else "calibration"

    def _of(self, gallery: Gallery, encoder_threshold: float, enrolled: int | None) -> float:
        """The threshold among so many photos; None for all of the gallery."""
        if self.given is not None:
            return self.given
        calibration = gallery.calibration
        if calibration is None:
            return encoder_threshold
        # Asked for only where it counts: a gallery on a server takes a call for it.
        return calibration.threshold(max(1, len(gallery)) if enrolled is None else enrolled)
