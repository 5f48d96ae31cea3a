"""Other views of aligned crops, and degraded ones.

An augmentation changes what differs between two photos of one person. It is computed with
``keras.ops``, so that it also runs inside a compiled training step and on a GPU. A degradation
makes a harder photo of a crop: a covered face, one from a small photo, one without colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from face_encode.types import ImageArray

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a crop; each amount is drawn evenly from -x to +x.

    Attributes:
        turn: Rotation about the middle, in degrees.
        zoom: Change in size, as a share of it.
        shift: Movement, as a share of the side.
        brightness: Added light, as a share of the range 0..255.
        contrast: Change of the differences from mid-grey, as a share of them.
        flip: Whether one view in two is mirrored.
    """

    turn: float = 11.0
    zoom: float = 0.08
    shift: float = 0.04
    brightness: float = 0.12
    contrast: float = 0.25
    flip: bool = True

    def __call__(self, images: Any, seed: int | keras.random.SeedGenerator) -> Any:
        """Draw another view of each image.

        Args:
            images: ``(N, height, width, 3)``, 0..255, uint8 or float.
            seed: A whole number, which gives the same views each time, or a generator.

        Returns:
            A tensor of the backend, float32 ``(N, height, width, 3)``, 0..255.
        """
        import keras
        from keras import ops

        images = ops.cast(images, "float32")
        count, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]
        draws = keras.random.uniform((count, 7), -1.0, 1.0, seed=seed)
        flip, turn, zoom, right, down, bright, contrast = ops.unstack(draws, 7, axis=1)
        mirror = ops.where(flip < 0, -1.0, 1.0) if self.flip else ops.ones_like(flip)
        angle = turn * math.radians(self.turn)
        scale = 1 + zoom * self.zoom
        cosine, sine = ops.cos(angle) * scale, ops.sin(angle) * scale
        centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
        zero = ops.zeros_like(flip)
        # Each maps a place in the view to the place in the crop that it shows.
        a, b = cosine * mirror, -sine
        c, d = sine * mirror, cosine
        transforms = ops.stack(
            [
                *(a, b, centre_x * (1 - a) - b * centre_y + right * self.shift * width),
                *(c, d, centre_y * (1 - d) - c * centre_x + down * self.shift * height),
                *(zero, zero),
            ],
            axis=1,
        )
        views = ops.image.affine_transform(
            images, transforms, interpolation="bilinear", fill_mode="nearest"
        )
        gain = ops.reshape(1 + contrast * self.contrast, (-1, 1, 1, 1))
        lift = ops.reshape(bright * self.brightness * 255, (-1, 1, 1, 1))
        return ops.clip((views - 127.5) * gain + 127.5 + lift, 0, 255)


# A dlib chip shows about 131 of the 250 pixels across a photo of LFW: 17 once those are 32.
_SMALL_SIDE = 17
# A medical mask ends on the bridge of the nose; in an aligned crop, at this share of the height.
_MASK_TOP = 0.4
_MASK_GREY = 128


def grey(crops: ImageArray) -> ImageArray:
    """Crops ``(N, height, width, 3)`` without colour; three equal channels."""
    import cv2

    light = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops]
    return np.repeat(np.stack(light)[..., np.newaxis], 3, axis=-1)


def small(crops: ImageArray, side: int = _SMALL_SIDE) -> ImageArray:
    """Crops reduced to this many pixels across and enlarged again; 17: photos of 32x32 pixels."""
    import cv2

    height, width = crops.shape[1:3]
    size = (side, max(1, round(side * height / width)))
    reduced = (cv2.resize(crop, size, interpolation=cv2.INTER_AREA) for crop in crops)
    return np.stack([cv2.resize(crop, (width, height)) for crop in reduced]).astype(np.uint8)


def covered(
    crops: ImageArray,
    top: float = _MASK_TOP,
    bottom: float = 1.0,
    colour: int | Sequence[int] = _MASK_GREY,
) -> ImageArray:
    """Crops with an even colour over a band; by default from the bridge of the nose down.

    Args:
        crops: ``(N, height, width, 3)``.
        top: Where the band begins, as a share of the height.
        bottom: Where it ends.
        colour: Its colour, 0..255.
    """
    hidden: ImageArray = np.array(crops)
    height = crops.shape[1]
    hidden[:, max(0, round(top * height)) : max(0, round(bottom * height))] = colour
    return hidden


def blurred(crops: ImageArray, sigma: float = 3.0) -> ImageArray:
    """Crops out of focus: a Gaussian blur of this standard deviation in pixels."""
    import cv2

    return np.stack([cv2.GaussianBlur(crop, (0, 0), sigma) for crop in crops]).astype(np.uint8)


def dark(crops: ImageArray, light: float = 0.1) -> ImageArray:
    """Crops with this share of the light, rounded to whole numbers as a camera does."""
    return np.asarray(np.rint(light * crops), np.uint8)


def compressed(crops: ImageArray, quality: int = 4) -> ImageArray:
    """Crops kept as JPEG of this quality, 1..100."""
    import cv2

    kept: ImageArray = np.empty_like(crops)
    for index, crop in enumerate(crops):
        _, file = cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        kept[index] = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR))[..., ::-1]
    return kept


DEGRADATIONS: dict[str, Callable[[ImageArray], ImageArray]] = {
    "blurred": blurred,
    "compressed": compressed,
    "covered": covered,
    "dark": dark,
    "grey": grey,
    "small": small,
}
"""Degradations of uint8 crops ``(N, height, width, 3)``, by their names on the command line. Whole
photos are degraded alike."""
