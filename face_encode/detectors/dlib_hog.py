"""dlib's HOG detector (Dalal and Triggs, 2005; King, 2015): fast, for faces seen from the front."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from face_encode.detectors.base import SMALLEST_SIDE, Found, FramingDetector, check_scale, scaled
from face_encode.dlib_file import read_dlib_filters, write_dlib_filters
from face_encode.errors import WeightsError
from face_encode.files import open_regular, reason_of, replacing
from face_encode.types import ImageArray
from face_encode.weights import cache_folder

# Of dlib's releases 19.24 to 20.0, all of which carry the same detector.
_SHA256 = "f3f7aa833fb4a14a46fc48689f45b98d85ef72d6dfaf8bdc012b7d3c522a5426"
_FILE = "dlib_frontal_face_detector.svm"
# The file's beginning, integers as ``dlib_file`` describes them: four versions and counts, pixels a
# cell, padding, width and height of the window, levels, and the smallest width and height of one.
# Source: ``serialize`` in ``image_processing/scan_fhog_pyramid.h`` of dlib.
_HEADER = bytes.fromhex("0102010101000100 0108 0100 0150 0150 02e803 0140 0140")
_VERSIONS = 8
# Cells along a side of the window.
_CELLS = 10
# Of a mixture of filters, components with smaller singular values are left out. The detector's own
# filters have none below 0.15.
_MIN_SINGULAR = 0.12


def load_frontal_face_detector() -> Any:
    """Load ``dlib.get_frontal_face_detector()`` from the cache, which is faster.

    dlib unpacks its detector at every call; the cache keeps it unpacked, where the cache can be
    written and dlib carries the known detector.
    """
    import dlib

    path = cache_folder() / _FILE
    # dlib reads any file: a damaged one could give a detector that finds less.
    if _is_right(path):
        with suppress(RuntimeError):
            return dlib.fhog_object_detector(str(path))
    detector = dlib.get_frontal_face_detector()
    replaced = replacing(path, WeightsError, shared=True)
    with suppress(WeightsError, RuntimeError), replaced as temporary:
        detector.save(str(temporary))
        if not _is_right(temporary):
            raise WeightsError("another detector than the known one")
    return detector


def load_scanner(cell: int, levels: int, mixtures: tuple[tuple[float, ...], ...] = ()) -> Any:
    """Load the frontal face detector for another size of face.

    A window is 10 cells wide. With cells of 4 pixels it finds faces of 40 pixels in a photo that
    is not enlarged, at slightly lower scores and in a third of the time (Felzenszwalb et al., 2010,
    scan the finest octave of their pyramid in this way).

    Args:
        cell: Pixels a cell; the smallest face found is ten times as wide.
        levels: Sizes of face that are looked for, each 6/5 of the one before, at most 255.
        mixtures: Weights of the detector's filters (front, left, right, front turned left and
            right) in each filter to be used instead of them, for fewer filters and less time.

    Raises:
        WeightsError: This dlib has another detector, or there is no place for temporary files.
    """
    import dlib

    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, _FILE)
            load_frontal_face_detector().save(str(path))
            content = path.read_bytes()
            if not content.startswith(_HEADER):
                raise WeightsError(
                    "a detector as dlib 19.24 to 20.0 carry it is needed. "
                    f"Received: dlib {dlib.__version__}"
                )
            side = cell * _CELLS
            sizes = bytes([1, cell, 1, 0, 1, side, 1, side, 1, levels, 1, side, 1, side])
            rest = content[len(_HEADER) :]
            rest = _mixed(rest, mixtures) if mixtures else rest
            path.write_bytes(content[:_VERSIONS] + sizes + rest)
            return dlib.fhog_object_detector(str(path))
    except OSError as error:
        raise WeightsError(f"cannot write a temporary file: {reason_of(error)}") from error


@cache
def _mixed(content: bytes, mixtures: tuple[tuple[float, ...], ...]) -> bytes:
    """Put mixtures of a detector's filters in their place in its file."""
    start, filters = read_dlib_filters(content)
    mixed = np.asarray(mixtures) @ filters
    planes = mixed[:, :-1].reshape(len(mixed), -1, _CELLS, _CELLS)
    # dlib applies a plane as a sum of separable filters, one for each of these values: leaving out
    # the small ones costs little and saves half of the time.
    left, values, right = np.linalg.svd(planes)
    values[values < _MIN_SINGULAR] = 0
    mixed[:, :-1] = ((left * values[..., None, :]) @ right).reshape(len(mixed), -1)
    return content[:start] + write_dlib_filters(mixed)


def _is_right(path: Path) -> bool:
    """Whether the file holds the known detector."""
    try:
        with open_regular(path) as file:
            return hashlib.sha256(file.read()).hexdigest() == _SHA256
    except OSError:
        return False


_of_thread = threading.local()


@dataclass(frozen=True)
class DlibHogDetector(FramingDetector):
    """Finds faces of about 80 pixels and more, counted after resizing.

    Attributes:
        max_pixels: Larger photos are shrunk to this many pixels.
        enlarge: Smaller photos are enlarged by up to this factor on a side; 2 finds faces of 40
            pixels, in four times the time.
    """

    base_name: ClassVar[str] = "dlib_hog"

    max_pixels: int = 2_000_000
    enlarge: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self.max_pixels, self.enlarge)

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
    """This thread's detector.

    dlib releases Python's lock, and one detector used by two threads corrupts its memory.
    """
    if not hasattr(_of_thread, "detector"):
        _of_thread.detector = load_frontal_face_detector()
    return _of_thread.detector
