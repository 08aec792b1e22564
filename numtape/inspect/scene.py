"""What a picture of a graph shows, before it is drawn.

Between `ir.Graph` and the two drawings, `operations` and `modules`: each value gets its part of
the step, the box it lies in (`places`) and, where equal layers are drawn once (`folding`), the
value that stands for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from numtape.inspect.folding import Folding, Path, fold_equal
from numtape.inspect.places import UPDATE, parts, places, values
from numtape.ir.graph import Graph, Value, numbering


@dataclass(frozen=True)
class Scene:
    """A graph with what a picture needs to know of it.

    names      `%7` for each value, as in the graph's text; a constant's name is its number.
    part       FORWARD, REVERSE (the gradient) or UPDATE (the new values of parameters and state).
    place      the nested boxes around a value, outermost first.
    folding    which boxes stand for others.
    hidden     views that are not drawn: their edges start at what they view.
    written    values that depend on nothing: they are written into the nodes that read them.
    arguments  the inputs that are arguments; the others are captured.
    """

    graph: Graph
    names: dict[Value, str]
    part: dict[Value, str]
    place: dict[Value, Path]
    folding: Folding
    hidden: frozenset[Value]
    written: frozenset[Value]
    arguments: frozenset[Value]

    @property
    def drawn(self) -> list[Value]:
        """The values that are drawn, in the order of the program."""
        left_out = self.folding.stands.keys() | self.hidden | self.written
        return [v for v in values(self.graph) if v not in left_out]

    def source(self, value: Value) -> Value:
        """The drawn or written value at which edges from `value` start."""
        while value in self.hidden:
            value = value.inputs[0]
        return self.folding.stands.get(value, value)

    def edges(self) -> Iterator[tuple[Value, Value]]:
        """Which drawn value is read by which, each pair once and none within a repetition."""
        seen: set[tuple[Value, Value]] = set()
        for reader in values(self.graph):
            if reader in self.hidden or self._is_folded_update(reader):
                continue
            for x in reader.inputs:
                edge = (self.source(x), self.folding.stands.get(reader, reader))
                known = edge[0] in self.written or edge in seen
                if not known and not self._links_copies(x, reader):
                    seen.add(edge)
                    yield edge

    def updates(self) -> list[tuple[str, Value]]:
        """The name of each input that is assigned, with its new value; folded updates apart."""
        names = dict(zip(self.graph.inputs, self.graph.names, strict=True))
        shown = ((old, new) for old, new in self.graph.updates if not self._is_folded_update(new))
        return [(names[old], new) for old, new in shown]

    def outputs(self) -> dict[Value, str]:
        """What is returned, by the value that is drawn, and how to name it: `outputs 1, 7`."""
        positions: dict[Value, list[str]] = {}
        for i, v in enumerate(self.graph.outputs):
            positions.setdefault(self.source(v), []).append(str(i))
        if len(self.graph.outputs) == 1:
            return dict.fromkeys(positions, "output")
        return {
            v: f"output{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
            for v, numbers in positions.items()
        }

    def _links_copies(self, x: Value, reader: Value) -> bool:
        return self.folding.are_copies(self.place[x], self.place[reader])

    def _is_folded_update(self, value: Value) -> bool:
        return value in self.folding.stands and self.place[value][:1] == (UPDATE,)


def build_scene(
    graph: Graph,
    fold: bool = True,
    depth: int | None = None,
    views: bool = True,
    arguments: int | None = None,
) -> Scene:
    """The scene of a graph; the options are those of `to_dot`."""
    given = _arguments(graph, arguments)
    part = parts(graph)
    place = places(graph, part, given, depth)
    members = [v for v in values(graph) if place[v]]
    folding = fold_equal(members, place, part, UPDATE) if fold else Folding({}, {}, {})
    results = set(graph.results)
    inner = [v for v in graph.nodes if v not in results]
    hidden = frozenset(v for v in inner if not views and v.op.view is not None)
    written = frozenset(v for v in inner if not v.inputs)
    return Scene(graph, numbering(graph), part, place, folding, hidden, written, given)


def _arguments(graph: Graph, count: int | None) -> frozenset[Value]:
    if count is not None:
        return frozenset(graph.inputs[:count])
    named = zip(graph.inputs, graph.names, strict=True)
    return frozenset(v for v, name in named if not _is_captured(name))


def _is_captured(name: str) -> bool:
    """What a function reads beside its arguments is named by its path, or by a number."""
    return "." in name or name.startswith("captured")
