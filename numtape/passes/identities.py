"""Identities: operations that leave a value as it is, or undo one another. Exact.

Directional rules, each with its identity beside it; the right side is never dearer.
"""

from collections.abc import Mapping
from typing import Any

from numtape.ir.graph import Graph, Value
from numtape.ir.op import REGISTRY, Op
from numtape.ir.ops.elementwise import neg
from numtape.passes.rewrite import rewrite


def identities(graph: Graph) -> Graph:
    """The graph without operations that change nothing."""
    return rewrite(graph, _simplified)


def _simplified(op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value | None:
    rule = _RULES.get(op.name)
    return rule(inputs, attrs) if rule is not None else None


def is_number(value: Value, number: float) -> bool:
    return value.is_constant and value.attrs["value"] == number


def _unless_broadcast(x: Value, y: Value) -> Value | None:
    """x for an operation of x with a constant y that changes nothing."""
    return x if y.shape == () else None


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
    return _unless_broadcast(x, y) if is_number(y, 0) else None  # x - 0 = x


def _add(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    for x, y in (inputs, inputs[::-1]):
        if y.op is neg and x.shape == y.shape:  # x + -y = x - y
            return x - y.inputs[0]
    return None


def _neg(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    (x,) = inputs
    return x.inputs[0] if x.op is neg else None  # --x = x


def _cast(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    (x,) = inputs
    return x if x.dtype == attrs["dtype"] and not x.weak else None  # cast to its own dtype


def _same(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    return inputs[0]


def _where(inputs: tuple[Value, ...], attrs: Mapping) -> Value | None:
    condition, x, y = inputs
    if x is y and x.shape == condition.shape:  # where(c, x, x) = x
        return x
    return None


_RULES = {
    "mul": _mul,
    "div": _div,
    "sub": _sub,
    "add": _add,
    "neg": _neg,
    "cast": _cast,
    "where": _where,
    "detach": _same,
    "alias": _same,
}
assert set(_RULES) - {"alias"} <= set(REGISTRY)
