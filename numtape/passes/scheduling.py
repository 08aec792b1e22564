"""Scheduling: reverse work that shrinks what it reads is done as soon as it can be. Exact.

A derivative such as GELU's needs only forward values. Computed at once, it takes the place of the
parts it is made of, which would otherwise be kept until the reverse part reads them. The gradient
of a weight is the last to read the activation in front of it: computed before the gradient of that
activation, it makes room for it. The same arithmetic in another order, and less memory held.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from numtape.ir.graph import Graph, Value, first_part, independent, root_of, users


def scheduling(graph: Graph) -> Graph:
    """The graph with such nodes moved forward, to right behind what they read."""
    return replace(graph, nodes=_Mover(graph).order())


class _Mover:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = users(graph)
        # What depends on no input is nobody's work: it comes first, wherever it was met.
        first = independent(graph)
        self.at = {v: -1.0 if v in first else float(i) for i, v in enumerate(graph.nodes)}
        self.kept = {root_of(v) for v in graph.results}
        self.met: set[Value] = set()
        if graph.early:
            late = graph.inputs[graph.early[0] :]
            self.at |= dict.fromkeys(late, first_part(graph, graph.nodes) - 0.5)

    def order(self) -> tuple[Value, ...]:
        for node in self.graph.nodes:
            if node.origin.reverse and self.at[node] >= 0:
                # Never back: late readers of old values count as early until `old_values` has run.
                self.at[node] = min(self.at[node], self._earliest(node))
            self.met.add(node)
        return tuple(sorted(self.graph.nodes, key=self.at.__getitem__))

    def _earliest(self, node: Value) -> float:
        """Behind the inputs, and behind as many other readers of what dies here as it takes to
        make the room that the result needs."""
        before = [self.at[v] for v in node.inputs if v in self.at]
        wanted = node.nbytes if node.op.view is None else 0
        for moment, nbytes in sorted(self._deaths(node)):
            if wanted <= 0:
                break
            before.append(moment)
            wanted -= nbytes
        if wanted > 0 or not before:
            return math.inf
        # Moved nodes keep their own order: each sits a little behind what it follows.
        return max(before) + 1e-6

    def _deaths(self, node: Value) -> Iterator[tuple[float, int]]:
        """Of what the node is the last to read: when all others have read it, and its bytes."""
        for root in {root_of(v) for v in node.inputs}:
            readers = [u for u in self._readers(root) if u is not node]
            # What is given from outside, or needed to the end, does not die.
            if root.inputs and root not in self.kept and self.met.issuperset(readers):
                yield max(map(self.at.__getitem__, readers), default=-1.0), root.nbytes

    def _readers(self, value: Value) -> list[Value]:
        found = []
        for user in self.users[value]:
            found += self._readers(user) if user.op.view is not None else [user]
        return found
