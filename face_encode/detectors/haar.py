"""OpenCV's Haar cascade (Viola and Jones, 2001; Lienhart and Maydt, 2002), for webcams."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2

from face_encode.detectors.base import Found, FramingDetector, check_scale, scaled
from face_encode.errors import MissingExtraError, WeightsError
from face_encode.types import ImageArray, check_number

_FILE = "haarcascade_frontalface_alt2.xml"

# From the cascade's frame to dlib's, the medians over faces that both found; docs/detectors.md.
_RIGHT, _DOWN, _SIZE = 0.03, 0.10, 0.94

# A cascade holds the photo that it works on, and OpenCV releases Python's lock meanwhile: every
# thread has a cascade of its own.
_local = threading.local()


@dataclass(frozen=True)
class HaarDetector(FramingDetector):
    """Finds faces seen from the front, also small ones, fast.

    Attributes:
        max_pixels: Larger photos are shrunk to this many pixels.
        enlarge: Smaller photos are enlarged by up to this factor on a side.
        smallest: Side of the smallest face, in pixels of the shrunk photo.
        step: Factor from one size of face to the next; nearer to 1 finds a few more, in more time.
        neighbours: Windows that must agree on a face; more of them make fewer mistakes.
    """

    base_name: ClassVar[str] = "haar"

    max_pixels: int = 250_000
    enlarge: float = 1.0
    smallest: int = 30
    step: float = 1.2
    neighbours: int = 3

    def __post_init__(self) -> None:
        check_scale(self.max_pixels, self.enlarge)
        check_number(self.step, "step", 1, ends=False)
        _check_cascades()

    def find(self, image: ImageArray) -> list[Found]:
        """Find the faces; see ``FramingDetector.find``."""
        smaller, scale = scaled(image, self.max_pixels, self.enlarge)
        if min(smaller.shape[:2]) < self.smallest:
            return []
        boxes, _, scores = _cascade().detectMultiScale3(
            cv2.cvtColor(smaller, cv2.COLOR_RGB2GRAY),
            scaleFactor=self.step,
            minNeighbors=self.neighbours,
            minSize=(self.smallest, self.smallest),
            outputRejectLevels=True,
        )
        found = [
            Found(left, top, width, height, float(score)).reframed(_RIGHT, _DOWN, _SIZE)
            for (left, top, width, height), score in zip(boxes, scores, strict=True)
        ]
        return [each.unscaled(scale) for each in found]


def _check_cascades() -> None:
    """Refuse an OpenCV without cascades."""
    if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
        raise MissingExtraError(
            'the detector "haar" needs OpenCV 4, later releases have no cascades: '
            f'pip install "opencv-python>=4.8,<5". Received: OpenCV {cv2.__version__}'
        )


def _cascade() -> Any:
    """This thread's cascade."""
    if not hasattr(_local, "cascade"):
        _check_cascades()
        path = Path(cv2.data.haarcascades, _FILE)  # type: ignore[attr-defined]
        if not path.is_file():
            raise WeightsError(
                f'{path} is missing: pip install --force-reinstall "opencv-python>=4.8,<5"'
            )
        _local.cascade = cv2.CascadeClassifier(str(path))
    return _local.cascade
