"""dlib's CNN detector (King, 2015, max-margin object detection): slow, for faces at any angle."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from face_encode.detectors.detector import SMALLEST_SIDE, Found, faces_of, scaled
from face_encode.types import Face, ImageArray
from face_encode.weights import installed_path

_of_thread = threading.local()


@dataclass(frozen=True)
class DlibCnnDetector:
    """Finds faces that the HOG detector misses: turned, tilted, partly covered.

    Attributes:
        max_pixels: Larger photos are shrunk to this many pixels before looking; on a CPU the
            network takes about 6 seconds a million pixels.
        enlarge: Smaller ones are enlarged by up to this factor on a side.
        name: What the detector is called.
    """

    max_pixels: int = 400_000
    enlarge: float = 1.0
    name: str = "dlib_cnn"

    def detect(self, image: ImageArray) -> list[Face]:
        """Find the faces; see ``Detector.detect``."""
        smaller, scale = scaled(image, self.max_pixels, self.enlarge)
        if min(smaller.shape[:2]) < SMALLEST_SIDE:
            return []
        found = [
            Found(
                each.rect.left(),
                each.rect.top(),
                each.rect.width(),
                each.rect.height(),
                float(each.confidence),
            )
            for each in _detector()(smaller, 0)
        ]
        return faces_of(image, found, scale)


def _detector() -> Any:
    """A network of the thread's own: it keeps what it calculates inside it."""
    import dlib

    if not hasattr(_of_thread, "detector"):
        path = str(installed_path("dlib_cnn"))
        _of_thread.detector = dlib.cnn_face_detection_model_v1(path)
    return _of_thread.detector
