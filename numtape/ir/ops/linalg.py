"""Matrix products: where a training step spends its time."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from numtape.ir.op import Op
from numtape.ir.ops.ranges import arange
from numtape.ir.ops.rules import example
from numtape.ir.ops.shapes import expand_dims, moveaxis, reshape, squeeze, transpose
from numtape.ir.types import ShapeError, Type, broadcast


def _infer_matmul(x: Type, y: Type) -> Type:
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"the inner sizes differ, {x} @ {y}: {x.shape[-1]} and {y.shape[-2]}")
    try:
        batch = broadcast(Type(x.dtype, x.shape[:-2]), Type(y.dtype, y.shape[:-2]))
    except ShapeError:
        raise ShapeError(f"the stacks of matrices do not broadcast, {x} @ {y}") from None
    return Type(x.dtype, (*batch, x.shape[-2], y.shape[-1]))


def matmul_rows(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """`np.matmul`; a stack of matrices times one matrix is one product of all their rows."""
    if x.ndim > 2 and y.ndim == 2 and x.flags.c_contiguous and out.flags.c_contiguous:
        rows = math.prod(x.shape[:-1])
        x, out = x.reshape(rows, x.shape[-1]), out.reshape(rows, out.shape[-1])
    np.matmul(x, y, out=out)


def _matmul_vjp_x(g: Any, out: Any, x: Any, y: Any) -> Any:
    return matmul_op(g, y.swapaxes(-1, -2))


def _matmul_vjp_y(g: Any, out: Any, x: Any, y: Any) -> Any:
    if y.ndim == 2:  # one product over all rows instead of a sum of products
        count = math.prod(x.shape[:-1])
        rows = x.reshape(count, x.shape[-1])
        return matmul_op(rows.swapaxes(0, 1), g.reshape(count, g.shape[-1]))
    return matmul_op(x.swapaxes(-1, -2), g)


def _dense_factors(x: Type, y: Type) -> tuple[bool, bool]:
    """Which factors must be dense for BLAS to add up in the same order, whatever their layout.

    GEMM copies its factors before it adds, transposed or not. GEMV does not; rows of a stack are
    joined only where they are dense; and for x times its own transpose NumPy takes SYRK.
    """
    vector = 1 in (x.shape[-2], x.shape[-1], y.shape[-1])
    gram = x.shape[-2:] == y.shape[-2:][::-1]
    joined = len(x.shape) > 2 and len(y.shape) == 2
    return vector or gram or joined, vector or gram


matmul_op = Op(
    "matmul",
    _infer_matmul,
    matmul_rows,
    (_matmul_vjp_x, _matmul_vjp_y),
    # The rows of one large matrix are computed together: by themselves they are other sums.
    rows=lambda x, y: max(len(x.shape), len(y.shape)) - 2 if len(y.shape) > 2 else 0,
    promotes="all",
    broadcasts=True,
    ordered=_dense_factors,
    examples=(
        example((3, 4), (4, 2), reference=np.matmul),
        example((2, 3, 4), (4, 2), reference=np.matmul),
        example((2, 1, 3, 4), (5, 4, 2), reference=np.matmul),
    ),
)


def _infer_vecdot(x: Type, y: Type) -> Type:
    return Type(x.dtype, broadcast(x, y)[:-1])


# Sums of products along the last axis without the products in memory.
vecdot = Op(
    "vecdot",
    _infer_vecdot,
    np.vecdot,
    (
        lambda g, out, x, y: g.expand_dims(-1) * y,
        lambda g, out, x, y: g.expand_dims(-1) * x,
    ),
    promotes="all",
    broadcasts=True,
    ordered=lambda x, y: (True, True),
    rows=lambda x, y: max(len(x.shape), len(y.shape)) - 1,
    examples=(
        example((3, 4), (3, 4), reference=np.vecdot),
        example((2, 3, 4), (4,), reference=np.vecdot),
    ),
)


def matmul(x: Any, y: Any) -> Any:
    """Matrix product in all of NumPy's shapes: vectors, matrices, stacks that broadcast."""
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError("matmul: a scalar is no matrix; multiply with * instead")
    left = expand_dims(x, 0) if x.ndim == 1 else x
    right = expand_dims(y, 1) if y.ndim == 1 else y
    product = matmul_op(left, right)
    dropped = ((-2,) if x.ndim == 1 else ()) + ((-1,) if y.ndim == 1 else ())
    return squeeze(product, dropped) if dropped else product


