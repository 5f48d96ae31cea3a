"""A chain of detectors: the fast one first, and more thorough ones where it finds no face."""

from __future__ import annotations

from dataclasses import dataclass

from face_encode.detectors.detector import Detector
from face_encode.types import Face, ImageArray


@dataclass(frozen=True)
class ThoroughDetector:
    """Asks one detector after the other until one finds a face.

    Most photos cost no more than the first one takes, and few are given up.

    Attributes:
        steps: The detectors, in this order.
        name: What the chain is called.
    """

    steps: tuple[Detector, ...]
    name: str = "dlib"

    def detect(self, image: ImageArray) -> list[Face]:
        """Find the faces; see ``Detector.detect``."""
        for step in self.steps:
            if faces := step.detect(image):
                return faces
        return []
