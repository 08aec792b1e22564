"""The smallest graph that still shows a mistake.

First a window round each node, with everything further away given as arrays; then, from the first
window that shows the mistake or else from the whole graph, outputs are cut to single values and
computed values are replaced by given ones, many at once and then one by one, until no step that
makes the graph smaller leaves the mistake in it ("Simplifying and isolating failure-inducing
input", Zeller and Hildebrandt, 2002).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from numtape.checking.reference import values
from numtape.ir.graph import INPUT, Graph, Value, ancestors
from numtape.ir.location import Origin

RADII = (0, 1, 2, 3, 5, 8)  # of windows: how many steps back from their output
LITERAL = 16  # entries of arrays that are written out rather than drawn


@dataclass(frozen=True, eq=False)
class Case:
    """A graph with arrays for its inputs; `drawn` are those that `seeded` gives too."""

    graph: Graph
    inputs: Sequence[np.ndarray]
    drawn: frozenset[int] = frozenset()


Shows = Callable[[Case], bool]


def smallest(case: Case, shows: Shows) -> Case:
    """The smallest case found, itself if there is no smaller one."""
    found = next(filter(shows, _windows(case)), None)
    if found is None:
        found = next(filter(shows, _plain(case)), None)
    if found is None:  # it takes the updates, or both tapes
        return case
    return _with_drawn_inputs(_minimal(found, shows), shows)


def seeded(number: int, like: np.ndarray) -> np.ndarray | None:
    """An array drawn in place of one: floats as the normal distribution has them."""
    rng = np.random.default_rng(number)
    return rng.normal(size=like.shape).astype(like.dtype) if like.dtype.kind == "f" else None


def _windows(case: Case) -> Iterator[Case]:
    """By size: each node with those from which it is computed in so many steps."""
    known = values(case.graph, case.inputs)
    work = [v for v in case.graph.nodes if not v.is_constant]
    for radius in RADII:
        for node in work:
            near = _near(node, radius)
            yield _cut(case.graph, known, (node,), {v for v in work if v not in near})


def _near(node: Value, radius: int) -> set[Value]:
    found = edge = {node}
    for _ in range(radius):
        edge = {v for e in edge for v in e.inputs} - found
        found = found | edge
    return found


def _plain(case: Case) -> Iterator[Case]:
    """The whole graph for each result alone, then for all, as one tape without updates."""
    known = values(case.graph, case.inputs)
    for results in (*((v,) for v in case.graph.results), case.graph.results):
        yield _cut(case.graph, known, results, ())


def _minimal(case: Case, shows: Shows) -> Case:
    """A case of which no single step of reduction shows the mistake."""
    while (smaller := next(filter(shows, _smaller(case)), None)) is not None:
        case = smaller
    return case


def _smaller(case: Case) -> Iterator[Case]:
    graph, known = case.graph, values(case.graph, case.inputs)
    work = [v for v in graph.nodes if not v.is_constant]
    if len(graph.outputs) > 1:
        yield from (_cut(graph, known, (v,), ()) for v in dict.fromkeys(graph.outputs))
    results = set(graph.outputs)
    inner = [v for v in work if v not in results]
    yield from (_cut(graph, known, (v,), ()) for v in inner)
    size = len(inner)
    while size:
        for at in range(0, len(inner), size):
            yield _cut(graph, known, graph.outputs, inner[at : at + size])
        size //= 2


def _cut(
    graph: Graph,
    known: dict[Value, np.ndarray],
    outputs: Sequence[Value],
    given: Collection[Value],
) -> Case:
    """What is left for these outputs where other values are given as arrays."""
    given = set(given)
    needed = ancestors(outputs, given)
    made: dict[Value, Value] = {}
    inputs, names, arrays, nodes = [], [], [], []
    titles = dict(zip(graph.inputs, graph.names, strict=True))
    for v in (v for v in (*graph.inputs, *graph.nodes) if v in needed):
        if v in given or v in titles:
            made[v] = Value(INPUT, (), {}, v.type, Origin()) if v in given else v
            inputs.append(made[v])
            names.append(titles.get(v, f"given{len(inputs)}"))
            arrays.append(known[v])
        else:
            made[v] = v.on(tuple(made[x] for x in v.inputs)) if v.inputs else v
            nodes.append(made[v])
    results = tuple(made[v] for v in outputs)
    return Case(Graph(graph.name, tuple(inputs), tuple(names), tuple(nodes), results), arrays)


def _with_drawn_inputs(case: Case, shows: Shows) -> Case:
    """Large arrays drawn anew, where they show the mistake as well."""
    for i, array in enumerate(case.inputs):
        other = seeded(i, array) if array.size > LITERAL else None
        if other is not None:
            inputs = [*case.inputs[:i], other, *case.inputs[i + 1 :]]
            trial = replace(case, inputs=inputs, drawn=case.drawn | {i})
            case = trial if shows(trial) else case
    return case