# ---- einsum -------------------------------------------------------------------------------


_ELLIPSIS = "αβγδεζηθ"


def _parse(subscripts: str, ndims: list[int]) -> tuple[list[str], str]:
    """Terms and result of an einsum; an ellipsis becomes Greek letters."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ndims):
        raise ShapeError(f"{subscripts!r} has {len(terms)} terms, {len(ndims)} operands")
    widths = [n - len(t.replace("...", "")) for t, n in zip(terms, ndims, strict=True)]
    letters = _ELLIPSIS[
        : max((w for t, w in zip(terms, widths, strict=True) if "..." in t), default=0)
    ]
    named = [
        t.replace("...", letters[len(letters) - w :]) for t, w in zip(terms, widths, strict=True)
    ]
    for term, ndim in zip(named, ndims, strict=True):
        if len(term) != ndim:
            raise ShapeError(f"{subscripts!r} names {term!r} for {ndim} dimensions")
    joined = "".join(named)
    implied = letters + "".join(
        sorted(c for c in set(joined) - set(letters) if joined.count(c) == 1)
    )
    result = right.replace("...", letters) if arrow else implied
    if unknown := set(result) - set(joined):
        raise ShapeError(f"{sorted(unknown)} of the result of {subscripts!r} stands in no term")
    return named, result


def _diagonals(x: Any, term: str) -> tuple[Any, str]:
    """Repeated letters of one term reduced to their diagonal."""
    for letter in sorted(set(term)):
        while term.count(letter) > 1:
            i = term.index(letter)
            j = term.index(letter, i + 1)
            places = arange(x.shape[i])
            line = [1] * x.ndim
            line[i] = x.shape[i]
            across = [1] * x.ndim
            across[j] = x.shape[j]
            same = places.reshape(line) == places.reshape(across)
            x, term = same.where(x, 0).sum(j), term[:j] + term[j + 1 :]
    return x, term


def _sum_out(x: Any, term: str, needed: set[str]) -> tuple[Any, str]:
    axes = tuple(i for i, c in enumerate(term) if c not in needed)
    return (x.sum(axes) if axes else x), "".join(c for c in term if c in needed)


def _contract(x: Any, s: str, y: Any, t: str, needed: set[str]) -> tuple[Any, str]:
    """Two operands become one by a (stacked) matrix product over the letters they share."""
    x, s = _sum_out(x, s, needed | set(t))
    y, t = _sum_out(y, t, needed | set(s))
    stack = [c for c in s if c in t and c in needed]
    inner = [c for c in s if c in t and c not in needed]
    left = [c for c in s if c not in t]
    right = [c for c in t if c not in s]
    sizes = dict(zip(s + t, x.shape + y.shape, strict=True))
    lead = tuple(sizes[c] for c in stack)
    rows, depth, columns = (math.prod(sizes[c] for c in part) for part in (left, inner, right))
    a = transpose(x, [s.index(c) for c in (*stack, *left, *inner)]) if s else x
    b = transpose(y, [t.index(c) for c in (*stack, *inner, *right)]) if t else y
    product = matmul_op(reshape(a, (*lead, rows, depth)), reshape(b, (*lead, depth, columns)))
    result = (*stack, *left, *right)
    return reshape(product, tuple(sizes[c] for c in result)), "".join(result)


def _sizes(subscripts: str, terms: list[str], shapes: list[tuple[int, ...]]) -> dict[str, int]:
    """The length of each letter's axis; axes of an ellipsis broadcast."""
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for c, n in zip(term, shape, strict=True):
            known = sizes.setdefault(c, n)
            if known != n and not (c in _ELLIPSIS and 1 in (known, n)):
                raise ShapeError(f"{c!r} of {subscripts!r} is {known} and {n}")
            sizes[c] = n if known == 1 else known
    return sizes


