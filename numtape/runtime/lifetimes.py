"""How long each buffer is needed, and which results may take the memory of an input.

A result is written over an input where the op allows it, the input dies there, has the result's
shape and layout, and nobody else looks at its memory. An update is written straight into the
storage it goes to where that was read for the last time before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from numtape.ir.graph import Graph, Value
from numtape.runtime.layout import Place


@dataclass(eq=False)
class Lifetimes:
    """Of memory and of what lies in it, by instruction indices.

    last         the last instruction that reads each root.
    owner        whose memory each root uses in the end.
    start, stop  from when to when an owner's memory is in use.
    """

    last: dict[Value, int]
    owner: dict[Value, Value] = field(default_factory=dict)
    start: dict[Value, int] = field(default_factory=dict)
    stop: dict[Value, int] = field(default_factory=dict)


def lifetimes(
    graph: Graph,
    places: Mapping[Value, Place],
    order: Sequence[Value],
    first: int,
    fixed: Sequence[Value],
    outside: Mapping[Value, object],
) -> Lifetimes:
    """Lifetimes under `order`, whose leading `first` instructions are the first tape.

    `fixed` live throughout; `outside` are inputs whose memory is not the arena's.
    """
    end = len(order)
    stop = _last_reads(graph, places, order, first)
    lives = Lifetimes(last=stop)
    for position, value in enumerate(graph.inputs):
        late = graph.early is not None and position >= graph.early[0]
        _open(lives, value, first if late else -1, stop.get(value, -1))
    for value in fixed:
        _open(lives, value, -1, end)
    updated = _in_storage(graph, places, order, stop, outside)
    for i, node in enumerate(order):
        if node in updated:
            lives.owner[node] = updated[node]
            continue
        donor = _donor(node, i, places, lives, outside)
        last = stop.get(node, i)
        if donor is None:
            _open(lives, node, i, last)
        else:
            lives.owner[node] = donor
            lives.stop[donor] = last
    return lives


def _open(lives: Lifetimes, value: Value, start: int, stop: int) -> None:
    lives.owner[value] = value
    lives.start[value] = start
    lives.stop[value] = max(start, stop)


def _last_reads(
    graph: Graph, places: Mapping[Value, Place], order: Sequence[Value], first: int
) -> dict[Value, int]:
    """The last instruction that reads each root; results are read after the last instruction."""
    stop: dict[Value, int] = {}
    for i, node in enumerate(order):
        for v in node.inputs:
            root = places[v].root
            if root is not None:
                stop[root] = i
    early = graph.early[1] if graph.early else 0
    for position, v in enumerate(graph.results):
        root = places[v].root
        if root is not None:
            is_early = position < early or (early and position >= len(graph.outputs))
            read = first if is_early else len(order)
            stop[root] = max(stop.get(root, -1), read)
    return stop


def _in_storage(
    graph: Graph,
    places: Mapping[Value, Place],
    order: Sequence[Value],
    stop: Mapping[Value, int],
    outside: Mapping[Value, object],
) -> dict[Value, Value]:
    """Updates that can be computed straight into the storage of the input they update."""
    made = {node: i for i, node in enumerate(order)}
    reads = _last_reads(_without_results(graph), places, order, 0)
    found: dict[Value, Value] = {}
    # Storage whose old value is itself a result must keep it to the end.
    taken = {places[v].root for v in graph.results}
    for old, new in graph.updates:
        if old not in outside or new not in made or new in found or old in taken:
            continue
        if not places[old].contiguous or not places[old].prototype.flags.writeable:
            continue
        last, at = reads.get(old, -1), made[new]
        if last < at or (last == at and _may_overwrite(new, old, places)):
            found[new] = old
    return found


def _without_results(graph: Graph) -> Graph:
    return Graph(graph.name, graph.inputs, graph.names, graph.nodes, ())


def _may_overwrite(node: Value, root: Value, places: Mapping[Value, Place]) -> bool:
    """Whether the op may write its result over `root`, which it reads."""
    for position, v in enumerate(node.inputs):
        if places[v].root is not root:
            continue
        if not places[v].contiguous or v.shape != node.shape or v.dtype != node.dtype:
            return False
        if places[v].prototype.nbytes != root.nbytes:
            return False
        # Another input with the same memory is harmless where the op goes entry by entry.
        if position not in node.op.inplace and not node.op.entrywise:
            return False
    return any(places[node.inputs[p]].root is root for p in node.op.inplace)


def _donor(
    node: Value,
    at: int,
    places: Mapping[Value, Place],
    lives: Lifetimes,
    outside: Mapping[Value, object],
) -> Value | None:
    """The owner of the input memory that the result can take."""
    for position in node.op.inplace:
        root = places[node.inputs[position]].root
        if root is None or root not in lives.owner:
            continue
        owner = lives.owner[root]
        if owner in outside or lives.stop[owner] != at or owner.nbytes != node.nbytes:
            continue
        shared = [v for v in node.inputs if _owner(places[v].root, lives) is owner]
        if all(places[v].root is root for v in shared) and _may_overwrite(node, root, places):
            return owner
    return None


def _owner(root: Value | None, lives: Lifetimes) -> Value | None:
    return None if root is None else lives.owner.get(root)
