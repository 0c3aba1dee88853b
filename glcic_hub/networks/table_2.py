"""The completion network's layers as table 2 of the paper lists them; numbers alone."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Row(NamedTuple):
    """One row of table 2; `outputs` is the paper's, for a base width of 64."""

    type: Literal["conv", "dilated conv", "deconv", "output"]
    kernel: int
    dilation: int
    stride: float
    outputs: int


PAPER_WIDTH = 64

TABLE_2 = (
    #   type           kernel dilation stride outputs    resolution
    Row("conv", 5, 1, 1, 64),  #                         1
    Row("conv", 3, 1, 2, 128),  #                        1/2
    Row("conv", 3, 1, 1, 128),
    Row("conv", 3, 1, 2, 256),  #                        1/4
    Row("conv", 3, 1, 1, 256),
    Row("conv", 3, 1, 1, 256),
    Row("dilated conv", 3, 2, 1, 256),
    Row("dilated conv", 3, 4, 1, 256),
    Row("dilated conv", 3, 8, 1, 256),
    Row("dilated conv", 3, 16, 1, 256),
    Row("conv", 3, 1, 1, 256),
    Row("conv", 3, 1, 1, 256),
    Row("deconv", 4, 1, 1 / 2, 128),  #                  1/2
    Row("conv", 3, 1, 1, 128),
    Row("deconv", 4, 1, 1 / 2, 64),  #                   1
    Row("conv", 3, 1, 1, 32),
    Row("output", 3, 1, 1, 3),
)

STRIDE = 4
"""The network halves the resolution twice: heights and widths are multiples of 4."""
