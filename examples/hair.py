"""Paint hair on a rendered head: the hair of the face model is an average over all photos."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.face_model import FloatArray


@dataclass(frozen=True)
class HairStyle:
    """How somebody's hair lies, in face units (eyes 44 apart, at row 92).

    Attributes:
        colour: RGB, 0..255.
        hairline: Row of the hairline over the middle of the forehead; 0 for no painted hair.
        volume: How far the hair stands out from the head.
        sides: Row that the hair beside the face comes down to.
        parting: How far the hairline leans to one side.
    """

    colour: tuple[int, int, int]
    hairline: float
    volume: float
    sides: float
    parting: float


def _strands(seed: int, across: FloatArray, along: FloatArray) -> FloatArray:
    """Noise that is fine across the strands and long along them, deviation about 1."""
    noise = np.random.default_rng(seed).standard_normal((64, 1024)).astype(np.float32)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.7), np.float32)
    noise /= noise.std()
    columns, rows = np.mod(across, 1022).astype(np.float32), np.mod(along, 62).astype(np.float32)
    return np.asarray(cv2.remap(noise, columns, rows, cv2.INTER_LINEAR), np.float32)


def paint_hair(
    colour: FloatArray, distance: FloatArray, style: HairStyle, seed: int, enlargement: int
) -> tuple[FloatArray, FloatArray]:
    """Paint hair over a head.

    Args:
        colour: RGB float32 (height, width, 3) of the head.
        distance: Signed distance from the head's outline, in face units, positive inside.
        style: How the hair lies.
        seed: Decides each strand; the same for all photos of a person.
        enlargement: Pixels to a face unit.

    Returns:
        The new colour, and the new distance with the hair's volume added.
    """
    if style.hairline <= 0:
        return colour, distance
    rows, columns = (
        np.mgrid[: distance.shape[0], : distance.shape[1]].astype(np.float32) / enlargement
    )
    across = columns - 87.5
    lean = across - style.parting
    # The face's border against the hair: a superellipse, and nothing but hair outside it.
    bare = np.abs(across / 49) ** 2.3 + (np.maximum(106 - rows, 0) / (106 - style.hairline)) ** 2.3
    bare = bare * (1 + 0.0004 * style.parting * across * np.clip((90 - rows) / 40, 0, 1))
    angle = np.arctan2(lean, np.maximum(rows - 12, 0) * 0.8 + 7)
    radius = np.hypot(0.8 * lean, rows - 8)
    fine = _strands(seed, angle * 130 + 300, radius / 22)
    coarse = _strands(seed + 1, angle * 26 + 300, radius / 40)
    growth = 1 / (1 + np.exp(-np.clip((bare - 1) * 9 + 0.55 * fine + 0.6 * coarse, -30, 30)))
    ends = np.clip((style.sides + 3 * coarse - rows) / 10, 0, 1)
    outward = style.volume * np.clip((style.sides + 4 - rows) / 25, 0, 1)
    outward = outward * (0.75 + 0.25 * np.clip((70 - rows) / 60, 0, 1))
    grown = distance + outward + np.where(rows < 120, 0.5 * coarse + 0.5 * fine, 0)
    # Light from above: a band of gloss over the crown, darker at the roots and at the rim.
    gloss = np.exp(-(((radius - 26 - 3 * coarse) / 14) ** 2))
    rim = np.clip(1 - np.maximum(grown, 0) / 9, 0, 1)
    shade = 0.80 + 0.085 * fine + 0.10 * coarse + 0.20 * gloss - 0.22 * rim
    # The head's own shading, so that light from one side also falls on the hair.
    luma = cv2.GaussianBlur(colour.mean(axis=2), (0, 0), 12 * enlargement)
    shade = shade * np.clip(luma / max(float(np.median(luma)), 1.0), 0.6, 1.4)
    tint = np.array(style.colour, np.float32) + 8 * gloss[..., None]
    alpha = (growth * ends * 0.95)[..., None]
    painted = colour * (1 - alpha) + np.clip(tint * shade[..., None], 0, 255) * alpha
    return painted.astype(np.float32), np.asarray(grown, np.float32)


def as_colour(values: NDArray[np.floating]) -> tuple[int, int, int]:
    """Round an RGB array to a tuple."""
    red, green, blue = (round(float(v)) for v in values)
    return red, green, blue
