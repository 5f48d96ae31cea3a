"""dlib's CNN detector (King, 2015, max-margin object detection), for faces at any angle."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import Any

from face_encode.detectors.base import SMALLEST_SIDE, Found, FramingDetector, scaled
from face_encode.detectors.mmod.finding import FaceFinder
from face_encode.types import ImageArray
from face_encode.weights import installed_path, read_verified

_of_thread = threading.local()


@dataclass(frozen=True)
class DlibCnnDetector(FramingDetector):
    """Finds faces that the HOG detector misses: turned, tilted, partly covered.

    Attributes:
        max_pixels: Larger photos are shrunk to this many pixels before looking; the network
            takes about half a second of one core a million pixels.
        enlarge: Smaller ones are enlarged by up to this factor on a side.
        name: What the detector is called.
    """

    max_pixels: int = 400_000
    enlarge: float = 1.0
    name: str = "dlib_cnn"

    def find(self, image: ImageArray) -> list[Found]:
        """Find the faces; see ``FramingDetector.find``."""
        smaller, scale = scaled(image, self.max_pixels, self.enlarge)
        if min(smaller.shape[:2]) < SMALLEST_SIDE:
            return []
        found = find_by_dlib(smaller) if _dlib_has_gpu() else _finder().find(smaller)
        return [each.unscaled(scale) for each in found]


@functools.cache
def _finder() -> FaceFinder:
    """One for all threads of the process: it holds weights only."""
    return FaceFinder.of(read_verified("dlib_cnn"))


@functools.cache
def _dlib_has_gpu() -> bool:
    """Whether this dlib was built for a GPU, on which it is faster than any processor."""
    import dlib

    return bool(dlib.DLIB_USE_CUDA) and dlib.cuda.get_num_devices() > 0


def find_by_dlib(image: ImageArray) -> list[Found]:
    """Find the faces by dlib itself, which takes some fifteen times as long without a GPU."""
    return [
        Found(
            each.rect.left(),
            each.rect.top(),
            each.rect.width(),
            each.rect.height(),
            float(each.confidence),
        )
        for each in _dlib_network()(image, 0)
    ]


def _dlib_network() -> Any:
    """A network of the thread's own: it keeps what it calculates inside it."""
    import dlib

    if not hasattr(_of_thread, "network"):
        path = str(installed_path("dlib_cnn"))
        _of_thread.network = dlib.cnn_face_detection_model_v1(path)
    return _of_thread.network
