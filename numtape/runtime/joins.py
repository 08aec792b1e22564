"""Joins of inputs that lie end to end in memory: to look at all of it is enough.

Optimizers lay small parameters so and update them as one. The join is then no copy, and parts of
one result that are assigned to the inputs are assigned all at once.

Gradients are copied where the join has them. To compute them there saves a kernel, which is 2 of
180 microseconds of a small perceptron, but all of the join's memory would be taken from the first
gradient on: a GPT of width 32 would need an arena larger by a quarter.
"""

from collections.abc import Mapping

import numpy as np

from numtape.ir.graph import Graph, Value, root_of
from numtape.ir.memory import lie_end_to_end
from numtape.ir.ops.shapes import concatenate_op, unshaped

Joins = Mapping[Value, tuple[Value, ...]]  # by join, the inputs that lie end to end in it


def joins_outside(graph: Graph, outside: Mapping[Value, np.ndarray]) -> Joins:
    """The joins that are views of memory outside; no input is part of two.

    Not those that show later what they were: results, and what a reverse tape reads.
    """
    kept = set(map(root_of, graph.results))
    if graph.early is not None:
        kept |= {old for old, _ in graph.updates}
    found: dict[Value, tuple[Value, ...]] = {}
    for node in graph.nodes:
        sources = _sources(node)
        if not sources or not kept.isdisjoint((node, *sources)):
            continue
        arrays = [outside[v] for v in sources if v in outside]
        if len(arrays) == len(sources) and lie_end_to_end(arrays):
            found[node] = sources
            kept.update(sources)
    return found


def _sources(node: Value) -> tuple[Value, ...]:
    """What lies end to end in a join, each as a whole; nothing where that is not known."""
    if node.op is not concatenate_op or node.attrs["axis"] != 0:
        return ()
    sources = tuple(map(unshaped, node.inputs))
    return sources if len(set(sources)) == len(sources) else ()
