"""Harder conditions, made from ordinary crops: to train for them, and to measure the gain.

Who has to recognise people in masks or on poor cameras often has good photos of them only.

The command line reads the names of the conditions, so OpenCV waits until one is applied.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from face_encode.types import ImageArray

# A dlib chip shows about 131 of the 250 pixels across a photo of LFW: 17 once those are 32.
_SMALL_SIDE = 17
# Where a medical mask ends on the bridge of the nose in an aligned crop, as a share of the height.
_MASK_TOP = 0.4
_MASK_GREY = 128


def grey(crops: ImageArray) -> ImageArray:
    """Crops ``(N, height, width, 3)`` without colour; three equal channels."""
    import cv2

    light = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops]
    return np.repeat(np.stack(light)[..., np.newaxis], 3, axis=-1)


def small(crops: ImageArray) -> ImageArray:
    """Crops as they come from photos of 32x32 pixels: 17 across the crop, enlarged again."""
    import cv2

    height, width = crops.shape[1:3]
    side = (_SMALL_SIDE, _SMALL_SIDE)
    reduced = (cv2.resize(crop, side, interpolation=cv2.INTER_AREA) for crop in crops)
    enlarged = [cv2.resize(crop, (width, height)) for crop in reduced]
    stacked: ImageArray = np.stack(enlarged).astype(np.uint8)
    return stacked


def covered(crops: ImageArray) -> ImageArray:
    """Crops whose lower half, from the bridge of the nose, is hidden by an even grey."""
    hidden: ImageArray = np.array(crops)
    hidden[:, round(_MASK_TOP * crops.shape[1]) :] = _MASK_GREY
    return hidden


CONDITIONS: dict[str, Callable[[ImageArray], ImageArray]] = {
    "covered": covered,
    "grey": grey,
    "small": small,
}
"""By the name that the command line takes."""
