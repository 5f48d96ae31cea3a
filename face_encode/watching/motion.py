"""How faces move from one frame to the next, told by the picture itself.

Points in each face are followed by the pyramidal method of Lucas and Kanade (Bouguet, 2000), and
the box moves and grows by their medians (Kalal et al., 2010, "median flow"): a tenth of the time
that it takes to look for the face again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.types import Box, ImageArray

FloatBox: TypeAlias = npt.NDArray[np.float64]
"""Left, top, width, height; float64 ``(4,)``, so that small steps are not lost in rounding."""

GreyArray: TypeAlias = npt.NDArray[np.uint8]

# Points a side of the grid in each box; its rim is left out, since the background shows there.
_GRID = 5
_RIM = 0.2
# A point that, followed forth and back, ends farther from its start than this has been lost.
_LARGEST_RETURN_ERROR = 1.0
_FEWEST_POINTS = 6
# A face does not grow by more than this from one frame to the next.
_LARGEST_GROWTH = 1.15


def as_array(box: Box) -> FloatBox:
    """A box as four numbers."""
    return np.array([box.left, box.top, box.width, box.height], np.float64)


def shrink(image: ImageArray, width: int) -> tuple[ImageArray, float]:
    """A frame no wider than this, and the factor between its sides and the original's."""
    scale = min(1.0, width / image.shape[1])
    if scale == 1:
        return image, 1.0
    size = (width, max(1, round(image.shape[0] * scale)))
    return cast(ImageArray, cv2.resize(image, size, interpolation=cv2.INTER_AREA)), scale


def as_grey(image: ImageArray) -> GreyArray:
    """The brightness, uint8 ``(H, W)``."""
    return cast(GreyArray, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def follow_boxes(
    before: GreyArray, after: GreyArray, boxes: Sequence[FloatBox]
) -> list[FloatBox | None]:
    """Where boxes went between two frames.

    Args:
        before: uint8 ``(H, W)``.
        after: The same size.
        boxes: In pixels of the first.

    Returns:
        A box each in pixels of the second, or None where too few of its points were found again.
    """
    if not boxes:
        return []
    starts = np.concatenate([_grid(box) for box in boxes])[:, np.newaxis].astype(np.float32)
    flow: Any = cv2.calcOpticalFlowPyrLK
    ends, found, _ = flow(before, after, starts, None, winSize=(15, 15), maxLevel=3)
    returned, found_back, _ = flow(after, before, ends, None, winSize=(15, 15), maxLevel=3)
    errors = np.linalg.norm(returned - starts, axis=2)[:, 0]
    good = (found[:, 0] == 1) & (found_back[:, 0] == 1) & (errors < _LARGEST_RETURN_ERROR)
    moved: list[FloatBox | None] = []
    for index, box in enumerate(boxes):
        rows = slice(index * _GRID**2, (index + 1) * _GRID**2)
        kept = good[rows]
        if kept.sum() < _FEWEST_POINTS:
            moved.append(None)
            continue
        moved.append(_moved(box, starts[rows, 0][kept], ends[rows, 0][kept]))
    return moved


def _grid(box: FloatBox) -> npt.NDArray[np.float64]:
    """Points spread over the inner part of a box, ``(_GRID ** 2, 2)``."""
    steps = np.linspace(_RIM, 1 - _RIM, _GRID)
    across, down = np.meshgrid(box[0] + box[2] * steps, box[1] + box[3] * steps)
    return np.stack([across.ravel(), down.ravel()], axis=1)


def _moved(
    box: FloatBox, starts: npt.NDArray[np.float32], ends: npt.NDArray[np.float32]
) -> FloatBox:
    """The box after the median step of its points, grown as the distances between them grew."""
    step = np.median(ends - starts, axis=0)
    first, second = np.triu_indices(len(starts), 1)
    before = np.linalg.norm(starts[first] - starts[second], axis=1)
    after = np.linalg.norm(ends[first] - ends[second], axis=1)
    growth = np.clip(np.median(after / before), 1 / _LARGEST_GROWTH, _LARGEST_GROWTH)
    width, height = box[2] * growth, box[3] * growth
    left = box[0] + box[2] / 2 + step[0] - width / 2
    top = box[1] + box[3] / 2 + step[1] - height / 2
    return np.array([left, top, width, height])
