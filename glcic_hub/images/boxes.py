"""Spans and boxes of pixels: whole numbers alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Span(NamedTuple):
    """The positions from `begin` up to, not including, `end`, along one axis."""

    begin: int
    end: int

    @property
    def length(self) -> int:
        """The number of positions."""
        return self.end - self.begin


class Box(NamedTuple):
    """A rectangle of pixels: rows from `top` up to `bottom`, columns from `left` up to `right`, ends not included."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The slices that cut the box out of an array (H, W, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def grown(self, margin: int, height: int, width: int) -> Box:
        """Returns the box with a margin around it, as far as that lies in an image."""
        return self._replace(
            top=max(self.top - margin, 0), left=max(self.left - margin, 0),
            bottom=min(self.bottom + margin, height), right=min(self.right + margin, width),
        )  # fmt: skip

    def common(self, other: Box) -> Box:
        """Intersects two boxes; without height or width if they do not overlap."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        return Box(top, left, max(top, min(self.bottom, other.bottom)), max(left, min(self.right, other.right)))

    def shifted(self, down: int, right: int) -> Box:
        """Returns the box so many pixels further down and to the right."""
        return Box(self.top + down, self.left + right, self.bottom + down, self.right + right)

    @property
    def rows(self) -> Span:
        """The rows."""
        return Span(self.top, self.bottom)

    @property
    def columns(self) -> Span:
        """The columns."""
        return Span(self.left, self.right)


def bounds(part: NDArray[np.bool_], top: int = 0, left: int = 0) -> Box:
    """Finds the bounding box of what is True in an array, which lies at `top` and `left`, and is not all False."""
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    return Box(top + int(rows[0]), left + int(columns[0]), top + int(rows[-1]) + 1, left + int(columns[-1]) + 1)
