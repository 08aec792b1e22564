"""Identities: operations that leave a value as it is, or undo one another. Exact.

Directional rules, each with its identity beside it; the right side is never dearer. They keep the
layout in memory as well, by which NumPy and BLAS choose the order of their sums.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from numtape.ir.graph import Graph, Value
from numtape.ir.op import Op
from numtape.ir.ops.elementwise import add, alias, cast, detach, div, mul, neg, sub, where
from numtape.ir.ops.parts import slice_
from numtape.ir.ops.shapes import (
    broadcast_op,
    concatenate_op,
    reshape_op,
    transpose_op,
    unshaped,
)
from numtape.ir.types import Shape, broadcast
from numtape.passes.rewrite import rewrite


def identities(graph: Graph) -> Graph:
    """The graph without operations that change nothing."""
    return rewrite(graph, _simplified)


def _simplified(op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value | None:
    rule = _RULES.get(op)
    found = rule(inputs, attrs) if rule is not None else None
    return found if found is not None else _bare(op, inputs, attrs)


def _bare(op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value | None:
    """f(broadcast(x), y) = f(x, y), where y has the whole shape: the operation repeats x."""
    bare = without_broadcasts(op, inputs)
    if bare is None or shape_of(bare) != shape_of(inputs):
        return None
    return op(*bare, **attrs)


def without_broadcasts(op: Op, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
    """The inputs before they were repeated, for an operation that repeats them itself."""
    if not op.entrywise or broadcast_op not in [v.op for v in inputs]:
        return None
    return tuple(v.inputs[0] if v.op is broadcast_op else v for v in inputs)


def shape_of(inputs: tuple[Value, ...]) -> Shape:
    """The shape that values broadcast to."""
    return broadcast(*(v.type for v in inputs))


def is_number(value: Value, number: float) -> bool:
    return value.is_constant and value.attrs["value"] == number


def _unless_broadcast(x: Value, y: Value) -> Value | None:
    """x for an operation of x with a constant y that changes nothing."""
    return _dense(x) if y.shape == () else None


def _dense(x: Value) -> Value | None:
    """x unless it is a view: an operation on it would have given its entries a new layout."""
    root = x
    while root.op in (reshape_op, detach, alias):
        (root,) = root.inputs
    return x if root.op.view is None else None


def _mul(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    for x, y in (inputs, inputs[::-1]):
        if is_number(y, 1):  # x * 1 = x
            return _unless_broadcast(x, y)
        if is_number(y, -1):  # x * -1 = -x
            return neg(x)
    return None


def _div(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    x, y = inputs
    return _unless_broadcast(x, y) if is_number(y, 1) else None  # x / 1 = x


def _sub(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    x, y = inputs
    if is_number(y, 0) and math.copysign(1.0, y.attrs["value"]) > 0:  # -0 - -0 is 0
        return _unless_broadcast(x, y)  # x - 0 = x
    return None


def _add(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    for x, y in (inputs, inputs[::-1]):
        if y.op is neg:  # x + -y = x - y
            return x - y.inputs[0]
    return None


def _neg(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    (x,) = inputs
    return _dense(x.inputs[0]) if x.op is neg else None  # --x = x


def _cast(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    (x,) = inputs
    return _dense(x) if x.dtype == attrs["dtype"] else None  # cast to its own dtype


def _same(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    return inputs[0]


def _where(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    condition, x, y = inputs
    if x is y and x.shape == condition.shape:  # where(c, x, x) = x
        return _dense(x)
    if condition.is_constant and x.shape == y.shape:  # where(true, x, y) = x
        return _dense(x if condition.attrs["value"] else y)
    return None


def _reshaped(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    (x,) = inputs
    return x if x.shape == attrs["shape"] else None


def _transposed(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    (x,), axes = inputs, attrs["axes"]
    if axes == tuple(range(x.ndim)):
        return x
    if x.op is transpose_op:  # transpose(transpose(x)) = transpose(x)
        inner = x.attrs["axes"]
        return x.inputs[0].transpose(tuple(inner[a] for a in axes))
    return None


def _repeated(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    (x,), shape = inputs, attrs["shape"]
    if x.shape == shape:
        return x
    if x.op is broadcast_op:  # broadcast(broadcast(x)) = broadcast(x)
        return x.inputs[0].broadcast_to(shape)
    return None


def _whole(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    (x,) = inputs
    whole = all(b == (0, n, 1) for b, n in zip(attrs["bounds"], x.shape, strict=True))
    return x if whole else None


def _joined(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    """concatenate(x[:a], x[a:]) = x, for a vector whose parts may have other shapes between."""
    parts = list(map(unshaped, inputs))
    if inputs[0].ndim != 1 or any(v.op is not slice_ for v in parts):
        return None
    x = parts[0].inputs[0]
    stops = [0, *(v.attrs["bounds"][0][1] for v in parts)]
    whole = [((a, b, 1),) for a, b in pairwise(stops)]
    same = all(v.inputs[0] is x for v in parts) and [v.attrs["bounds"] for v in parts] == whole
    return _dense(x) if same and x.shape == (stops[-1],) else None


# Views that look at nothing else, or at what another view looks at already.
IDLE = {
    reshape_op: _reshaped,
    transpose_op: _transposed,
    broadcast_op: _repeated,
    slice_: _whole,
}
_RULES = {
    mul: _mul,
    div: _div,
    sub: _sub,
    add: _add,
    neg: _neg,
    cast: _cast,
    where: _where,
    detach: _same,
    alias: _same,
    concatenate_op: _joined,
    **IDLE,
}
