"""Shared by the tests of training: people drawn as coloured patches, and a full disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from face_encode.detectors.alignment import ARCFACE_SIDE, DLIB_LANDMARKS_IN_ARCFACE
from face_encode.types import Box, Face, ImageArray


@dataclass(frozen=True)
class WholePhotoDetector:
    """Takes the whole photo for the face; finds none in an even photo."""

    name: str = "whole_photo"

    def detect(self, image: ImageArray) -> list[Face]:
        """One face, or none."""
        if image.std() == 0:
            return []
        height, width = image.shape[:2]
        # As in ArcFace's frame, which then is the whole photo.
        landmarks = (DLIB_LANDMARKS_IN_ARCFACE * width / ARCFACE_SIDE).astype(np.float32)
        return [Face(Box(0, 0, width, height), 1.0, landmarks)]


def draw_people(
    folder: Path, people: int, photos: int, side: int = 32, seed: int = 0, prefix: str = "person"
) -> Path:
    """Write a folder of people; each has four colours of their own, under noise and light."""
    random = np.random.default_rng(seed)
    for person in range(people):
        colours = random.uniform(40, 215, (2, 2, 3))
        (folder / f"{prefix}_{person:02d}").mkdir(parents=True)
        for photo in range(photos):
            patches = colours + random.normal(0, 12, colours.shape) + random.normal(0, 12)
            pixels = np.kron(patches, np.ones((side // 2, side // 2, 1)))
            pixels += random.normal(0, 8, pixels.shape)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                folder / f"{prefix}_{person:02d}" / f"{photo}.png"
            )
    return folder
