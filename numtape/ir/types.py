"""What a value is before it has one: its dtype, its shape, and how dtypes meet.

Everything above (operations, graphs, plans) speaks of `Type`.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from numtape.ir.location import Located

Shape = tuple[int, ...]
Scalar = bool | int | float

FLOAT = np.dtype(np.float32)  # what Python floats and integers divided become
NUMBER = np.dtype(np.float64)  # in which Python reckons with its floats
INT = np.dtype(np.int64)
BOOL = np.dtype(np.bool_)

_PREFIX = {"f": "f", "i": "i", "u": "u", "b": "bool", "c": "c"}


class ShapeError(Located, ValueError):
    """Shapes that an operation cannot take."""


class DtypeError(Located, TypeError):
    """Dtypes that an operation cannot take."""


class Type(NamedTuple):
    """The dtype and shape of a value.

    `weak` marks a run-time scalar that, like a Python number, takes the dtype of what it meets.
    """

    dtype: np.dtype
    shape: Shape
    weak: bool = False

    @property
    def is_number(self) -> bool:
        """Whether this is a Python float that is known only at run time."""
        return self.weak and self.dtype == NUMBER

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)}[{','.join(map(str, self.shape))}]"


def dtype_name(dtype: np.dtype) -> str:
    """`f32`, `i64`, `bool`: the short name used in IR text."""
    prefix = _PREFIX[dtype.kind]
    return prefix if prefix == "bool" else f"{prefix}{8 * dtype.itemsize}"


def is_float(dtype: np.dtype) -> bool:
    return dtype.kind == "f"


def broadcast(*types: Type) -> Shape:
    """The shape that the types broadcast to by NumPy's rule; `ShapeError` if there is none."""
    try:
        return reduce(_broadcast, [t.shape for t in types])
    except ValueError:
        shown = " and ".join(map(str, types))
        raise ShapeError(f"the shapes do not broadcast: {shown}") from None


def _broadcast(a: Shape, b: Shape) -> Shape:
    """The usual cases are seen at once; NumPy takes many times as long for any."""
    if a == b or not b:
        return a
    if not a:
        return b
    return np.broadcast_shapes(a, b)


def normalise_axes(axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Sorted non-negative axes; `None` means all of them."""
    if axis is None:
        return tuple(range(ndim))
    axes = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    for a in axes:
        if not -ndim <= a < ndim:
            raise ShapeError(f"axis {a} is out of range for {ndim} dimensions")
    found = tuple(sorted(int(a) % ndim for a in axes))
    if len(set(found)) != len(found):
        raise ShapeError(f"an axis is named twice in {axes}")
    return found


def reduced(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    if keepdims:
        return tuple(1 if i in axes else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def common_dtype(strong: Iterable[np.dtype], weak: Iterable[np.dtype]) -> np.dtype:
    """The dtype in which values meet.

    Floats win over integers without growing (i64 with f32 is f32); among floats the widest
    wins; a weak scalar only lifts the kind: a Python float turns integers into `FLOAT`. Weak
    floats among themselves are `FLOAT` too.
    """
    strong, weak = list(strong), list(weak)
    if strong and is_float(strong[0]) and strong.count(strong[0]) == len(strong):
        return strong[0]  # the usual case, seen at once
    if not strong:
        return FLOAT if any(map(is_float, weak)) else max(weak, key=lambda d: d.itemsize)
    floats = [d for d in strong if is_float(d)]
    found = max(floats, key=lambda d: d.itemsize) if floats else np.result_type(*strong)
    if not floats and any(is_float(d) for d in weak):
        return FLOAT
    if found == BOOL and any(d != BOOL for d in weak):
        return INT
    return found
