"""The reference: a graph run node by node with the ops' own kernels, in memory of their own.

What eager mode would do with the same operations, and nothing else: no plan, no source.
"""

from collections.abc import Sequence

import numpy as np

from numtape.ir.graph import Graph, Value, replay
from numtape.ir.interpreter import active
from numtape.tracer.recorder import EAGER, evaluate, recording
from numtape.tracer.tensor import Tensor

Arrays = Sequence[np.ndarray]


def values(
    graph: Graph, inputs: Arrays, noise: "np.random.Generator | None" = None
) -> dict[Value, np.ndarray]:
    """The array of every value, for arrays of the inputs in order; these are only read.

    With `noise` each float result is moved by up to one unit in its last place.
    """

    def run(node: Value, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        found = _computed(node, arrays)
        return found if noise is None or node.op.view else _moved(found, noise)

    with active(EAGER), recording(False), np.errstate(all="ignore"):
        return replay(graph, inputs, run)


def results(
    graph: Graph, inputs: Arrays, noise: "np.random.Generator | None" = None
) -> list[np.ndarray]:
    """Copies of the outputs, then of what the updates store."""
    known = values(graph, inputs, noise)
    return [known[v].copy() for v in graph.results]


def _computed(node: Value, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    if node.is_constant:
        return np.asarray(node.attrs["value"], node.dtype)
    if node.op.expand is None:
        return evaluate(node.op, arrays, [v.type for v in node.inputs], node.attrs)[0]
    tensors = (Tensor.wrap(a, v.type) for a, v in zip(arrays, node.inputs, strict=True))
    return node.op.expand(*tensors, **node.attrs).numpy()


def _moved(array: np.ndarray, noise: "np.random.Generator") -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    unit = np.finfo(array.dtype).eps
    factor = 1.0 + unit * noise.uniform(-1.0, 1.0, array.shape)
    return np.asarray(array * factor, array.dtype)