def _without_repeated(x: Any, term: str, sizes: dict[str, int]) -> tuple[Any, str]:
    """An operand without the axes of length 1 that are longer in another."""
    axes = tuple(i for i, c in enumerate(term) if x.shape[i] == 1 != sizes[c])
    kept = "".join(c for i, c in enumerate(term) if i not in axes)
    return (squeeze(x, axes) if axes else x), kept


def _groups(operands: list[tuple[Any, str]], result: str) -> list[Sequence[int]]:
    """Which operands to contract next, what comes of them going to the end: the cheapest order."""
    numbers = {c: i for i, c in enumerate(dict.fromkeys("".join(t for _, t in operands)))}
    given: list[Any] = []
    for x, term in operands:
        given += (np.broadcast_to(np.float32(), x.shape), [numbers[c] for c in term])
    path, _ = np.einsum_path(*given, [numbers[c] for c in result], optimize="optimal")
    return path[1:]


def _expand_einsum(*xs: Any, subscripts: str) -> Any:
    terms, result = _parse(subscripts, [x.ndim for x in xs])
    sizes = _sizes(subscripts, terms, [x.shape for x in xs])
    fitted = [_without_repeated(x, t, sizes) for x, t in zip(xs, terms, strict=True)]
    pending = [_diagonals(x, t) for x, t in fitted]
    for group in _groups(pending, result) if len(pending) > 1 else ():
        met = [pending.pop(i) for i in sorted(group, reverse=True)]
        while len(met) > 1:
            (x, s), (y, t) = met.pop(), met.pop()
            needed = set(result).union(*(set(u) for _, u in (*met, *pending)))
            met.append(_contract(x, s, y, t, needed))
        pending += met
    x, term = _sum_out(*pending[0], set(result))
    return transpose(x, [term.index(c) for c in result]) if len(term) > 1 else x


def _infer_einsum(*xs: Type, subscripts: str) -> Type:
    terms, result = _parse(subscripts, [len(x.shape) for x in xs])
    sizes = _sizes(subscripts, terms, [x.shape for x in xs])
    return Type(xs[0].dtype, tuple(sizes[c] for c in result))


def _reference_einsum(*xs: np.ndarray, subscripts: str) -> np.ndarray:
    return np.einsum(subscripts, *xs)


_einsum = Op(
    "einsum",
    _infer_einsum,
    expand=_expand_einsum,
    promotes="all",
    examples=(
        example((3, 4), (4, 2), reference=_reference_einsum, subscripts="ij,jk->ki"),
        example((2, 3, 4), (2, 5, 4), reference=_reference_einsum, subscripts="bij,bkj->bik"),
        example((3, 3), reference=_reference_einsum, subscripts="ii"),
        example((2, 3), (3,), (4, 3), reference=_reference_einsum, subscripts="...i,i,ji->...j"),
    ),
)


def einsum(subscripts: str, *xs: Any) -> Any:
    """`numpy.einsum` on a subscript string; operands meet two by two, in the cheapest order."""
    return _einsum(*xs, subscripts=subscripts)


def outer(x: Any, y: Any) -> Any:
    """The product of every entry of one vector with every entry of another."""
    return x.reshape(-1, 1) * y.reshape(1, -1)


def dot(x: Any, y: Any) -> Any:
    """Sums of products over the last axis of x and the last but one (or only) of y.

    Unlike `matmul`, scalars multiply, and stacks of matrices do not meet: every row of x goes
    with every column of y.
    """
    if x.ndim == 0 or y.ndim == 0:
        return x * y
    if y.ndim <= 2:
        return matmul(x, y)
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"dot: the inner sizes differ, {x.type} and {y.type}")
    columns = moveaxis(y, -2, 0)
    product = matmul(x, columns.reshape(x.shape[-1], math.prod(columns.shape[1:])))
    return product.reshape(*x.shape[:-1], *columns.shape[1:])
