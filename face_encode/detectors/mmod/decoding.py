"""From scores to boxes: each face once, where the score is highest.

Source: ``loss_mmod_`` in ``dnn/loss.h`` and ``test_box_overlap`` in
``image_processing/box_overlap_testing.h`` of dlib.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from face_encode.dlib_file import DlibDetectorOptions, FloatArray

Edges = npt.NDArray[np.int64]


def to_whole(boxes: npt.NDArray[np.float64]) -> Edges:
    """Round to whole pixels, halves away from zero."""
    return (np.sign(boxes) * np.floor(np.abs(boxes) + 0.5)).astype(np.int64)


def best_apart(edges: Edges, scores: FloatArray, options: DlibDetectorOptions) -> list[int]:
    """Choose the boxes that overlap none with a higher score, the highest score first.

    Args:
        edges: First and last column and row of each box: left, top, right, bottom, ``(N, 4)``.
        scores: ``(N,)``.
        options: How much of an overlap is too much.

    Returns:
        Indices of the chosen ones.
    """
    left_over = np.argsort(-scores, kind="stable")
    chosen = []
    while len(left_over):
        best = int(left_over[0])
        chosen.append(best)
        left_over = left_over[~overlapping(edges[best], edges[left_over], options)]
    return chosen


def overlapping(edges: Edges, others: Edges, options: DlibDetectorOptions) -> npt.NDArray[np.bool_]:
    """Whether each of the others is taken for the same face.

    The overlap is compared with the area of the smallest box round both.

    Args:
        edges: One box, ``(4,)``.
        others: ``(N, 4)``.
        options: How much of an overlap is too much.
    """
    shared = _area(np.maximum(edges[:2], others[:, :2]), np.minimum(edges[2:], others[:, 2:]))
    around = _area(np.minimum(edges[:2], others[:, :2]), np.maximum(edges[2:], others[:, 2:]))
    own, theirs = _area(edges[:2], edges[2:]), _area(others[:, :2], others[:, 2:])
    return (shared > options.largest_overlap * around) | (
        shared > options.largest_cover * np.minimum(own, theirs)
    )


def _area(first: Edges, last: Edges) -> Edges:
    """Pixels from the first to the last row and column; none where the last comes first."""
    sides = np.maximum(last - first + 1, 0)
    return np.asarray(sides[..., 0] * sides[..., 1], np.int64)
