"""The known detectors, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from face_encode.detectors.base import Detector, Found, FramingDetector
from face_encode.detectors.dlib_cnn import DlibCnnDetector
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.detectors.haar import HaarDetector
from face_encode.detectors.mtcnn import MtcnnDetector
from face_encode.detectors.retinaface import RetinaFaceDetector
from face_encode.detectors.yunet import YunetDetector
from face_encode.errors import InputError
from face_encode.types import ImageArray


@dataclass(frozen=True)
class ThoroughDetector(FramingDetector):
    """Runs one detector after the other until one finds a face.

    Most photos cost no more than the first one takes.

    Attributes:
        steps: The detectors, in this order.
        name: The chain's name.
    """

    steps: tuple[FramingDetector, ...]
    name: str = "dlib"

    def __post_init__(self) -> None:
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


DEFAULT_DETECTOR = "dlib"


@dataclass(frozen=True)
class KnownDetector:
    """A detector that is known by name.

    Attributes:
        make: Makes the detector, with settings that suit most photos.
        summary: When to use it, in a line.
        licence: The licence of its weights.
        weights: Its weights' name in ``KNOWN_WEIGHTS``, if they are downloaded at the first use.
    """

    make: Callable[[], Detector]
    summary: str
    licence: str
    weights: str | None = None


def _thorough() -> ThoroughDetector:
    """HOG; HOG on the enlarged photo; the CNN."""
    return ThoroughDetector(
        (
            DlibHogDetector(),
            DlibHogDetector(max_pixels=4_000_000, enlarge=2.0),
            DlibCnnDetector(enlarge=2.0),
        ),
        name="dlib",
    )


KNOWN_DETECTORS = {
    "dlib": KnownDetector(
        _thorough,
        "HOG; where it finds no face, HOG on the enlarged photo, then the CNN",
        "part of dlib (Boost), public domain (CC0)",
    ),
    "dlib_hog": KnownDetector(
        DlibHogDetector, "fast, faces from the front", "part of dlib (Boost)"
    ),
    "dlib_cnn": KnownDetector(
        DlibCnnDetector, "four times as slow, faces at any angle", "public domain (CC0)"
    ),
    "haar": KnownDetector(
        HaarDetector,
        "for webcams: little time whatever the size, faces from the front",
        "part of OpenCV (Intel, BSD-like)",
    ),
    "mtcnn": KnownDetector(
        MtcnnDetector, "slow, few misses, small and turned faces; extra mtcnn", "MIT"
    ),
    "retinaface": KnownDetector(
        RetinaFaceDetector,
        "few misses, exact points also on turned heads; downloaded, 2 MB",
        "MIT",
        "retinaface",
    ),
    "yunet": KnownDetector(
        YunetDetector,
        "the fastest, few misses, faces of any size, also lying ones; downloaded, 0.2 MB",
        "Apache-2.0",
        "yunet",
    ),
}


def load_detector(name: str | None = None) -> Detector:
    """Open a detector.

    Args:
        name: One of ``KNOWN_DETECTORS``, or None for the default.

    Raises:
        InputError: No such detector.
        MissingExtraError: It needs an extra that is not installed.
    """
    name = DEFAULT_DETECTOR if name is None else name
    if not isinstance(name, str) or name not in KNOWN_DETECTORS:
        raise InputError(f"a detector is one of {', '.join(KNOWN_DETECTORS)}. Received: {name!r}")
    return KNOWN_DETECTORS[name].make()


def as_detector(detector: str | Detector | None) -> Detector:
    """Take a detector, or open one by its name.

    Args:
        detector: An object with a method ``detect``; or what ``load_detector`` takes.

    Raises:
        InputError: Neither.
        MissingExtraError: It needs an extra that is not installed.
    """
    if detector is None or isinstance(detector, str):
        return load_detector(detector)
    if not callable(getattr(detector, "detect", None)):
        raise InputError(
            "a detector is the name of a known one, or an object with a method 'detect'. "
            f"Received: {detector!r}"
        )
    return detector
