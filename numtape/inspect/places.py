"""Where in a picture a value belongs: its part of the step and the nested boxes around it.

The first step from `ir.Graph` to a `Scene`. A box is a module, by the path under which the value
was recorded, with three corrections: sums of gradients, values that repeated layers share, and
the updates of parameters, which get boxes of their own.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile

from numtape.inspect.folding import Path, numbered
from numtape.ir.graph import Graph, Value, ancestors, users
from numtape.ir.ops.elementwise import add

FORWARD, REVERSE, UPDATE = "forward", "reverse", "update"


def values(graph: Graph) -> Iterator[Value]:
    """Inputs and nodes in the order of the program, constants apart."""
    yield from graph.inputs
    yield from (v for v in graph.nodes if not v.is_constant)


def parts(graph: Graph) -> dict[Value, str]:
    """The part of the step to which each value belongs.

    To the update belongs what only new values of inputs need, and no module with other work
    computes, as a random generator's next state.
    """
    live = ancestors(graph.results)
    found = _parts_by_use(graph, live)
    modules = {_box(v) for v in graph.nodes if v in live and found[v] != UPDATE}
    for v in graph.nodes:
        if found[v] != REVERSE and _box(v):
            found[v] = FORWARD if _box(v) in modules else UPDATE
    return found


def _box(v: Value) -> str:
    return v.origin.module.partition(".")[0]


def _parts_by_use(graph: Graph, live: set[Value]) -> dict[Value, str]:
    readers = {v: [u for u in found if u in live] for v, found in users(graph).items()}
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


def places(
    graph: Graph, part: Mapping[Value, str], arguments: frozenset[Value], depth: int | None
) -> dict[Value, Path]:
    """The boxes around each value, outermost first."""
    readers = users(graph)
    found = {v: split(v.origin.module)[:depth] for v in graph.nodes}
    for v in graph.nodes:
        if _is_sum_of_gradients(v, part):
            met, layer = _common(found[x] for x in v.inputs), _layer(found[v])
            if inside(met, layer) or not any(inside(found[u], layer) for u in readers[v]):
                found[v] = met
    found |= _update_groups(graph, part)
    for v in graph.inputs:
        near = [u for u in readers[v] if part[u] == part[v]] or readers[v]
        found[v] = () if v in arguments else _common(found[u] for u in near)
    return found | _shared(graph, found, readers)


def _is_sum_of_gradients(v: Value, part: Mapping[Value, str]) -> bool:
    """Such sums are recorded under whichever module comes last, and may belong to several."""
    return v.op is add and all(part[x] == REVERSE for x in (v, *v.inputs))


def _common(paths: Iterable[Path]) -> Path:
    columns = zip(*paths, strict=False)
    return tuple(names[0] for names in takewhile(lambda names: len(set(names)) == 1, columns))


def _shared(
    graph: Graph, place: Mapping[Value, Path], readers: Mapping[Value, list[Value]]
) -> dict[Value, Path]:
    """New places of what equal layers share: computed in one of them from nothing of its own.

    Common subexpressions, as a mask, are recorded in the first layer only, which would keep that
    layer from being equal to the others.
    """
    layer = {v: _layer(path) for v, path in place.items()}
    free: set[Value] = set()
    for v in graph.nodes:
        own = (x for x in v.inputs if not x.is_constant and inside(place[x], layer[v]))
        if layer[v] and all(x in free for x in own):
            free.add(v)
    found: dict[Value, Path] = {}
    for v in reversed(graph.nodes):
        if v in free and readers[v]:
            at = [found.get(u, place[u]) for u in readers[v]]
            beside = [p for p in at if not inside(p, layer[v])]
            spread = len(beside) < len(at) and any(_layer(p) for p in beside)
            if spread or all(u in found for u in readers[v]):
                found[v] = _common([layer[v][:-1], *at])
    return found


def _layer(path: Path) -> Path:
    """The outermost numbered box of a path: `encoder`, `layers.0`."""
    length = next((i for i, name in enumerate(path, 1) if numbered(name)), 0)
    return path[:length]


def inside(path: Path, box: Path) -> bool:
    return path[: len(box)] == box


def _update_groups(graph: Graph, part: Mapping[Value, str]) -> dict[Value, Path]:
    """A box for each parameter's update: what hangs together without the scalars all share."""
    updating = [v for v in values(graph) if part[v] == UPDATE]
    leader = _components(updating)
    numbers: dict[Value, int] = {}
    found: dict[Value, Path] = {}
    for v in updating:
        number = numbers.setdefault(leader[v], len(numbers)) if v.shape else None
        found[v] = (UPDATE,) if number is None else (UPDATE, f"parameter.{number}")
    return found


def _components(values: Iterable[Value]) -> dict[Value, Value]:
    """For each value one that stands for all that it hangs together with, scalars apart."""
    parent: dict[Value, Value] = {}

    def root(v: Value) -> Value:
        while parent[v] is not v:
            v = parent[v]
        return v

    for v in values:
        parent[v] = v
        for x in v.inputs:
            if x in parent and x.shape and v.shape:
                parent[root(x)] = v
    return {v: root(v) for v in parent}
