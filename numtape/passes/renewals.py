"""Renewals: what one or two passes over memory give is computed again, not held. Exact.

The result of a layer norm is its standardised input, which the reverse part reads anyway, times a
gain, plus a bias; held beside it for the gradient of the next weight, it would take as much memory
again. What costs more to compute is held, unless a budget asks for less: see `recompute`.
"""

from numtape.ir.effort import effort
from numtape.ir.graph import Graph, Value, ancestors, independent
from numtape.passes.recompute import Renewal, roots

WORTH = 2.5e-10  # seconds for a byte that is not held: two passes over memory, calls included


def renewals(graph: Graph) -> Graph:
    """The graph whose reverse part computes such results of the forward part again."""
    start = _turn(graph)
    root = roots(graph)
    made = set(graph.nodes[:start]) - independent(graph)
    late = {root[v] for node in graph.nodes[start:] for v in node.inputs}
    held = late & made - {root[v] for v in graph.results}
    again = {u for v in held for u in _cheap(v, made, late)}
    return Renewal(graph, root, again, start).graph() if again else graph


def _turn(graph: Graph) -> int:
    """How many nodes lead up to the last of the forward part that the reverse part depends on."""
    wanted = ancestors(v for v in graph.nodes if v.origin.reverse)
    forward = (i for i, v in enumerate(graph.nodes, 1) if v in wanted and not v.origin.reverse)
    return max(forward, default=0)


def _cheap(value: Value, made: set[Value], late: set[Value]) -> list[Value]:
    """The entrywise operations that make a value of another that is held, or of what is given
    from outside; none where they cost more than holding the value."""
    found: list[Value] = []
    sources = [value]
    while sources and (not found or sources[0] not in late):
        (source,) = sources
        found.append(source)
        sources = [v for v in source.inputs if v in made]
        able = source.op.entrywise and source.op.kernel is not None and len(sources) < 2
        if not able or effort(found) > WORTH * value.nbytes:
            return []
    return found
