from __future__ import annotations

import numpy as np

from face_encode.detectors.mmod.decoding import best_apart, overlapping, to_whole
from face_encode.dlib_file import DlibDetectorOptions

OPTIONS = DlibDetectorOptions(80, 80, largest_overlap=0.5, largest_cover=0.9)


def test_halves_are_rounded_away_from_zero() -> None:
    received = to_whole(np.array([-1.5, -0.5, -0.4, 0.4, 0.5, 1.5]))
    assert received.tolist() == [-2, -1, 0, 0, 1, 2]


def test_overlaps_by_hand() -> None:
    box = np.array([0, 0, 9, 9])
    others = np.array(
        [
            [0, 0, 9, 9],
            # 60 pixels of the 140 around both.
            [4, 0, 13, 9],
            # 80 of 120.
            [2, 0, 11, 9],
            # A corner only, of one pixel; and a neighbour.
            [9, 9, 20, 20],
            [10, 0, 19, 9],
            # Small, but wholly within.
            [1, 1, 3, 3],
        ]
    )
    received = overlapping(box, others, OPTIONS)
    assert received.tolist() == [True, False, True, False, False, True]


def test_the_area_around_both_counts_not_their_union() -> None:
    # Moved along the diagonal: 64 shared pixels are 47 % of the union, 44 % of what is around.
    box, other = np.array([0, 0, 9, 9]), np.array([[2, 2, 11, 11]])
    options = DlibDetectorOptions(80, 80, largest_overlap=0.45, largest_cover=1.0)
    assert not overlapping(box, other, options).any()


def test_the_best_of_each_group_is_chosen_first() -> None:
    edges = np.array([[0, 0, 9, 9], [50, 50, 59, 59], [1, 0, 10, 9], [51, 50, 60, 59]])
    scores = np.array([0.5, 0.9, 0.7, 0.1], np.float32)
    assert best_apart(edges, scores, OPTIONS) == [1, 2]
    assert best_apart(edges[:0], scores[:0], OPTIONS) == []
