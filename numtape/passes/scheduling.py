"""Scheduling: reverse work that shrinks what it reads is done as soon as it can be. Exact.

A derivative such as GELU's needs only forward values. Computed at once, it takes the place of the
parts it is made of, which would otherwise be kept until the reverse part reads them. The gradient
of a weight is the last to read the activation in front of it: computed before the gradient of that
activation, it makes room for it. The same arithmetic in another order, and less memory held.
"""

from dataclasses import replace

from numtape.ir.graph import Graph, Value, first_part, root_of, users


def scheduling(graph: Graph) -> Graph:
    """The graph with such nodes moved forward, to right behind what they read."""
    return replace(graph, nodes=_Mover(graph).order())


class _Mover:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = users(graph)
        # Constants are nobody's work: they come first, wherever they were met.
        self.at = {v: -1.0 if v.is_constant else float(i) for i, v in enumerate(graph.nodes)}
        self.kept = {root_of(v) for v in graph.results}
        self.met: set[Value] = set()
        if graph.early:
            late = graph.inputs[graph.early[0] :]
            self.at |= dict.fromkeys(late, first_part(graph, graph.nodes) - 0.5)

    def order(self) -> tuple[Value, ...]:
        for node in self.graph.nodes:
            if node.origin.reverse and self._shrinks(node):
                # Never back: late readers of old values count as early until `old_values` has run.
                self.at[node] = min(self.at[node], self._earliest(node))
            self.met.add(node)
        return tuple(sorted(self.graph.nodes, key=self.at.__getitem__))

    def _shrinks(self, node: Value) -> bool:
        """Whether what dies at the node is at least as large as what it makes."""
        if node.op.view is not None:
            return True
        dying = {root_of(v) for v in node.inputs if self._last_reader(v, node)}
        return sum(v.nbytes for v in dying) >= node.nbytes and bool(dying)

    def _last_reader(self, value: Value, node: Value) -> bool:
        root = root_of(value)
        if not root.inputs or root in self.kept:  # given from outside, or needed to the end
            return False
        return all(u is node or u in self.met for u in self._readers(root))

    def _readers(self, value: Value) -> list[Value]:
        found = []
        for user in self.users[value]:
            found += self._readers(user) if user.op.view is not None else [user]
        return found

    def _earliest(self, node: Value) -> float:
        """Behind the inputs and behind the other readers of what dies here."""
        before = [self.at[v] for v in node.inputs if v in self.at]
        for v in filter(lambda v: self._last_reader(v, node), node.inputs):
            before += [self.at[u] for u in self._readers(root_of(v)) if u is not node]
        # Moved nodes keep their own order: each sits a little behind what it follows.
        return max(before, default=self.at[node]) + 1e-6
