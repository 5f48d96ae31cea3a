"""The known detectors, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from face_encode.detectors.base import Detector
from face_encode.detectors.dlib_cnn import DlibCnnDetector
from face_encode.detectors.dlib_detector import DlibDetector
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.detectors.haar import HaarDetector
from face_encode.detectors.mtcnn import MtcnnDetector
from face_encode.detectors.retinaface import RetinaFaceDetector
from face_encode.detectors.yunet import YunetDetector
from face_encode.errors import InputError

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


KNOWN_DETECTORS = {
    "dlib": KnownDetector(
        DlibDetector,
        "every face of 40 pixels and more (80 in large photos), also lying ones; HOG, then the CNN",
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


def load_detector(name: str | None = None, *, min_face: int | None = None) -> Detector:
    """Open a detector.

    Args:
        name: One of ``KNOWN_DETECTORS``, or None for the default.
        min_face: Side of the smallest face that is looked for, in pixels of the photo, at least 20,
            for detectors with such a setting; smaller ones are left out. None for the detector's
            own.

    Raises:
        InputError: No such detector, or it has no such setting.
        MissingExtraError: It needs an extra that is not installed.
    """
    name = DEFAULT_DETECTOR if name is None else name
    if not isinstance(name, str) or name not in KNOWN_DETECTORS:
        raise InputError(f"a detector is one of {', '.join(KNOWN_DETECTORS)}. Received: {name!r}")
    return with_min_face(KNOWN_DETECTORS[name].make(), min_face)


def with_min_face(detector: Detector, min_face: int | None) -> Detector:
    """A detector that looks for faces of a size; arguments as for ``load_detector``.

    Raises:
        InputError: It has no such setting.
    """
    if min_face is None:
        return detector
    if not hasattr(detector, "min_face"):
        raise InputError(f"the detector {detector.name!r} has no min_face. Received: {min_face!r}")
    changed: Detector = replace(detector, min_face=min_face)  # type: ignore[type-var]
    return changed


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
