"""Indexing, gather and scatter-add; repeated indices accumulate.

Every index expression becomes views, integer arithmetic and one `take` along one axis, so its
gradient is one `index_add`.
"""

import math
from types import EllipsisType
from typing import Any

import numpy as np

from numtape.ir.location import OutOfRange
from numtape.ir.op import Example, Op
from numtape.ir.ops.parts import slice_
from numtape.ir.ops.ranges import arange
from numtape.ir.ops.rules import require_integers
from numtape.ir.ops.shapes import expand_dims, reshape, transpose, zeros_like
from numtape.ir.types import BOOL, INT, DtypeError, ShapeError, Type, normalise_axes


def _infer_wrap(index: Type, size: int, lowest: int) -> Type:
    require_integers(index)
    return Type(INT, index.shape)  # arithmetic on places overflows in narrow integers


def check_range(index: np.ndarray, size: int, lowest: int) -> None:
    """`IndexError` that names the first entry of `index` outside [lowest, size).

    The line it names is that of the call: of a compiled function where a tape runs.
    """
    if index.size == 0 or _within(index, size, lowest):
        return
    position = np.argwhere((index < lowest) | (index >= size))[0]
    where_ = tuple(int(p) for p in position)
    raise OutOfRange(
        f"index {index[where_]} at position {where_} is out of range: there are {size} entries, "
        f"and indices go from {lowest} to {size - 1}"
    )


def _within(index: np.ndarray, size: int, lowest: int) -> bool:
    if lowest == 0 and index.dtype == INT:  # read without a sign, what is negative is too large
        return bool(np.maximum.reduce(index.view(np.uint64), axis=None) < size)
    return bool(lowest <= index.min() and index.max() < size)


def wrap(index: np.ndarray, out: np.ndarray, size: int, lowest: int) -> None:
    """Checked indices, the negative ones counted from the end."""
    check_range(index, size, lowest)
    negative = lowest < 0 and index.size and index.min() < 0
    if out is not index:
        np.copyto(out, index, casting="unsafe")
    if negative:
        np.remainder(out, size, out=out)


wrap_index = Op(
    "wrap_index",
    _infer_wrap,
    wrap,
    inplace=(0,),
    examples=(
        Example(
            lambda rng: (rng.integers(-5, 5, (3, 4)),),
            lambda i, size, lowest: i % size,
            {"size": 5, "lowest": -5},
        ),
    ),
)


def _infer_take(x: Type, index: Type, axis: int) -> Type:
    require_integers(index)
    return Type(x.dtype, x.shape[:axis] + index.shape + x.shape[axis + 1 :])


def gather(x: np.ndarray, index: np.ndarray, out: np.ndarray, axis: int) -> None:
    """`np.take` of checked indices; mode "clip" is the one that does not allocate."""
    x.take(index, axis, out, "clip")


NARROW = 256  # entries of a row, up to which `np.add.at` is faster on one flat array


def _take_vjp(g: Any, out: Any, x: Any, index: Any, axis: int) -> Any:
    width = math.prod(x.shape[1:])
    if axis != 0 or not 1 < width <= NARROW:
        return scatter_add(zeros_like(x), index, g, axis=axis)
    # Entry by entry, in the same order: 768 rows of 128 in 0.5 ms instead of 2.5.
    places = (index.astype(INT) * width).expand_dims(-1) + arange(width)
    flat = scatter_add(zeros_like(x).reshape(-1), places.reshape(-1), g.reshape(-1), axis=0)
    return flat.reshape(x.shape)


_take = Op(
    "take",
    _infer_take,
    gather,
    (_take_vjp, None),
    examples=(
        Example(
            lambda rng: (rng.normal(size=(5, 3)), rng.integers(0, 5, (2, 4))), np.take, {"axis": 0}
        ),
        Example(
            lambda rng: (rng.normal(size=(2, 5)), rng.integers(0, 5, (3,))), np.take, {"axis": 1}
        ),
    ),
)


def _infer_index_add(x: Type, index: Type, values: Type, axis: int) -> Type:
    require_integers(index)
    expected = _infer_take(x, index, axis).shape
    if values.shape != expected:
        raise ShapeError(f"the values are {values}, the places to add to have shape {expected}")
    return Type(x.dtype, x.shape)


