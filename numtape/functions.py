"""NumPy's functions on tensors, arrays and numbers.

Each is the operation or composition of the same name in `numtape.ir.ops`, with its first
arguments made tensors, so that `nt.exp(array)` works as `nt.exp(tensor)` does.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from numtape.ir.interpreter import current
from numtape.ir.op import Op
from numtape.ir.ops import activations, elementwise, indexing, linalg, ranges, reductions, shapes
from numtape.ir.ops.rules import lengths
from numtape.ir.types import normalise_axes
from numtape.tracer.tensor import Tensor
from numtape.tracer.trace import tracing


def _on_tensors(function: Callable, count: int = 1, doc: str | None = None) -> Callable:
    """`function` with its first `count` arguments lifted."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        lift = current().lift
        return function(*(lift(a) for a in args[:count]), *args[count:], **kwargs)

    called.__doc__ = doc or function.__doc__
    return called


def _elementary(op: Op, doc: str) -> Callable:
    def called(x: Any) -> Any:
        return op(x)

    called.__name__ = called.__qualname__ = op.name
    called.__doc__ = doc
    return called


abs = _elementary(elementwise.absolute, "|x|, entry by entry.")
ceil = _elementary(elementwise.ceil, "The integer above, entry by entry; a float stays a float.")
cos = _elementary(elementwise.cos, "Cosine, entry by entry; x in radians.")
erf = _elementary(activations.erf, "The error function, entry by entry.")
exp = _elementary(elementwise.exp, "e to the x, entry by entry.")
expm1 = _elementary(elementwise.expm1, "e to the x, less 1, accurate near 0.")
floor = _elementary(elementwise.floor, "The integer below, entry by entry; a float stays a float.")
isinf = _elementary(elementwise.isinf, "True where x is infinite.")
isfinite = _elementary(elementwise.isfinite, "True where x is neither infinite nor NaN.")
isnan = _elementary(elementwise.isnan, "True where x is not a number.")
log = _elementary(elementwise.log, "Natural logarithm, entry by entry.")
log1p = _elementary(elementwise.log1p, "log(1 + x), accurate near 0.")
sigmoid = _elementary(activations.sigmoid, "1 / (1 + e^-x), entry by entry.")
sign = _elementary(elementwise.sign, "-1, 0 or 1, entry by entry.")
sin = _elementary(elementwise.sin, "Sine, entry by entry; x in radians.")
sqrt = _elementary(elementwise.sqrt, "Square root, entry by entry.")
square = _elementary(elementwise.square, "x times x, entry by entry.")
tanh = _elementary(elementwise.tanh, "Hyperbolic tangent, entry by entry.")


def _on_truths(op: Op, doc: str) -> Callable:
    """An operation on booleans, of numbers on which are not 0."""

    def called(*xs: Any) -> Any:
        return op(*(elementwise.truth(current().lift(x)) for x in xs))

    called.__name__ = called.__qualname__ = op.name
    called.__doc__ = doc
    return called


logical_and = _on_truths(elementwise.logical_and, "True where both are; numbers where not 0.")
logical_or = _on_truths(elementwise.logical_or, "True where one is; numbers where not 0.")
logical_xor = _on_truths(elementwise.logical_xor, "True where one is, not both.")
logical_not = _on_truths(elementwise.logical_not, "True where x is false or 0.")


