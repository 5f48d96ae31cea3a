"""A calibration made up by hand, with round numbers."""

from __future__ import annotations

from face_encode.gallery.thresholds import Calibration

BY_HAND = Calibration(
    false_match_rate=0.01,
    people=10,
    photos=100,
    enrolled=(1, 100),
    thresholds=(0.5, 0.7),
    tail_scale=0.1,
    slopes=(20.0, 40.0),
    midpoints=(0.5, 0.7),
    verification_interval=(0.4, 0.6),
    search_interval=(0.6, 0.8),
    extrapolated=False,
)