def add_at(
    x: np.ndarray, index: np.ndarray, values: np.ndarray, out: np.ndarray, axis: int
) -> None:
    """`np.add.at` along one axis of a copy of x (of x itself when `out` is x)."""
    if out is not x:
        np.copyto(out, x)
    if out.ndim == index.ndim == 1:
        np.add.at(out, index, values)
        return
    target = np.moveaxis(out, axis, 0)
    source = np.moveaxis(values, tuple(range(axis, axis + index.ndim)), tuple(range(index.ndim)))
    if target.ndim == 1:
        np.add.at(target, index, source)
        return
    # Row by row: a row's ufunc call costs less than add.at spends on its entries.
    for place, row in zip(index.flat, _rows(source, index.ndim), strict=True):
        row_out = target[place]
        np.add(row_out, row, out=row_out)


def _rows(source: np.ndarray, ndim: int) -> np.ndarray:
    return source.reshape(math.prod(source.shape[:ndim]), *source.shape[ndim:])


def _reference_index_add(
    x: np.ndarray, index: np.ndarray, values: np.ndarray, axis: int
) -> np.ndarray:
    answer = x.copy()
    places: Any = (slice(None),) * axis + (index,)
    np.add.at(answer, places, values)
    return answer


scatter_add: Op = Op(
    "scatter_add",
    _infer_index_add,
    add_at,
    (
        lambda g, out, x, index, values, axis: g,
        None,
        lambda g, out, x, index, values, axis: _take(g, index, axis=axis),
    ),
    inplace=(0,),
    examples=(
        Example(
            lambda rng: (rng.normal(size=(5, 3)), rng.integers(0, 5, 4), rng.normal(size=(4, 3))),
            _reference_index_add,
            {"axis": 0},
        ),
        Example(
            lambda rng: (rng.normal(size=7), rng.integers(0, 7, (3, 4)), rng.normal(size=(3, 4))),
            _reference_index_add,
            {"axis": 0},
        ),
        Example(
            lambda rng: (
                rng.normal(size=(2, 5)),
                rng.integers(0, 5, (4,)),
                rng.normal(size=(2, 4)),
            ),
            _reference_index_add,
            {"axis": 1},
        ),
    ),
)


# ---- as users call them -------------------------------------------------------------------


def checked(index: Any, size: int, negative: bool = True) -> Any:
    """The index (int64) from 0 to size - 1; those below 0 count from the end, or are refused."""
    return wrap_index(index, size=size, lowest=-size if negative else 0)


def take(x: Any, index: Any, axis: int = 0, negative: bool = True) -> Any:
    """Entries of x at integer indices along an axis.

    Out-of-range indices are an IndexError; with `negative` those below 0 count from the end.
    """
    (position,) = normalise_axes(axis, x.ndim)
    return _take(x, checked(index, x.shape[position], negative), axis=position)


def index_add(x: Any, index: Any, values: Any, axis: int = 0) -> Any:
    """x with `values` added at integer indices along an axis; repeated indices accumulate."""
    (position,) = normalise_axes(axis, x.ndim)
    wrapped = checked(index, x.shape[position])
    return scatter_add(x, wrapped, values, axis=position)


def take_along_last(x: Any, index: Any) -> Any:
    """`x[..., index]` entry by entry: x (..., n) and index (...) of integers give (...)."""
    return _take(x.reshape(-1), flat_positions(x, index), axis=0)


def flat_positions(x: Any, index: Any) -> Any:
    """Where `x[..., index]` lies in the flattened x."""
    length = x.shape[-1]
    rows = math.prod(x.shape[:-1])
    starts = arange(0, rows * length, length).reshape(index.shape)
    return checked(index, length, negative=False) + starts


def getitem(x: Any, key: Any) -> Any:
    """`x[key]`: slices, integers, None, Ellipsis and integer arrays, as NumPy reads them."""
    keys = key if isinstance(key, tuple) else (key,)
    basic, arrays = _normal_key(x, keys)
    x = _apply_basic(x, basic)
    return _apply_arrays(x, arrays, _stand_together(keys)) if arrays else x


_Basic = list[tuple[str, Any]]


