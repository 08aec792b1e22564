"""Reverse tapes whose gradients come from some of the results only.

To the others no gradient comes, which is not a gradient of 0: 0 times an infinite slope is NaN.
So what depends on them alone is not computed. It is -0, which changes no sum that it goes into.
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_

from numtape.ir.graph import Graph, Value
from numtape.ir.ops.elementwise import sub
from numtape.runtime.emit import Line, emit
from numtape.runtime.plan import Plan


def sources(graph: Graph) -> dict[Value, int]:
    """By value, as bits, the late inputs that it depends on; values without any are left out."""
    assert graph.early is not None
    found = {v: 1 << i for i, v in enumerate(graph.inputs[graph.early[0] :])}
    for node in graph.nodes:
        bits = reduce(or_, (found.get(v, 0) for v in node.inputs), 0)
        if bits:
            found[node] = bits
    return found


def write_for(plan: Plan, reached: int) -> tuple[str, Mapping[str, object]]:
    """The source of a tape whose reverse part takes gradients of these results only, as bits."""
    found = sources(plan.graph)
    return emit(plan, _Zeros({v for v, bits in found.items() if not bits & reached}))


class _Zeros:
    names: tuple[str, ...] = ()

    def __init__(self, absent: set[Value]) -> None:
        self._absent = absent

    def around(self, line: Line) -> list[str]:
        if line.node in self._absent:
            return [f"{line.out}[...] = -0.0"]
        if line.node.op is sub and line.reads[1] in self._absent:
            return [f"np.copyto({line.out}, {line.inputs[0]})"]  # less -0 would be more 0
        return [line.text]
