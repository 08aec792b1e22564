"""Parts of an array: taken out, put into a frame, added to."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from numtape.ir.op import Op
from numtape.ir.ops.rules import example
from numtape.ir.types import Scalar, Shape, ShapeError, Type, broadcast

Bounds = tuple[tuple[int, int, int], ...]  # start, stop, step per axis; see `slices`


def unmoved(before: Sequence[Any], after: Sequence[Any]) -> int:
    """How many leading axes are the same."""
    count = 0
    for n, m in zip(before, after, strict=False):
        if n != m:
            break
        count += 1
    return count


def slices(bounds: Bounds) -> tuple[slice, ...]:
    """Bounds as NumPy slices; a stop of -1 means before the first entry, for negative steps."""
    return tuple(slice(a, None if b < 0 else b, s) for a, b, s in bounds)


def _infer_slice(x: Type, bounds: Bounds) -> Type:
    return Type(x.dtype, tuple(len(range(*b)) for b in bounds))


def take_slice(x: np.ndarray, bounds: Bounds) -> np.ndarray:
    """The slice as a view."""
    return x[slices(bounds)]


slice_ = Op(
    "slice",
    _infer_slice,
    view=take_slice,
    vjps=(lambda g, out, x, bounds: place(g, shape=x.shape, bounds=bounds),),
    rows=lambda x, bounds: unmoved([(0, n, 1) for n in x.shape], bounds),
    examples=(
        example(
            (3, 6), reference=lambda x, bounds: x[1:3, 4::-2], bounds=((1, 3, 1), (4, -1, -2))
        ),
        example((6,), reference=lambda x, bounds: x[1:6:2], bounds=((1, 6, 2),)),
    ),
)


def _infer_place(x: Type, shape: Shape, bounds: Bounds, fill: Scalar = 0.0) -> Type:
    return Type(x.dtype, shape)


def place_slice(
    x: np.ndarray, out: np.ndarray, shape: Shape, bounds: Bounds, fill: Scalar = 0.0
) -> None:
    """`out` full of `fill` except for x at the bounds."""
    out.fill(fill)
    out[slices(bounds)] = x


def _reference_place(x: np.ndarray, shape: Shape, bounds: Bounds, fill: float = 0) -> np.ndarray:
    answer = np.full(shape, fill, x.dtype)
    answer[tuple(slice(*b) for b in bounds)] = x
    return answer


place: Op = Op(
    "place",
    _infer_place,
    place_slice,
    (lambda g, out, x, shape, bounds, fill=0.0: slice_(g, bounds=bounds),),
    examples=(
        example((2, 3), reference=_reference_place, shape=(4, 6), bounds=((1, 3, 1), (0, 6, 2))),
        example((2,), reference=_reference_place, shape=(5,), bounds=((2, 4, 1),), fill=7.0),
    ),
)


def _infer_add_slice(x: Type, y: Type, bounds: Bounds) -> Type:
    part = _infer_slice(x, bounds)
    if broadcast(part, y) != part.shape:
        raise ShapeError(f"{y} cannot be added to a slice of shape {part.shape}")
    return x


def add_to_slice(x: np.ndarray, y: np.ndarray, out: np.ndarray, bounds: Bounds) -> None:
    """x with y added at the bounds, into `out`, which may be x itself."""
    if out is not x:
        np.copyto(out, x)
    part = out[slices(bounds)]
    np.add(part, y, out=part)


def _reference_add_slice(x: np.ndarray, y: np.ndarray, bounds: Bounds) -> np.ndarray:
    answer = x.copy()
    answer[slices(bounds)] += y
    return answer


# What is added to a part only: nothing of the rest is touched where x is no longer needed.
add_slice: Op = Op(
    "add_slice",
    _infer_add_slice,
    add_to_slice,
    (
        lambda g, out, x, y, bounds: g,
        lambda g, out, x, y, bounds: slice_(g, bounds=bounds),
    ),
    inplace=(0,),
    promotes="all",
    broadcasts=True,
    rows=lambda x, y, bounds: unmoved([(0, n, 1) for n in x.shape], bounds),
    examples=(
        example((3, 4), (2, 2), reference=_reference_add_slice, bounds=((1, 3, 1), (0, 2, 1))),
        example(
            (2, 3, 4),
            (3, 1),
            reference=_reference_add_slice,
            bounds=((0, 2, 1), (0, 3, 1), (1, 3, 1)),
        ),
    ),
)