def _normal_key(x: Any, key: tuple) -> tuple[_Basic, dict[int, Any]]:
    """One entry per axis of the result of the basic part, and integer arrays by that axis."""
    used = sum(1 for k in key if k is not None and k is not Ellipsis)
    if used > x.ndim or sum(1 for k in key if k is Ellipsis) > 1:
        raise OutOfRange(f"too many indices: {used} for the shape {x.shape}")
    basic: _Basic = []
    arrays: dict[int, Any] = {}
    axis = place = 0
    for k in _without_ellipsis(key, x.ndim - used):
        if k is None:
            basic.append(("new", None))
            place += 1
            continue
        size = x.shape[axis]
        axis += 1
        if isinstance(k, slice):
            basic.append(("slice", _bounds(k, size)))
        elif isinstance(k, int | np.integer) and not isinstance(k, bool):
            basic.append(("at", _checked(int(k), size, axis - 1)))
            continue
        else:
            basic.append(("slice", (0, size, 1)))
            arrays[place] = _index_array(k, axis - 1)
        place += 1
    return basic, arrays


def _without_ellipsis(key: tuple, missing: int) -> tuple:
    whole = (slice(None),) * missing
    for i, k in enumerate(key):
        if k is Ellipsis:
            return key[:i] + whole + key[i + 1 :]
    return key + whole


def _bounds(key: slice, size: int) -> tuple[int, int, int]:
    for part in (key.start, key.stop, key.step):
        if part is not None and not isinstance(part, int | np.integer):
            raise TypeError(
                f"slice bounds are integers known when tracing, not {type(part).__name__}; "
                "use take(x, index) for positions computed at run time"
            )
    start, stop, step = key.indices(size)
    length = len(range(start, stop, step))
    return (start, start, 1) if length == 0 else (start, stop, step)


def _checked(k: int, size: int, axis: int) -> int:
    if not -size <= k < size:
        raise OutOfRange(f"index {k} is out of range for axis {axis} of {size} entries")
    return k % size


def _index_array(k: Any, axis: int) -> Any:
    k = np.asarray(k) if isinstance(k, list | bool) else k
    dtype = getattr(k, "dtype", None)
    if dtype == BOOL:
        raise DtypeError(
            f"a boolean index (axis {axis}) gives a shape that depends on data; "
            "use where(mask, x, other) instead"
        )
    if dtype is None or dtype.kind not in "iu":
        raise DtypeError(f"an index is made of integers, not {k!r} (axis {axis})")
    return k


def _apply_basic(x: Any, basic: _Basic) -> Any:
    """Slices and single entries as one view; then new axes as a reshape."""
    bounds = tuple((v, v + 1, 1) if kind == "at" else v for kind, v in basic if kind != "new")
    if any(b != (0, n, 1) for b, n in zip(bounds, x.shape, strict=True)):
        x = slice_(x, bounds=bounds)
    lengths = iter(x.shape)
    shape = []
    for kind, _ in basic:
        n = 1 if kind == "new" else next(lengths)
        if kind != "at":
            shape.append(n)
    return x if tuple(shape) == x.shape else reshape(x, tuple(shape))


def _stand_together(key: tuple) -> bool:
    """Whether arrays and integers, which NumPy takes for arrays here, stand side by side."""
    apart = slice | EllipsisType | None
    places = [i for i, k in enumerate(key) if not isinstance(k, apart)]
    return places == list(range(places[0], places[-1] + 1))


def _apply_arrays(x: Any, arrays: dict[int, Any], together: bool) -> Any:
    """Integer arrays: their axes are flattened to one, and one `take` serves them all."""
    axes = sorted(arrays)
    sizes = [x.shape[a] for a in axes]
    index = _combined([arrays[a] for a in axes], sizes)
    first = axes[0] if together else 0
    rest = [a for a in range(x.ndim) if a not in axes]
    order = [*rest[:first], *axes, *rest[first:]]
    if order != list(range(x.ndim)):
        x = transpose(x, order)
    shape = (*x.shape[:first], math.prod(sizes), *x.shape[first + len(axes) :])
    return _take(reshape(x, shape), index, axis=first)


def _combined(indices: list[Any], sizes: list[int]) -> Any:
    """One index into the flattened axes."""
    total = checked(indices[0], sizes[0])
    for index, size in zip(indices[1:], sizes[1:], strict=True):
        total = total * size + checked(index, size)
    return total


def one_hot(index: Any, count: int, dtype: Any = np.float32) -> Any:
    """1 at the index and 0 elsewhere: integers (...) give (..., count)."""
    places = checked(index, count, negative=False)
    return (expand_dims(places, index.ndim) == arange(count)).astype(dtype)
