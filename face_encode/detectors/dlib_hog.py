"""dlib's HOG detector (Dalal and Triggs, 2005; King, 2015): fast, for faces seen from the front."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from face_encode.detectors.detector import SMALLEST_SIDE, Found, FramingDetector, scaled
from face_encode.detectors.frontal_face import load_frontal_face_detector
from face_encode.types import ImageArray

_of_thread = threading.local()


@dataclass(frozen=True)
class DlibHogDetector(FramingDetector):
    """Finds faces of about 80 pixels and more, at the size at which it looks at the photo.

    Attributes:
        max_pixels: Larger photos are shrunk to this many pixels before looking.
        enlarge: Smaller ones are enlarged by up to this factor on a side; 2 finds faces of 40
            pixels, in four times the time.
        name: What the detector is called.
    """

    max_pixels: int = 2_000_000
    enlarge: float = 1.0
    name: str = "dlib_hog"

    def find(self, image: ImageArray) -> list[Found]:
        """Find the faces; see ``FramingDetector.find``."""
        smaller, scale = scaled(image, self.max_pixels, self.enlarge)
        if min(smaller.shape[:2]) < SMALLEST_SIDE:
            return []
        boxes, scores, _ = _detector().run(smaller, 0, 0.0)
        return [
            Found(box.left(), box.top(), box.width(), box.height(), float(score)).unscaled(scale)
            for box, score in zip(boxes, scores, strict=True)
        ]


def _detector() -> Any:
    """A detector of the thread's own.

    dlib lets go of Python's lock, and one detector used by two threads corrupts its memory.
    """
    if not hasattr(_of_thread, "detector"):
        _of_thread.detector = load_frontal_face_detector()
    return _of_thread.detector
