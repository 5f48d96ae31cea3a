"""Other views of aligned crops: what differs between two photos of one person.

Computed with ``keras.ops``, so that it runs inside a compiled training step, on a GPU too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops


@dataclass(frozen=True)
class Augmentation:
    """How far a view may differ from the crop; each amount is drawn evenly from -x to +x.

    Attributes:
        turn: Rotation about the middle, in degrees.
        zoom: Share by which the view is larger or smaller.
        shift: Share of the side by which it is moved.
        brightness: Share of the whole range, 0..255, that is added.
        contrast: Share by which differences from mid-grey grow or shrink.
        flip: Whether one view in two is mirrored.
    """

    turn: float = 11.0
    zoom: float = 0.08
    shift: float = 0.04
    brightness: float = 0.12
    contrast: float = 0.25
    flip: bool = True

    def __call__(self, images: Any, seed: int | keras.random.SeedGenerator) -> Any:
        """Give another view of each image.

        Args:
            images: ``(N, height, width, 3)``, 0..255, uint8 or float.
            seed: The same whole number gives the same views; or a generator.

        Returns:
            float32 ``(N, height, width, 3)``, 0..255, as a tensor of the backend.
        """
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
        # From a place in the view to the place in the crop that it shows.
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
