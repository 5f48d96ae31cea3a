"""A detector that strangers' photos keep busy; apart, since worker processes load this file."""

from __future__ import annotations

import os
from dataclasses import dataclass

from face_encode.types import Box, Face, ImageArray


@dataclass(frozen=True)
class Endless:
    """Never comes to an end with a photo of one colour, and dies of a black one."""

    name: str = "endless"

    def detect(self, image: ImageArray) -> list[Face]:
        if image.max() == 0:
            os._exit(1)
        while image.min() == image.max():
            pass
        return [Face(Box(0, 0, 9, 9), 1.0)]
