"""Pairs of faces with their scores, checked before anything is counted."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError

Scores: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]


def checked_pairs(
    scores: npt.ArrayLike, same: npt.ArrayLike, both_kinds: bool = True
) -> tuple[Scores, Flags]:
    """Pairs as float64 scores, ``-inf`` where a face was not found, and boolean truths.

    Args:
        scores: ``(N,)``, finite, NaN or ``-inf``.
        same: ``(N,)`` of booleans, or of the numbers 0 and 1.
        both_kinds: Whether same and different pairs must both be present.

    Raises:
        InputError: Anything else.
    """
    try:
        checked = np.array(scores, np.float64)
        truths = np.asarray(same)
    except (TypeError, ValueError) as error:
        raise InputError(f"scores are numbers, truths booleans: {error}") from error
    if checked.ndim != 1 or checked.shape != truths.shape or len(checked) == 0:
        raise InputError(
            "scores and truths are two arrays of one shape (N,), N at least 1. "
            f"Received: {checked.shape} and {truths.shape}"
        )
    if truths.dtype != np.bool_ and not np.isin(truths, (0, 1)).all():
        raise InputError(f"truths are booleans, or 0 and 1. Received: {np.unique(truths)[:5]}")
    truths = truths.astype(np.bool_)
    if np.isposinf(checked).any():
        raise InputError("a score is finite, or NaN or -inf for no face. Received: inf")
    checked[np.isnan(checked)] = -np.inf
    if both_kinds and (truths.all() or not truths.any()):
        raise InputError(
            "both same and different pairs are needed. "
            f"Received: {truths.sum()} same, {(~truths).sum()} different"
        )
    return checked, truths
