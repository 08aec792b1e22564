"""Views and rearrangements: most of them cost nothing when a tape is replayed."""

import math
from collections.abc import Sequence
from itertools import pairwise
from operator import index
from typing import Any

import numpy as np

from numtape.ir.interpreter import current
from numtape.ir.op import Example, Op, Rule, scalar_dtype
from numtape.ir.ops.parts import place, slice_, unmoved
from numtape.ir.ops.ranges import arange
from numtape.ir.ops.rules import example, lengths
from numtape.ir.types import (
    Scalar,
    Shape,
    ShapeError,
    Type,
    normalise_axes,
)


def _infer_reshape(x: Type, shape: Shape) -> Type:
    if math.prod(shape) != x.size:
        raise ShapeError(f"{x} has {x.size} entries and cannot take the shape {shape}")
    return Type(x.dtype, shape, x.weak)


def copy_reshaped(x: np.ndarray, out: np.ndarray, shape: Shape) -> None:
    """`x.reshape(shape)` into a contiguous `out`."""
    np.copyto(out.reshape(x.shape), x)


reshape_op = Op(
    "reshape",
    _infer_reshape,
    copy_reshaped,  # where the strides of x allow no view
    (lambda g, out, x, shape: g.reshape(x.shape),),
    rows=lambda x, shape: unmoved(x.shape, shape),
    view=np.reshape,
    examples=(example((3, 4), reference=np.reshape, shape=(2, 6)),),
)


def unshaped(x: Any) -> Any:
    """The graph value that a chain of reshapes begins with."""
    while x.op is reshape_op:
        (x,) = x.inputs
    return x


def _infer_transpose(x: Type, axes: tuple[int, ...]) -> Type:
    return Type(x.dtype, tuple(x.shape[a] for a in axes))


def _transpose_vjp(g: Any, out: Any, x: Any, axes: tuple[int, ...]) -> Any:
    return g.transpose(tuple(axes.index(i) for i in range(len(axes))))


transpose_op = Op(
    "transpose",
    _infer_transpose,
    view=np.transpose,
    vjps=(_transpose_vjp,),
    rows=lambda x, axes: unmoved(range(len(axes)), axes),
    examples=(example((2, 3, 4), reference=np.transpose, axes=(1, 2, 0)),),
)


def _infer_broadcast(x: Type, shape: Shape) -> Type:
    padded = (1,) * (len(shape) - len(x.shape)) + x.shape
    if len(padded) != len(shape) or any(
        n not in (1, m) for n, m in zip(padded, shape, strict=True)
    ):
        raise ShapeError(f"{x} does not broadcast to the shape {shape}")
    return Type(x.dtype, shape)


broadcast_op = Op(
    "broadcast_to",
    _infer_broadcast,
    view=np.broadcast_to,
    # Axes that are added come first, and move all others.
    rows=lambda x, shape: unmoved(x.shape, shape) if len(x.shape) == len(shape) else 0,
    vjps=(lambda g, out, x, shape: unbroadcast(g, x.shape),),
    examples=(example((3, 1), reference=np.broadcast_to, shape=(2, 3, 4)),),
)


def _infer_concatenate(*xs: Type, axis: int) -> Type:
    first = xs[0]
    for x in xs[1:]:
        same = len(x.shape) == len(first.shape) and all(
            n == m for i, (n, m) in enumerate(zip(x.shape, first.shape, strict=True)) if i != axis
        )
        if not same:
            raise ShapeError(f"{first} and {x} differ outside axis {axis}")
    length = sum(x.shape[axis] for x in xs)
    return Type(first.dtype, (*first.shape[:axis], length, *first.shape[axis + 1 :]))


def join(*xs: np.ndarray, out: np.ndarray, axis: int) -> None:
    """`np.concatenate` into `out`."""
    np.concatenate(xs, axis=axis, out=out)


