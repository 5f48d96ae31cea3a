"""How time grows with size: a power law fitted on logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from face_encode.errors import InputError

# Two-sided 95 % points of Student's t for 1, 2, 3 … degrees of freedom; more have less.
_STUDENT_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Growth:
    """time = factor x size ** exponent.

    Attributes:
        exponent: The slope on logarithms: 1 where twice the size takes twice the time.
        margin: Half the width of its 95 % interval; None of two points, through which every
            line goes.
        factor: The time of size 1.
        smallest: From this size on.
        points: How many sizes it was fitted to.
    """

    exponent: float
    margin: float | None
    factor: float
    smallest: float
    points: int

    @classmethod
    def of(cls, sizes: Sequence[float], times: Sequence[float]) -> Growth:
        """Fit by least squares.

        Args:
            sizes: At least two, above 0, not all equal.
            times: As many, above 0.

        Raises:
            InputError: Other numbers.
        """
        x, y = np.asarray(sizes, np.float64), np.asarray(times, np.float64)
        if x.shape != y.shape or len(set(x.tolist())) < 2 or (x <= 0).any() or (y <= 0).any():
            raise InputError("growth takes two sizes or more and as many times, all above 0")
        x, y = np.log(x), np.log(y)
        offsets = x - x.mean()
        exponent = float(offsets @ y / (offsets @ offsets))
        constant = float(y.mean() - exponent * x.mean())
        margin = None
        freedom = len(x) - 2
        if freedom:
            rest = y - exponent * x - constant
            error = np.sqrt(rest @ rest / freedom / (offsets @ offsets))
            margin = float(_STUDENT_95[min(freedom, len(_STUDENT_95)) - 1] * error)
        return cls(exponent, margin, float(np.exp(constant)), float(min(sizes)), len(x))

    def __str__(self) -> str:
        margin = "" if self.margin is None else f" ± {self.margin:.2f}"
        return f"n^{self.exponent:.2f}{margin}"
