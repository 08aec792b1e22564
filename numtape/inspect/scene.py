"""What a picture of a graph shows, before it is drawn: parts, boxes and folded repetitions.

Between `ir.Graph` and the two drawings, `operations` and `modules`: each value gets its part of
the step, the box it lies in and, where equal layers are folded, the value that stands for it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from numtape.inspect.folding import Folding, Path, fold_equal
from numtape.ir.graph import Graph, Value, numbering, users

FORWARD, REVERSE, UPDATE = "forward", "reverse", "update"
CAPTURED = "captured"  # how the tracer names what a function reads beside its arguments


@dataclass(frozen=True)
class Scene:
    """A graph with what a picture needs to know of it.

    names    `%7` for each value, as in the graph's text; a constant's name is its number.
    part     FORWARD, REVERSE (the gradient) or UPDATE (only new values of inputs need it).
    place    the nested boxes around a value, outermost first.
    folding  which boxes stand for others.
    hidden   views that are not drawn: their edges start at what they view.
    """

    graph: Graph
    names: dict[Value, str]
    part: dict[Value, str]
    place: dict[Value, Path]
    folding: Folding
    hidden: frozenset[Value]
    arguments: frozenset[Value]

    @property
    def values(self) -> list[Value]:
        """The values that are drawn, in the order of the program."""
        stands = self.folding.stands
        return [v for v in _values(self.graph) if v not in stands and v not in self.hidden]

    def source(self, value: Value) -> Value:
        """The drawn value (or constant) at which edges from `value` start."""
        while value in self.hidden:
            value = value.inputs[0]
        return self.folding.stands.get(value, value)

    def edges(self) -> Iterator[tuple[Value, Value]]:
        """Which drawn value is read by which, each pair once and none within a repetition."""
        seen: set[tuple[Value, Value]] = set()
        for reader in _values(self.graph):
            if reader in self.hidden or self._is_folded_update(reader):
                continue
            for x in reader.inputs:
                edge = (self.source(x), self.folding.stands.get(reader, reader))
                if not x.is_constant and edge not in seen and not self._links_copies(x, reader):
                    seen.add(edge)
                    yield edge

    def updates(self) -> list[tuple[str, Value]]:
        """The name of each input that is assigned, with its new value, folded ones apart."""
        names = dict(zip(self.graph.inputs, self.graph.names, strict=True))
        stands = self.folding.stands
        return [(names[old], new) for old, new in self.graph.updates if new not in stands]

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
    place = _places(graph, part, given, depth)
    members = [v for v in _values(graph) if place[v]]
    none = Folding({}, {}, {})
    folding = fold_equal(members, place, part, graph.results, UPDATE) if fold else none
    kept = set(graph.results)
    hidden = (v for v in graph.nodes if not views and v.op.view is not None and v not in kept)
    return Scene(graph, numbering(graph), part, place, folding, frozenset(hidden), given)


def _values(graph: Graph) -> Iterator[Value]:
    yield from graph.inputs
    yield from (v for v in graph.nodes if not v.is_constant)


def _arguments(graph: Graph, count: int | None) -> frozenset[Value]:
    if count is not None:
        return frozenset(graph.inputs[:count])
    named = zip(graph.inputs, graph.names, strict=True)
    return frozenset(v for v, name in named if not name.startswith(CAPTURED))


def parts(graph: Graph) -> dict[Value, str]:
    """The part of the step to which each value belongs."""
    readers = users(graph)
    outputs, assigned = set(graph.outputs), {new for _, new in graph.updates}
    found: dict[Value, str] = {}
    for v in reversed((*graph.inputs, *graph.nodes)):
        needed = bool(readers[v]) or v in assigned
        if v.origin.reverse:
            found[v] = REVERSE
        elif needed and v not in outputs and all(found[u] == UPDATE for u in readers[v]):
            found[v] = UPDATE
        else:
            found[v] = FORWARD
    return found


# ---- boxes --------------------------------------------------------------------------------


def split(module: str) -> Path:
    """`encoder.layers.0.attention` as `encoder`, `layers.0`, `attention`."""
    names: list[str] = []
    for name in filter(None, module.split(".")):
        if name.isdigit() and names:
            names[-1] += f".{name}"
        else:
            names.append(name)
    return tuple(names)


def _places(
    graph: Graph, part: dict[Value, str], arguments: frozenset[Value], depth: int | None
) -> dict[Value, Path]:
    groups = _update_groups(graph, part)
    found = {v: split(v.origin.module)[:depth] or groups.get(v, ()) for v in graph.nodes}
    readers = users(graph)
    for v in graph.inputs:
        near = [u for u in readers[v] if part[u] == part[v]] or readers[v]
        found[v] = () if v in arguments else _common(found[u] for u in near)
    return found


def _common(paths: Iterable[Path]) -> Path:
    columns = zip(*paths, strict=False)
    return tuple(names[0] for names in takewhile(lambda names: len(set(names)) == 1, columns))


def _update_groups(graph: Graph, part: dict[Value, str]) -> dict[Value, Path]:
    """A box for each parameter's update: what hangs together without the scalars all share."""
    leader: dict[Value, Value] = {}

    def lead(v: Value) -> Value:
        while leader[v] is not v:
            v = leader[v]
        return v

    updating = [v for v in _values(graph) if part[v] == UPDATE and not v.origin.module]
    for v in updating:
        leader[v] = v
        for x in v.inputs:
            if x in leader and x.shape and v.shape:
                leader[lead(x)] = v
    numbers: dict[Value, int] = {}
    return {
        v: (UPDATE, f"parameter.{numbers.setdefault(lead(v), len(numbers))}")
        if v.shape
        else (UPDATE,)
        for v in updating
    }