def _concatenate_vjp(position: int) -> Rule:
    def rule(g: Any, out: Any, *xs: Any, axis: int) -> Any:
        start = sum(x.shape[axis] for x in xs[:position])
        stop = start + xs[position].shape[axis]
        return g[(slice(None),) * axis + (slice(start, stop),)]

    return rule


concatenate_op = Op(
    "concatenate",
    _infer_concatenate,
    join,
    _concatenate_vjp,
    promotes="all",
    examples=(
        example((2, 3), (2, 1), reference=lambda x, y, axis: np.concatenate((x, y), axis), axis=1),
    ),
)


def _infer_filled(shape: Shape, value: Scalar, dtype: np.dtype) -> Type:
    return Type(np.dtype(dtype), shape)


def fill(out: np.ndarray, shape: Shape, value: Scalar, dtype: np.dtype) -> None:
    """`np.full` into `out`."""
    out.fill(value)


# One number repeated in memory of its own: what a matrix product with ones needs.
filled = Op(
    "filled",
    _infer_filled,
    fill,
    examples=(
        Example(
            lambda rng: (),
            lambda shape, value, dtype: np.full(shape, value, dtype),
            {"shape": (2, 3), "value": 1.5, "dtype": np.dtype("f8")},
        ),
    ),
)


# ---- as users call them -------------------------------------------------------------------


def reshape(x: Any, *shape: Any) -> Any:
    """The entries in another shape; one length may be -1."""
    wanted = shape[0] if len(shape) == 1 and np.iterable(shape[0]) else shape
    resolved = _resolve(tuple(index(n) for n in wanted), x)
    return x if resolved == x.shape else reshape_op(x, shape=resolved)


