"""MTCNN (Zhang et al., 2016) by the package ``mtcnn``: slow, for faces of any size, few misses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, ClassVar

from face_encode.detectors.base import SMALLEST_SIDE, Found, FramingDetector, check_scale, scaled
from face_encode.errors import InputError, MissingExtraError
from face_encode.forking import use_keras
from face_encode.terminal import without_native_notices
from face_encode.types import ImageArray
from face_encode.weights import installed_path, read_verified

# From MTCNN's frame to dlib's, the medians over faces that both found; docs/detectors.md.
_RIGHT, _DOWN, _SIZE = 0.05, 0.06, 0.97


@dataclass(frozen=True)
class MtcnnDetector(FramingDetector):
    """Finds faces of 20 pixels and more, also turned ones, by three small networks in a row.

    Attributes:
        max_pixels: Larger photos are shrunk to this many pixels; on one core the networks take
            about 2 seconds a million pixels.
        enlarge: Smaller photos are enlarged by up to this factor on a side.
    """

    base_name: ClassVar[str] = "mtcnn"

    max_pixels: int = 400_000
    enlarge: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self.max_pixels, self.enlarge)
        _check_extra()

    def find(self, image: ImageArray) -> list[Found]:
        """Find the faces; see ``FramingDetector.find``."""
        smaller, scale = scaled(image, self.max_pixels, self.enlarge)
        if min(smaller.shape[:2]) < SMALLEST_SIDE:
            return []
        # Unrounded and not cut off at the photo's edge: both would move the frame. Its five points
        # are not used: they are the eyes' centres and the corners of the mouth, where a ``Face``
        # has the corners of the eyes.
        use_keras()
        rows = _detector().detect_faces(
            smaller, fit_to_image=False, box_format="xyxy", output_type="numpy"
        )
        found = [
            Found(left, top, right - left, bottom - top, score).reframed(_RIGHT, _DOWN, _SIZE)
            for left, top, right, bottom, score in rows[:, 1:6].astype(float).tolist()
        ]
        return [each.unscaled(scale) for each in found]


def _check_extra() -> None:
    """Refuse where the package is missing."""
    if find_spec("mtcnn") is None:
        raise MissingExtraError(
            'the detector "mtcnn" needs the package mtcnn: pip install "face_encode[mtcnn]"'
        )


@lru_cache(maxsize=1)
def _detector() -> Any:
    """The networks, shared by all threads: they hold nothing of a photo."""
    _check_extra()
    # TensorFlow would print its notices in each worker process, amid the progress bar.
    with without_native_notices():
        import keras

    if keras.config.backend() != "tensorflow":
        raise InputError(
            'the detector "mtcnn" runs with Keras on TensorFlow only (KERAS_BACKEND=tensorflow). '
            f"Received: {keras.config.backend()!r}"
        )
    try:
        with without_native_notices():
            from mtcnn import MTCNN
            from mtcnn.stages import StageONet, StagePNet, StageRNet
    except ImportError as error:
        raise MissingExtraError(
            f'the package mtcnn cannot be imported ({error}): pip install "face_encode[mtcnn]"'
        ) from error
    # The library unpickles these files, and looks up bare names in the working folder first: it
    # gets the whole paths of files whose content was checked.
    stages = []
    for stage, weights in ((StagePNet, "pnet"), (StageRNet, "rnet"), (StageONet, "onet")):
        read_verified(f"mtcnn_{weights}")
        with without_native_notices():
            stages.append(stage(weights=str(installed_path(f"mtcnn_{weights}"))))
    return MTCNN(stages=stages)
