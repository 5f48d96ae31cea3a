"""Groups of rows, of each of which a search notes the best only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# A 64th of the similarities is little memory, and to calculate 64 rows anew takes microseconds.
GROUP_ROWS = 64


@dataclass(frozen=True)
class Groups:
    """How the rows of a gallery fall into groups.

    Rows are worked on in blocks. A block's groups are combs: with w of them the group g has the
    rows g, g + w, g + 2 w ..., because maxima are ten times as fast to find across long runs as
    within short ones. What is left over at the end is a group of its own.

    Attributes:
        rows: How many there are.
        height: Rows of a block, a multiple of ``GROUP_ROWS``; the last block may have fewer.
    """

    rows: int
    height: int

    @property
    def count(self) -> int:
        """Number of groups."""
        return -(-self.rows // GROUP_ROWS)

    def note_highest(
        self,
        values: npt.NDArray[np.float32],
        block: slice,
        highest: npt.NDArray[np.float32],
    ) -> None:
        """Note the highest value of each group of a block.

        Args:
            values: float32 ``(r, m)``, of each row of the block.
            block: Which rows these are.
            highest: float32 ``(count, m)``, takes the highest.
        """
        width = len(values) // GROUP_ROWS
        first = block.start // GROUP_ROWS
        combs = values[: width * GROUP_ROWS].reshape(GROUP_ROWS, -1)
        combs.max(axis=0, out=highest[first : first + width].reshape(-1))
        if width * GROUP_ROWS < len(values):
            values[width * GROUP_ROWS :].max(axis=0, out=highest[-1])

    def rows_of(self, groups: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """The rows of some groups."""
        in_block = self.height // GROUP_ROWS
        starts = groups // in_block * self.height
        widths = np.minimum(self.height, self.rows - starts) // GROUP_ROWS
        places = groups % in_block
        is_rest = places == widths
        firsts = starts + np.where(is_rest, widths * GROUP_ROWS, places)
        strides = np.where(is_rest, 1, widths)
        rows = firsts[:, np.newaxis] + strides[:, np.newaxis] * np.arange(GROUP_ROWS)
        found = rows.ravel()
        return np.asarray(found[found < self.rows], np.intp)
