"""What a node becomes: one call of a NumPy function or kernel. The one place that decides it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from numtape.ir.graph import Value
from numtape.ir.ops.dense import dense
from numtape.ir.ops.linalg import matmul_op
from numtape.ir.ops.shapes import reshape_op
from numtape.runtime.layout import Place

# An argument of a call: a value, or a value seen in another shape.
Argument = tuple[Value, tuple[int, ...] | None]


class Call(NamedTuple):
    """`function(*inputs, **attrs, out=out)`; shapes ask for reshaped views bound beforehand.

    `np.copyto` has the result in front instead.
    """

    function: Callable[..., Any]
    inputs: tuple[Argument, ...]
    out: Argument
    attrs: Mapping[str, Any]


def lower(node: Value, places: Mapping[Value, Place]) -> Call:
    """The call that computes a node into its memory."""
    if node.op is matmul_op:
        return _product(node, places)
    if node.op in (reshape_op, dense):
        (x,) = node.inputs
        return Call(np.copyto, ((x, None),), (node, x.shape), {})
    assert node.op.kernel is not None, node
    inputs = tuple((v, None) for v in node.inputs)
    return Call(node.op.kernel, inputs, (node, None), node.attrs)


def _product(node: Value, places: Mapping[Value, Place]) -> Call:
    """The product that `matmul_rows` would make, with its reshaped views made once."""
    x, y = node.inputs
    stacked = x.ndim > 2 and y.ndim == 2
    if not (stacked and places[x].contiguous and places[node].contiguous):
        return Call(np.matmul, ((x, None), (y, None)), (node, None), {})
    rows = math.prod(x.shape[:-1])
    return Call(
        np.matmul, ((x, (rows, x.shape[-1])), (y, None)), (node, (rows, node.shape[-1])), {}
    )


def function_name(function: Callable[..., Any]) -> str:
    """How the tape's source names a kernel: `np.add`, `np.add.reduce`, or its own name."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, np.ufunc):
        return f"np.{owner.__name__}.{function.__name__}"
    if isinstance(function, np.ufunc) or getattr(np, function.__name__, None) is function:
        return f"np.{function.__name__}"
    return function.__name__.lstrip("_")
