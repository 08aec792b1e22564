"""Constant folding: arithmetic on numbers is done once, by the op's own kernel. Exact."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from numtape.ir.graph import Graph, Value
from numtape.ir.interpreter import current
from numtape.ir.op import Op
from numtape.ir.types import Scalar
from numtape.passes.rewrite import rewrite


def folding(graph: Graph) -> Graph:
    """The graph with every scalar computed from constants alone made a constant."""
    return rewrite(graph, _folded)


def _folded(op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value | None:
    if not inputs or op.kernel is None or not all(v.is_constant for v in inputs):
        return None
    result = op.type_of([v.type for v in inputs], attrs)
    if result.shape != ():
        return None
    out = np.empty((), result.dtype)
    with np.errstate(all="ignore"):  # replayed, it would warn at each step
        op.kernel(*(np.asarray(v.attrs["value"], v.dtype) for v in inputs), out=out, **attrs)
    return current().lift(shortest(out), result.dtype)


def shortest(array: np.ndarray) -> Scalar:
    """The Python number with the fewest digits that gives back this 0-d array's value."""
    value: Any = array[()]
    if value.dtype.kind == "f" and np.isfinite(value):
        return float(np.format_float_scientific(value, unique=True))
    return value.item()
