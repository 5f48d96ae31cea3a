"""Paint the things outside the face model: bodies, rooms, light and the camera's own noise.

Nothing is learned or taken from a photo: shapes and colours come from a random generator. Colours
are RGB float32 in 0..255, alphas float32 in 0..1. "Face units" are pixels of the face model's
frame, in which the eyes are 44 apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

FABRICS = (
    (38, 44, 66), (70, 74, 80), (122, 44, 50), (48, 86, 92), (196, 188, 172), (88, 104, 62),
    (60, 60, 64), (150, 110, 70), (84, 92, 140), (210, 206, 204), (112, 72, 108), (40, 72, 56),
)  # fmt: skip
WALLS = (
    (196, 190, 178), (150, 166, 176), (120, 132, 118), (176, 150, 128), (92, 98, 112),
    (206, 202, 204), (136, 112, 100), (104, 128, 140),
)  # fmt: skip
SCENES = ("wall", "lights", "window", "garden", "shelf")


@dataclass(frozen=True, eq=False)
class Head:
    """A head in the face model's frame, enlarged.

    Attributes:
        colour: RGB float32 (height, width, 3), 0..255.
        matte: float32 (height, width), 1 inside the head.
        enlargement: pixels of this picture to one face unit.
        hair: RGB of the hair.
        hair_end: row that long hair falls to behind the shoulders, in face units; 0 for short.
    """

    colour: FloatArray
    matte: FloatArray
    enlargement: float
    hair: tuple[int, int, int]
    hair_end: float


@dataclass(frozen=True)
class Outfit:
    """What somebody wears: the neckline and its colours."""

    neckline: str
    fabric: tuple[int, int, int]
    under: tuple[int, int, int]


@dataclass(frozen=True)
class Placement:
    """Where a head goes: the point between the eyes, pixels to a face unit, tilt in degrees."""

    x: float
    y: float
    scale: float
    tilt: float


def smooth_noise(
    generator: np.random.Generator, height: int, width: int, cell: tuple[float, float]
) -> FloatArray:
    """Return noise of unit deviation whose grain is `cell` = (height, width) pixels."""
    rows, columns = (max(2, round(side / c) + 2) for side, c in zip((height, width), cell))  # noqa: B905
    grid = generator.standard_normal((rows, columns)).astype(np.float32)
    noise = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(noise / max(float(noise.std()), 1e-6), np.float32)


def paint_background(
    generator: np.random.Generator, height: int, width: int, scene: str
) -> FloatArray:
    """Paint an out-of-focus place, one of `SCENES`, as RGB float32 (height, width, 3)."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    wall = np.array(WALLS[generator.integers(len(WALLS))], np.float32)
    unit = min(height, width) / 10
    if scene == "lights":
        wall = wall * 0.35
    if scene == "garden":
        wall = np.array((98, 112, 78), np.float32) * generator.uniform(0.7, 1.2)
    slope = generator.uniform(-0.25, 0.25) * (columns / width - 0.5)
    slope = slope + generator.uniform(-0.1, 0.3) * (0.5 - rows / height)
    picture = wall * (1 + slope)[..., None]
    picture = picture * (1 + 0.03 * smooth_noise(generator, height, width, (unit, unit)))[..., None]
    blur = unit * 0.35
    if scene == "lights":
        for _ in range(26):
            centre = (int(generator.uniform(0, width)), int(generator.uniform(0, height * 0.8)))
            disc = np.zeros((height, width), np.float32)
            cv2.circle(disc, centre, int(unit * generator.uniform(0.2, 0.8)), 1.0, -1, cv2.LINE_AA)
            tint = np.array((255, generator.uniform(150, 235), generator.uniform(90, 220)))
            picture = picture + disc[..., None] * tint * generator.uniform(0.1, 0.45)
        blur = unit * 0.08
    elif scene == "window":
        left = generator.uniform(-0.1, 0.75) * width
        pane = width * generator.uniform(0.16, 0.24)
        sky = np.array((226, 234, 240), np.float32)
        for column in range(2):
            for row in range(3):
                start = (int(left + column * pane * 1.12), int((row * 0.27 - 0.05) * height))
                end = (int(start[0] + pane), int(start[1] + height * 0.24))
                cv2.rectangle(picture, start, end, [float(c) for c in sky], -1)
    elif scene == "garden":
        for size, strength in ((3.0, 0.2), (1.2, 0.14), (0.5, 0.08)):
            leaves = smooth_noise(generator, height, width, (unit * size, unit * size))
            tint = np.array((1.0, 1.05, 0.75), np.float32) * wall * strength
            picture = picture + leaves[..., None] * tint
    elif scene == "shelf":
        for shelf in range(4):
            bottom, left = height * (0.1 + 0.27 * shelf), 0.0
            while left < width:
                right = left + unit * generator.uniform(0.25, 0.7)
                top = bottom - height * generator.uniform(0.15, 0.21)
                colour = np.array(FABRICS[generator.integers(len(FABRICS))]) * 0.8 + 20
                cv2.rectangle(picture, (int(left), int(top)), (int(right), int(bottom)),
                              [float(c) for c in colour], -1)  # fmt: skip
                left = right
    return np.asarray(np.clip(cv2.GaussianBlur(picture, (0, 0), blur), 0, 255), np.float32)


