"""What the tests of the core share: finite differences, layouts, and a reference interpreter."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from numtape.ir.graph import Graph, Value, replay
from numtape.tracer.recorder import evaluate
from numtape.tracer.tensor import Tensor

Arrays = Sequence[np.ndarray]


def is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


def differences(function: Callable[..., float], arrays: Arrays, position: int) -> np.ndarray:
    """The gradient of a scalar function for one of its arrays, by central differences."""
    step = 1e-5
    moved = [a.copy() for a in arrays]
    found = np.zeros_like(moved[position])
    for place in np.ndindex(found.shape):
        here = arrays[position][place]
        moved[position][place] = here + step
        above = function(*moved)
        moved[position][place] = here - step
        found[place] = (above - function(*moved)) / (2 * step)
        moved[position][place] = here
    return found


def layouts(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same entries behind other strides; the repeated one has entries of its own."""
    yield "transposed", np.ascontiguousarray(array.T).T
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    yield "stepped", wide[..., ::2]
    yield "reversed", array[::-1].copy()[::-1]
    yield "repeated", np.broadcast_to(array[:1].copy(), array.shape)


def run_graph(graph: Graph, inputs: Arrays) -> list[np.ndarray]:
    """The results of a graph (outputs, then updates), node by node by the ops' own kernels."""

    def run(node: Value, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        if node.is_constant:
            return np.asarray(node.attrs["value"], node.dtype)
        if node.op.expand is None:
            return evaluate(node.op, arrays, [v.type for v in node.inputs], node.attrs)[0]
        return node.op.expand(*map(Tensor, arrays), **node.attrs).numpy()

    known = replay(graph, inputs, run)
    return [known[v] for v in graph.results]
