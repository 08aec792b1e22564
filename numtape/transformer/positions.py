"""Where a position stands in its sequence: a vector added to its embedding."""

from typing import Any

import numpy as np

from numtape.functions import arange
from numtape.nn import Module, Parameter, init
from numtape.nn.checks import check_sizes
from numtape.tracer.tensor import Tensor
from numtape.transformer.checks import check_length


def sinusoidal_positions(length: int, d_model: int, dtype: Any = np.float32) -> np.ndarray:
    """The table (length, d_model) of Vaswani et al. (2017), section 3.5.

    Row p holds sin(p / 10000^(2i/d)) in its even columns 2i and the cosine of the same angle in
    the odd ones.
    """
    position = np.arange(length)[:, None]  # (T, 1)
    column = np.arange(d_model)  # (C,)
    angle = position / 10000.0 ** ((column - column % 2) / d_model)  # (T, C)
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype(dtype)


def rows(table: Any, length: int, start: Any = None) -> Any:
    """`length` rows of a table from its first, or from the run-time integers `start` (1,)."""
    check_length(length, len(table))
    return table[:length] if start is None else table.take(start + arange(length))


class SinusoidalPositions(Module):
    """The published encoding for up to `max_length` positions; nothing in it is learned."""

    table: Tensor

    def __init__(self, max_length: int, d_model: int) -> None:
        check_sizes(max_length=max_length, d_model=d_model)
        table = Tensor(sinusoidal_positions(max_length, d_model))
        self.register_buffer("table", table, persistent=False)

    def forward(self, length: int, start: Any = None) -> Any:
        """Vectors (length, C) from position 0, or from the run-time integers `start` (1,)."""
        return rows(self.table, length, start)


class LearnedPositions(Module):
    """One learned vector per position (Gehring et al., 2017), as in GPT."""

    def __init__(self, max_length: int, d_model: int) -> None:
        check_sizes(max_length=max_length, d_model=d_model)
        weight = Parameter(np.empty((max_length, d_model), np.float32))
        self.weight = init.normal_(weight, std=0.02)

    def forward(self, length: int, start: Any = None) -> Any:
        """Vectors (length, C) from position 0, or from the run-time integers `start` (1,)."""
        return rows(self.weight, length, start)
