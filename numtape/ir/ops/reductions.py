"""Reductions over any axes, running sums, and the statistics built from them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from numtape.ir.op import Op
from numtape.ir.ops.rules import example
from numtape.ir.ops.shapes import concatenate, full
from numtape.ir.types import (
    INT,
    Shape,
    ShapeError,
    Type,
    is_float,
    normalise_axes,
    reduced,
)

Axis = int | Sequence[int] | None


def kept(shape: Shape, axis: tuple[int, ...]) -> Shape:
    """The shape with the reduced axes kept as 1."""
    return reduced(shape, axis, True)


def _infer_reduce(x: Type, axis: tuple[int, ...]) -> Type:
    return Type(x.dtype, reduced(x.shape, axis, False))


def _infer_extreme(x: Type, axis: tuple[int, ...]) -> Type:
    if 0 in [x.shape[a] for a in axis]:
        raise ShapeError(f"{x} has no entries along axis {axis}, so none is largest or smallest")
    return _infer_reduce(x, axis)


def _sum_vjp(g: Any, out: Any, x: Any, axis: tuple[int, ...]) -> Any:
    return g.reshape(kept(x.shape, axis)).broadcast_to(x.shape)


def _extreme_vjp(g: Any, out: Any, x: Any, axis: tuple[int, ...]) -> Any:
    # Equal entries share the gradient.
    shape = kept(x.shape, axis)
    hits = (x == out.reshape(shape)).astype(x.dtype)
    return g.reshape(shape) / hits.sum(axis, keepdims=True) * hits


def _reduction(name: str, ufunc: np.ufunc, vjp: Callable, infer: Callable) -> Op:
    def reference(x: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
        return ufunc.reduce(x, axis=axis)

    return Op(
        name,
        infer,
        ufunc.reduce,
        (vjp,),
        ordered=lambda x: (True,),
        rows=lambda x, axis: sorted(axis)[0],
        examples=(
            example((3, 4, 2), reference=reference, axis=(1,)),
            example((3, 4, 2), reference=reference, axis=(0, 2)),
            example((3, 4), reference=reference, axis=(0, 1)),
        ),
    )


sum_op = _reduction("sum", np.add, _sum_vjp, _infer_reduce)
_max = _reduction("max", np.maximum, _extreme_vjp, _infer_extreme)
_min = _reduction("min", np.minimum, _extreme_vjp, _infer_extreme)


def _infer_place(x: Type, axis: int) -> Type:
    if x.shape[axis] == 0:
        raise ShapeError(f"{x} has no entries along axis {axis}, so none is largest or smallest")
    return Type(INT, reduced(x.shape, (axis,), False))


# The only kernels that allocate what grows with x: along any axis but the last, NumPy's argmax
# and argmin search a copy.
def _place_of_extreme(name: str, kernel: Callable) -> Op:
    examples = (
        example((3, 4), reference=kernel, axis=1),
        example((3, 4), reference=kernel, axis=0),
    )
    return Op(name, _infer_place, kernel, examples=examples)


_argmax = _place_of_extreme("argmax", np.argmax)
_argmin = _place_of_extreme("argmin", np.argmin)


def _infer_cumsum(x: Type, axis: int) -> Type:
    return Type(x.dtype, x.shape)


_cumsum = Op(
    "cumsum",
    _infer_cumsum,
    np.cumsum,
    (lambda g, out, x, axis: g.flip(axis).cumsum(axis).flip(axis),),
    examples=(
        example((3, 4), reference=np.cumsum, axis=1),
        example((3, 4), reference=np.cumsum, axis=0),
    ),
)


# ---- as users call them -------------------------------------------------------------------


def _counted(x: Any) -> Any:
    """Booleans and narrow integers in 64 bits, as NumPy sums them."""
    if x.dtype.kind not in "biu":
        return x
    return x.astype(np.uint64 if x.dtype.kind == "u" else INT)


def _reduce(op: Op, x: Any, axis: Axis, keepdims: bool) -> Any:
    axes = normalise_axes(axis, x.ndim)
    if not axes:
        return x
    found = op(x, axis=axes)
    return found.reshape(kept(x.shape, axes)) if keepdims else found


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum over `axis` (one, several or all); booleans and integers add up in 64 bits."""
    return _reduce(sum_op, _counted(x), axis, keepdims)


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Product over `axis`; of halves of halves, so that gradients are right at zeros as well."""
    x = _counted(x)
    axes = normalise_axes(axis, x.ndim)
    shape = reduced(x.shape, axes, keepdims)
    rest = tuple(i for i in range(x.ndim) if i not in axes)
    count = math.prod(x.shape[i] for i in axes)
    factors = x.transpose((*axes, *rest)).reshape(count, *(x.shape[i] for i in rest))
    while count > 1:
        half, odd = divmod(count, 2)
        pairs = factors[:half] * factors[half : 2 * half]
        factors = concatenate([pairs, factors[2 * half :]]) if odd else pairs
        count = half + odd
    return factors.reshape(shape) if count else full(shape, 1, x.dtype)


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """True where an entry along `axis` is not zero or false."""
    return sum(x != 0, axis, keepdims) > 0


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """True where no entry along `axis` is zero or false."""
    return sum(x == 0, axis, keepdims) == 0


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Largest entry over `axis`; equal entries share its gradient."""
    return _reduce(_max, x, axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Smallest entry over `axis`; equal entries share its gradient."""
    return _reduce(_min, x, axis, keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Arithmetic mean over `axis`; of integers in float32."""
    count = Type(x.dtype, tuple(x.shape[a] for a in normalise_axes(axis, x.ndim))).size
    if count == 0:
        raise ShapeError(f"the mean of no entries (shape {x.shape}, axis {axis}) is not defined")
    total = sum(x, axis, keepdims)
    return total * (1.0 / count) if is_float(total.dtype) else total / count


def var(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    """Variance over `axis`: squared distance from the mean, divided by `n - ddof`."""
    count = Type(x.dtype, tuple(x.shape[a] for a in normalise_axes(axis, x.ndim))).size
    if count <= ddof:
        raise ShapeError(f"the variance of {count} entries with ddof={ddof} is not defined")
    centred = x - mean(x, axis, keepdims=True)
    return sum(centred * centred, axis, keepdims) * (1.0 / (count - ddof))


def std(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    """Standard deviation: the square root of `var`."""
    return var(x, axis, keepdims, ddof).sqrt()


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Index (int64) of the first largest entry along `axis`, or in the flattened array.

    Along any axis but the last NumPy searches a copy of x, which a compiled step then allocates.
    """
    return _located(_argmax, x, axis, keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Index (int64) of the first smallest entry along `axis`, or in the flattened array."""
    return _located(_argmin, x, axis, keepdims)


def _located(op: Op, x: Any, axis: int | None, keepdims: bool) -> Any:
    if axis is None:
        found = op(x.reshape(-1), axis=0)
        return found.reshape((1,) * x.ndim) if keepdims else found
    (position,) = normalise_axes(axis, x.ndim)
    found = op(x, axis=position)
    return found.reshape(kept(x.shape, (position,))) if keepdims else found


def cumsum(x: Any, axis: int | None = None) -> Any:
    """Running sum along `axis`, or of the flattened array."""
    if axis is None:
        return cumsum(x.reshape(-1), 0)
    (position,) = normalise_axes(axis, x.ndim)
    return _cumsum(_counted(x), axis=position)
