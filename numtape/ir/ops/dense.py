"""Dense memory: what adds up reads it, so that results depend on entries and not on layouts.

NumPy and BLAS choose the order of their sums by where the entries lie. In eager mode and on exact
tapes, ops that are `ordered` read their inputs through `dense`: the order is then the same for an
array, a view of it and a copy, given as an argument, captured or left over by a pass. Where
entries lie well already, as they nearly always do, this costs nothing.
"""

import numpy as np

from numtape.ir.op import Op
from numtape.ir.ops.rules import example
from numtape.ir.types import Type


def _infer_dense(x: Type, whole: bool) -> Type:
    return x


def lies_dense(x: np.ndarray, whole: bool) -> bool:
    """Whether the entries lie one behind another: all, or line by line those of each matrix."""
    if whole:
        return x.flags.c_contiguous
    (rows, columns), (down, across), size = x.shape[-2:], x.strides[-2:], x.itemsize
    by_rows = across == size and down >= columns * size
    return by_rows or (down == size and across >= rows * size)


def dense_array(x: np.ndarray, whole: bool) -> np.ndarray:
    """The array itself, or a copy where it does not lie dense."""
    if not lies_dense(x, whole):
        return x.copy()
    # Strides of axes of length 1, which mean nothing, count for BLAS.
    return x.reshape(-1).reshape(x.shape) if whole and 1 in x.shape else x


def copy_dense(x: np.ndarray, out: np.ndarray, whole: bool) -> None:
    """x into `out`."""
    np.copyto(out, x)


dense = Op(
    "dense",
    _infer_dense,
    copy_dense,  # where the entries do not lie so
    (lambda g, out, x, whole: g,),
    view=dense_array,
    examples=tuple(
        example((3, 4), reference=lambda x, whole: x, whole=whole) for whole in (True, False)
    ),
)