def _fill(height: int, width: int, points: Sequence[tuple[float, float]]) -> FloatArray:
    """Return the alpha of a polygon, its edge softened over a pixel or so."""
    alpha = np.zeros((height, width), np.float32)
    cv2.fillPoly(alpha, [np.round(np.array(points) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(alpha, (0, 0), 1.1), np.float32)


def _curve(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Round the corners of a closed polygon (Chaikin's corner cutting, 1974)."""
    corners = np.array(points, np.float64)
    for _ in range(3):
        following = np.roll(corners, -1, axis=0)
        pair = np.stack([0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following], 1)
        corners = pair.reshape(-1, 2)
    return [(float(x), float(y)) for x, y in corners]


def _over(picture: FloatArray, colour: NDArray[np.floating], alpha: FloatArray) -> FloatArray:
    """Lay a colour, constant or per pixel, over a picture."""
    blend = alpha[..., None]
    return np.asarray(picture * (1 - blend) + colour * blend, np.float32)


def sample_skin(head: Head) -> FloatArray:
    """Return the colour of the skin: the median over the cheeks."""
    unit = head.enlargement
    cheeks = head.colour[int(112 * unit) : int(132 * unit), int(58 * unit) : int(118 * unit)]
    return np.asarray(np.median(cheeks.reshape(-1, 3), axis=0), np.float32)


def paint_person(
    picture: FloatArray,
    head: Head,
    outfit: Outfit,
    place: Placement,
    generator: np.random.Generator,
) -> FloatArray:
    """Paint a body below a head and the head on it, and return the new picture."""
    height, width = picture.shape[:2]
    skin = sample_skin(head)
    scale = place.scale

    def at(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(place.x + x * scale, place.y + (y - 92) * scale) for x, y in points]

    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    across = (columns - place.x) / scale
    down = (rows - place.y) / scale + 92
    folds = smooth_noise(generator, height, width, (60 * scale, 18 * scale))
    weave = smooth_noise(generator, height, width, (2, 2))
    cloth = 1 - 0.0016 * np.abs(across) + 0.05 * folds + 0.012 * weave
    cloth = cloth * np.clip(0.75 + (down - 175) / 160, 0.7, 1)
    cylinder = 1 - 0.30 * np.clip(np.abs(across) / 38, 0, 1) ** 2.5
    throat = (0.82 + 0.12 * np.clip((down - 166) / 40, 0, 1)) * cylinder

    if head.hair_end > 0:
        low = head.hair_end
        curtain = _curve(at([(-40, 30), (40, 30), (60, 70), (66, low - 30), (52, low), (-52, low),
                             (-66, low - 30), (-60, 70)]))  # fmt: skip
        strands = smooth_noise(generator, height, width, (50 * scale, 1.6 * scale))
        locks = smooth_noise(generator, height, width, (70 * scale, 9 * scale))
        shade = 0.62 + 0.10 * strands + 0.10 * locks
        colour = np.array(head.hair, np.float32) * shade[..., None]
        picture = _over(picture, colour, _fill(height, width, curtain))

    # Skin in shade, lit by the room more than by the lamp, is less saturated.
    shaded = 0.82 * skin + 0.18 * skin.mean()
    neck = _curve(at([(-34, 130), (34, 130), (34, 180), (48, 196), (60, 240), (-60, 240),
                      (-48, 196), (-34, 180)]))  # fmt: skip
    picture = _over(picture, shaded * throat[..., None], _fill(height, width, neck))

    side = [(33, 190), (62, 202), (100, 216), (118, 250), (130, 330), (130, 600)]
    opening = {"crew": [(-18, 207), (0, 211), (18, 207)], "vee": [(-16, 214), (0, 244), (16, 214)]}
    front = opening.get(outfit.neckline, [(-14, 214), (0, 236), (14, 214)])
    torso = [(-x, y) for x, y in side[::-1]] + front + side
    inner = cloth[..., None] * np.array(outfit.under, np.float32)
    outer = cloth[..., None] * np.array(outfit.fabric, np.float32)
    if outfit.neckline in ("crew", "vee"):
        picture = _over(picture, outer, _fill(height, width, at(torso)))
    else:
        picture = _over(picture, inner, _fill(height, width, at(torso)))
        for sign in (-1, 1):
            flap = [
                (sign * x, y) for x, y in ((34, 184), (14, 213), (3, 222), (20, 236), (44, 204))
            ]
            picture = _over(picture, inner * 0.82, _fill(height, width, at(flap)))
            flap = [(sign * x, y - 3) for x, y in flap]
            picture = _over(picture, inner * 1.04, _fill(height, width, at(flap)))
            jacket = [(40, 196), (8, 300), (8, 600), (130, 600), (130, 330), (118, 250), (100, 216),
                      (62, 201)]  # fmt: skip
            if outfit.neckline == "jacket":
                body = at([(sign * x, y) for x, y in jacket])
                picture = _over(picture, outer, _fill(height, width, body))
                lapel = at([(sign * x, y) for x, y in ((40, 197), (10, 296), (50, 246), (44, 236))])
                picture = _over(picture, outer * 1.13, _fill(height, width, lapel))

    matrix = cv2.getRotationMatrix2D(
        (87.5 * head.enlargement, 92 * head.enlargement), place.tilt, scale / head.enlargement
    )
    move = (place.x - 87.5 * head.enlargement, place.y - 92 * head.enlargement)
    turn = np.asarray(matrix, np.float64) + np.array(((0, 0, move[0]), (0, 0, move[1])))
    size = (width, height)
    face = cv2.warpAffine(head.colour, turn, size, flags=cv2.INTER_AREA,
                            borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    alpha = cv2.warpAffine(head.matte, turn, size, flags=cv2.INTER_LINEAR)
    # The jaw throws a soft shadow on the neck; without it the head looks pasted on.
    shadow = cv2.warpAffine(head.matte, turn + np.array(((0, 0, 0), (0, 0, 7 * scale))), size)
    shadow = cv2.GaussianBlur(shadow, (0, 0), 5 * scale) * np.clip((down - 140) / 15, 0, 1)
    picture = picture * (1 - 0.22 * np.asarray(shadow, np.float32))[..., None]
    return _over(picture, np.asarray(face, np.float32), np.asarray(alpha, np.float32))


def develop(picture: FloatArray, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Light, expose and grain a painted picture as a camera would, and return RGB uint8."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle, strength = generator.uniform(0, 2 * np.pi), generator.uniform(0.0, 0.22)
    ramp = np.cos(angle) * (columns / width - 0.5) + np.sin(angle) * (rows / height - 0.5)
    warmth = generator.normal(0, 0.025)
    balance = np.array((1 + warmth, 1.0, 1 - warmth), np.float32)
    lit = picture * (1 + strength * ramp)[..., None] * balance * generator.uniform(0.9, 1.1)
    lit = 255 * np.clip(lit / 255, 0, 1) ** generator.uniform(0.9, 1.1)
    grain = smooth_noise(generator, height, width, (1.4, 1.4)) * generator.uniform(1.2, 2.4)
    speckle = generator.standard_normal((height, width, 3)) * 1.2
    return np.asarray(np.clip(np.rint(lit + grain[..., None] + speckle), 0, 255), np.uint8)