def _resolve(shape: Shape, x: Any) -> Shape:
    if -1 not in shape:
        return shape
    size = math.prod(x.shape)
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) > 1 or known == 0 or size % known:
        raise ShapeError(
            f"reshape: {x.type} has {size} entries, so no length in place of -1 gives {shape}"
        )
    return tuple(size // known if n == -1 else n for n in shape)


def transpose(x: Any, *axes: Any) -> Any:
    """Axes in another order; in reverse without arguments."""
    order = tuple(axes[0] if len(axes) == 1 and np.iterable(axes[0]) else axes)
    if not order:
        order = tuple(reversed(range(x.ndim)))
    normal = tuple(int(a) % x.ndim if -x.ndim <= a < x.ndim else a for a in order)
    if sorted(normal) != list(range(x.ndim)):
        raise ShapeError(f"transpose: {tuple(order)} is no order of the axes of {x.shape}")
    return transpose_op(x, axes=normal)


def swapaxes(x: Any, first: int, second: int) -> Any:
    """Two axes exchanged."""
    (i,), (j,) = normalise_axes(first, x.ndim), normalise_axes(second, x.ndim)
    order = list(range(x.ndim))
    order[i], order[j] = order[j], order[i]
    return transpose_op(x, axes=tuple(order))


def moveaxis(x: Any, source: int, destination: int) -> Any:
    """One axis moved to another place, the others in order."""
    (i,), (j,) = normalise_axes(source, x.ndim), normalise_axes(destination, x.ndim)
    order = [a for a in range(x.ndim) if a != i]
    order.insert(j, i)
    return transpose_op(x, axes=tuple(order))


def expand_dims(x: Any, axis: int | Sequence[int]) -> Any:
    """New axes of length 1 at the places that `axis` names in the result."""
    count = 1 if isinstance(axis, int | np.integer) else len(axis)
    axes = normalise_axes(axis, x.ndim + count)
    rest = iter(x.shape)
    return reshape(x, tuple(1 if i in axes else next(rest) for i in range(x.ndim + count)))


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Without the axes of length 1, or the named ones of them."""
    if axis is None:
        return reshape(x, tuple(n for n in x.shape if n != 1))
    axes = normalise_axes(axis, x.ndim)
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} of {x.shape} has length {x.shape[a]}, not 1")
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))


def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    """Repeated along axes of length 1 and new leading axes, as a view."""
    return x if tuple(shape) == x.shape else broadcast_op(x, shape=lengths(shape))


def unbroadcast(g: Any, shape: Shape) -> Any:
    """A gradient summed back to `shape`, from which its value had been broadcast."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    axes = tuple(i for i in range(g.ndim) if i < extra or (shape[i - extra] == 1 != g.shape[i]))
    return g.sum(axes).reshape(shape)


def flip(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Entries in reverse order along the axes (all by default), as a view."""
    axes = normalise_axes(axis, x.ndim)
    return slice_(
        x,
        bounds=tuple(
            (n - 1, -1, -1) if i in axes and n else (0, n, 1) for i, n in enumerate(x.shape)
        ),
    )


def concatenate(xs: Sequence[Any], axis: int = 0) -> Any:
    """Joined along an existing axis."""
    if not xs:
        raise ShapeError("concatenate: there is nothing to join")
    (position,) = normalise_axes(axis, xs[0].ndim)
    return xs[0] if len(xs) == 1 else concatenate_op(*xs, axis=position)


def stack(xs: Sequence[Any], axis: int = 0) -> Any:
    """Joined along a new axis."""
    if len({x.shape for x in xs}) > 1:
        shown = ", ".join(str(x.type) for x in xs)
        raise ShapeError(f"stack: the shapes differ: {shown}")
    return concatenate([expand_dims(x, axis) for x in xs], axis)


def split(x: Any, parts: int | Sequence[int], axis: int = 0) -> list[Any]:
    """Equal parts, or parts cut at the given positions, as views (`numpy.split`)."""
    (a,) = normalise_axes(axis, x.ndim)
    length = x.shape[a]
    if isinstance(parts, int | np.integer):
        if parts < 1 or length % parts:
            raise ShapeError(f"split: {length} entries do not divide into {parts} equal parts")
        cuts = list(range(0, length + 1, length // parts))
    else:
        cuts = [0, *parts, length]
    lead = (slice(None),) * a
    return [x[(*lead, slice(i, j))] for i, j in pairwise(cuts)]


def pad(x: Any, width: Any, value: Scalar = 0) -> Any:
    """`value` added around; `width` as in `numpy.pad`: n, (before, after) or one pair per axis."""
    if np.ndim(width) == 2 and len(width) not in (1, x.ndim):
        raise ShapeError(f"pad: {x.type} takes one pair per axis, not {width}")
    pairs = [(index(a), index(b)) for a, b in np.broadcast_to(width, (x.ndim, 2))]
    if any(n < 0 for pair in pairs for n in pair):
        raise ShapeError(f"pad: widths are not negative, got {width}")
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True))
    bounds = tuple((a, a + n, 1) for n, (a, _) in zip(x.shape, pairs, strict=True))
    return place(x, shape=shape, bounds=bounds, fill=value)


def _triangle(x: Any, k: int, lower: bool) -> Any:
    if x.ndim < 2:
        raise ShapeError(f"a triangle needs two axes, not the shape {x.shape}")
    rows = arange(x.shape[-2]).reshape(-1, 1) + k
    columns = arange(x.shape[-1])
    return rows >= columns if lower else rows <= columns


def tril(x: Any, k: int = 0) -> Any:
    """The lower triangle of the last two axes, zero above the k-th diagonal."""
    return _triangle(x, k, True).where(x, 0)


def triu(x: Any, k: int = 0) -> Any:
    """The upper triangle of the last two axes, zero below the k-th diagonal."""
    return _triangle(x, k, False).where(x, 0)


def full(shape: Sequence[int], value: Scalar, dtype: Any = None) -> Any:
    """One number repeated, as a view of it."""
    scalar = current().lift(value, np.dtype(dtype) if dtype is not None else scalar_dtype(value))
    return broadcast_to(scalar, shape)


def zeros_like(x: Any) -> Any:
    """Zeros in the shape and dtype of x."""
    return full(x.shape, 0, x.dtype)


def ones_like(x: Any) -> Any:
    """Ones in the shape and dtype of x."""
    return full(x.shape, 1, x.dtype)
