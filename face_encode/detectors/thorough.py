"""A chain of detectors: the fast one first, and more thorough ones where it finds no face."""

from __future__ import annotations

from dataclasses import dataclass

from face_encode.detectors.detector import Found, FramingDetector
from face_encode.errors import InputError
from face_encode.types import ImageArray


@dataclass(frozen=True)
class ThoroughDetector(FramingDetector):
    """Asks one detector after the other until one finds a face.

    Most photos cost no more than the first one takes, and few are given up.

    Attributes:
        steps: The detectors, in this order.
        name: What the chain is called.
    """

    steps: tuple[FramingDetector, ...]
    name: str = "dlib"

    def __post_init__(self) -> None:
        """Check the steps."""
        for step in self.steps:
            if not isinstance(step, FramingDetector):
                raise InputError(
                    "the steps of a chain are FramingDetectors, which find frames. "
                    f"Received: {type(step).__name__}"
                )

    def find(self, image: ImageArray) -> list[Found]:
        """Find the faces; see ``FramingDetector.find``."""
        for step in self.steps:
            if found := step.find(image):
                return found
        return []
