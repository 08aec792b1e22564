"""What the families of operations share: shape rules and examples."""

from collections.abc import Callable, Sequence
from operator import index
from typing import Any

import numpy as np

from numtape.ir.op import Example
from numtape.ir.types import BOOL, DtypeError, Shape, ShapeError, Type, broadcast, is_float

Shapes = tuple[int, ...]


def elementwise(*types: Type) -> Type:
    weak = all(t.weak for t in types)
    return Type(types[0].dtype, broadcast(*types), weak)


def float_elementwise(*types: Type) -> Type:
    require_float(*types)
    return elementwise(*types)


def number_elementwise(*types: Type) -> Type:
    """The shape rule of what takes integers as well, but no booleans: its dtype is kept."""
    for t in types:
        if t.dtype == BOOL:
            raise DtypeError(f"it takes numbers, not {t}; convert with astype(np.int64)")
    return elementwise(*types)


def comparison(*types: Type) -> Type:
    return Type(BOOL, broadcast(*types))


def require_float(*types: Type) -> None:
    for t in types:
        if not is_float(t.dtype):
            raise DtypeError(f"it takes floats, not {t}; convert with astype(np.float32)")


def require_integers(t: Type) -> None:
    if t.dtype.kind not in "iu":
        raise DtypeError(f"indices are integers, not {t}; convert with astype(np.int64)")


def lengths(shape: Sequence[int]) -> Shape:
    """A shape as a tuple of whole numbers; `ShapeError` for one below 0."""
    found = tuple(index(n) for n in shape)
    if any(n < 0 for n in found):
        raise ShapeError(f"a shape has no negative lengths, unlike {found}")
    return found


def example(
    *shapes: Shapes,
    reference: Callable[..., Any],
    low: float = -2.0,
    high: float = 2.0,
    **attrs: Any,
) -> Example:
    """An example on uniform random floats in [low, high) of the given shapes."""

    def inputs(rng: "np.random.Generator") -> tuple[np.ndarray, ...]:
        return tuple(rng.uniform(low, high, shape) for shape in shapes)

    return Example(inputs, reference, attrs)