def maximum(x: Any, y: Any) -> Any:
    """The larger of two, entry by entry; equal entries share the gradient."""
    return elementwise.maximum(x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller of two, entry by entry; equal entries share the gradient."""
    return elementwise.minimum(x, y)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the boolean condition holds, y elsewhere; all three broadcast."""
    return elementwise.where(condition, x, y)


power = _on_tensors(elementwise.raised)
clip = _on_tensors(elementwise.clip)
round = _on_tensors(elementwise.round)
matmul = _on_tensors(linalg.matmul, 2)
dot = _on_tensors(linalg.dot, 2)
outer = _on_tensors(linalg.outer, 2)
sum = _on_tensors(reductions.sum)
prod = _on_tensors(reductions.prod)
any = _on_tensors(reductions.any)
all = _on_tensors(reductions.all)
max = _on_tensors(reductions.max)
min = _on_tensors(reductions.min)
mean = _on_tensors(reductions.mean)
var = _on_tensors(reductions.var)
std = _on_tensors(reductions.std)
argmax = _on_tensors(reductions.argmax)
argmin = _on_tensors(reductions.argmin)
cumsum = _on_tensors(reductions.cumsum)
reshape = _on_tensors(shapes.reshape)
transpose = _on_tensors(shapes.transpose)
swapaxes = _on_tensors(shapes.swapaxes)
moveaxis = _on_tensors(shapes.moveaxis)
expand_dims = _on_tensors(shapes.expand_dims)
squeeze = _on_tensors(shapes.squeeze)
broadcast_to = _on_tensors(shapes.broadcast_to)
flip = _on_tensors(shapes.flip)
split = _on_tensors(shapes.split)
pad = _on_tensors(shapes.pad)
tril = _on_tensors(shapes.tril)
triu = _on_tensors(shapes.triu)
take = _on_tensors(indexing.take)
index_add = _on_tensors(indexing.index_add, 3)
arange = ranges.arange
linspace = ranges.linspace


def concatenate(xs: Sequence[Any], axis: int = 0) -> Any:
    """Joined along an existing axis."""
    return shapes.concatenate([current().lift(x) for x in xs], axis)


def stack(xs: Sequence[Any], axis: int = 0) -> Any:
    """Joined along a new axis."""
    return shapes.stack([current().lift(x) for x in xs], axis)


def einsum(subscripts: str, *xs: Any) -> Any:
    """`numpy.einsum` on a subscript string; operands are contracted from left to right."""
    return linalg.einsum(subscripts, *(current().lift(x) for x in xs))


def ravel(x: Any) -> Any:
    """The entries along one axis."""
    return current().lift(x).ravel()


def tile(x: Any, repetitions: int | Sequence[int]) -> Any:
    """x laid out that many times along each axis, as `numpy.tile` does."""
    counts = _lengths(repetitions)
    x = current().lift(x)
    shape = (1,) * (len(counts) - x.ndim) + x.shape
    counts = (1,) * (len(shape) - len(counts)) + counts
    rows = x.reshape(tuple(n for size in shape for n in (1, size)))
    laid = rows.broadcast_to(tuple(n for pair in zip(counts, shape, strict=True) for n in pair))
    return laid.reshape(tuple(c * n for c, n in zip(counts, shape, strict=True)))


def repeat(x: Any, repeats: int | Sequence[int], axis: int | None = None) -> Any:
    """Each entry along `axis` (of the flattened x by default) several times in a row."""
    if axis is None:
        return repeat(ravel(x), repeats, 0)
    x = current().lift(x)
    (position,) = normalise_axes(axis, x.ndim)
    _lengths(repeats)
    index = np.repeat(np.arange(x.shape[position]), repeats)
    return indexing.take(x, index, position)


def asarray(data: Any, dtype: Any = None) -> Tensor:
    """A tensor as it is, or a tensor that shares the memory of an array where it can."""
    if isinstance(data, Tensor):
        return current().lift(data, None if dtype is None else np.dtype(dtype))
    return Tensor(data, dtype)


def _lengths(shape: Any) -> tuple[int, ...]:
    return lengths(tuple(shape) if np.iterable(shape) else (shape,))


def full(shape: int | Sequence[int], value: float, dtype: Any = np.float32) -> Tensor:
    """A tensor of one number repeated."""
    wanted = _lengths(shape)
    if tracing() is not None:
        return shapes.full(wanted, value, dtype)
    return Tensor(np.full(wanted, value, dtype))


def zeros(shape: int | Sequence[int], dtype: Any = np.float32) -> Tensor:
    """A tensor of zeros."""
    return full(shape, 0, dtype)


def zeros_like(x: Any) -> Tensor:
    """Zeros in the shape and dtype of x."""
    like = current().lift(x)
    return full(like.shape, 0, like.dtype)


def ones_like(x: Any) -> Tensor:
    """Ones in the shape and dtype of x."""
    like = current().lift(x)
    return full(like.shape, 1, like.dtype)


def ones(shape: int | Sequence[int], dtype: Any = np.float32) -> Tensor:
    """A tensor of ones."""
    return full(shape, 1, dtype)
