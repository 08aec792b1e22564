"""The cheapest cut between a source and a sink, by Dinic's method.

Dinic, "Algorithm for solution of a problem of maximum flow in networks with power estimation",
1970: all shortest ways are filled at once, as long as there are any.
"""

from collections.abc import Hashable, Sequence
from typing import Any

Edge = tuple[Hashable, Hashable, float]


def reachable(edges: Sequence[Edge], source: Hashable, sink: Hashable) -> set[Any]:
    """What lies on the source's side of the cheapest cut that parts it from the sink.

    An edge is (from, to, what it costs to cut).
    """
    return _Network(edges).cut(source, sink)


class _Network:
    """Edges in pairs, there and back: the one of index `i` runs against that of `i ^ 1`."""

    def __init__(self, edges: Sequence[Edge]) -> None:
        self.ends: list[Hashable] = []
        self.room: list[float] = []
        self.leaving: dict[Hashable, list[int]] = {}
        for start, end, cost in edges:
            self._add(start, end, cost)
            self._add(end, start, 0.0)

    def _add(self, start: Hashable, end: Hashable, cost: float) -> None:
        self.leaving.setdefault(start, []).append(len(self.ends))
        self.ends.append(end)
        self.room.append(cost)

    def cut(self, source: Hashable, sink: Hashable) -> set[Hashable]:
        while sink in (levels := self._levels(source)):
            unused = {v: list(edges) for v, edges in self.leaving.items()}
            while path := self._path(source, sink, levels, unused):
                flow = min(self.room[i] for i in path)
                for i in path:
                    self.room[i] -= flow
                    self.room[i ^ 1] += flow
        return set(levels)

    def _levels(self, source: Hashable) -> dict[Hashable, int]:
        """The steps from the source to everything that can be reached."""
        levels = {source: 0}
        found = [source]
        for v in found:
            for i in self.leaving.get(v, ()):
                if self.room[i] > 0 and self.ends[i] not in levels:
                    levels[self.ends[i]] = levels[v] + 1
                    found.append(self.ends[i])
        return levels

    def _path(
        self,
        source: Hashable,
        sink: Hashable,
        levels: dict[Hashable, int],
        unused: dict[Hashable, list[int]],
    ) -> list[int]:
        """Edges with room that lead to the sink level by level; none where all are full."""
        path: list[int] = []
        here = source
        while here != sink:
            edges = unused[here]
            while edges and not self._leads_on(edges[-1], here, levels):
                edges.pop()
            if edges:
                path.append(edges[-1])
                here = self.ends[edges[-1]]
            elif path:
                here = self.ends[path.pop() ^ 1]
                unused[here].pop()
            else:
                return []
        return path

    def _leads_on(self, edge: int, here: Hashable, levels: dict[Hashable, int]) -> bool:
        return self.room[edge] > 0 and levels.get(self.ends[edge]) == levels[here] + 1
