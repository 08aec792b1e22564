"""How long each buffer is needed, and which results may take the memory of an input.

A result is written over an input where the op allows it, the input dies there, has the result's
shape and layout, and nobody else looks at its memory. An update is written straight into the
storage it goes to where that was read for the last time before, and nothing can fail from there.

A region comes back to its first instruction for every tile: what it reads or leaves behind is
needed from there to its last, and only what stays inside has lifetimes within.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from numtape.ir.graph import Graph, Value
from numtape.runtime.layout import SMALL, Places, home, may_fail, offset
from numtape.runtime.tiles import Tiles


@dataclass(eq=False)
class Lifetimes:
    """Of memory and of what lies in it, by instruction indices.

    last         the last instruction that reads each root.
    owner        whose memory each root uses in the end.
    start, stop  from when to when an owner's memory is in use.
    tiles        the region within which an owner has memory for one tile only.
    """

    last: dict[Value, int]
    owner: dict[Value, Value] = field(default_factory=dict)
    start: dict[Value, int] = field(default_factory=dict)
    stop: dict[Value, int] = field(default_factory=dict)
    tiles: dict[Value, Tiles] = field(default_factory=dict)

    def nbytes(self, owner: Value) -> int:
        """Bytes of the memory that an owner has."""
        return self.tiles[owner].nbytes(owner) if owner in self.tiles else owner.nbytes


def lifetimes(
    graph: Graph,
    places: Places,
    order: Sequence[Value],
    first: int,
    stop: dict[Value, int],
    fixed: Sequence[Value],
    tilings: Sequence[Tiles] = (),
) -> Lifetimes:
    """Lifetimes under `order`, whose leading `first` instructions are the first tape.

    `stop` are the last reads of all; `fixed` live throughout.
    """
    end = len(order)
    lives = Lifetimes(last=stop)
    for position, value in enumerate(graph.inputs):
        late = graph.early is not None and position >= graph.early[0]
        root = home(value, places)  # of what lies end to end, the join
        _open(lives, root, first if late else -1, stop.get(root, -1))
    for value in fixed:
        _open(lives, value, -1, end)
    crossed = _crossed(places, tilings)
    at = {i: tiles for tiles in tilings for i in range(tiles.start, tiles.stop + 1)}
    failing = [at[i].stop if i in at else i for i in range(first) if may_fail(order[i])]
    safe = max(failing, default=-1) + 1
    updated = _in_storage(graph, places, order, stop, crossed, safe)
    for i, node in enumerate(order):
        if node in updated:
            lives.owner[node] = updated[node]
            continue
        last = stop.get(node, i)
        donors = list(_donors(node, i, places, lives, crossed))
        if i in at:
            donors = _in_region(donors, node, i, last, at[i], places, lives, crossed)
        if donors:
            lives.owner[node] = donors[0]
            lives.stop[donors[0]] = last
        else:
            _open(lives, node, i, last)
    _widen(lives, tilings, at)
    return lives


def _in_region(
    donors: Sequence[Value],
    node: Value,
    i: int,
    last: int,
    tiles: Tiles,
    places: Places,
    lives: Lifetimes,
    crossed: Mapping[Value, frozenset[Value]],
) -> list[Value]:
    """Donors from before the region first, whose memory is there for all tiles anyway.

    For what is read behind the region, also those whose rows nobody reads any more when the node
    comes to them.
    """
    before = [v for v in donors if lives.start[v] < tiles.start]
    if before or last <= tiles.stop:
        return before or list(donors)
    kept = {lives.owner.get(root) for root in crossed[node]}
    read = (_owner(places[v].root, lives) for member in tiles.nodes for v in member.inputs)
    free = (v for v in read if v is not None and not places[v].outside and v not in kept)
    done = (v for v in free if lives.start[v] < tiles.start <= lives.stop[v] < i)
    return [v for v in done if v.nbytes == node.nbytes] or list(donors)


def _widen(lives: Lifetimes, tilings: Sequence[Tiles], at: Mapping[int, Tiles]) -> None:
    """Lifetimes as the tiles of regions need them."""
    sharing: dict[Value, list[Value]] = {}
    for root, owner in lives.owner.items():
        sharing.setdefault(owner, []).append(root)
    for tiles in tilings:
        for owner in tiles.inside:
            if owner in lives.start and tiles.inside.issuperset(sharing[owner]):
                lives.tiles[owner] = tiles
    for owner in lives.start.keys() - lives.tiles.keys():
        start, stop = lives.start[owner], lives.stop[owner]
        lives.start[owner] = at[start].start if start in at else start
        lives.stop[owner] = at[stop].stop if stop in at else stop


def _crossed(places: Places, tilings: Sequence[Tiles]) -> dict[Value, frozenset[Value]]:
    """By member of a region: the roots that it reads otherwise than row by row.

    Overwritten by one tile, their old values would be missing to the next.
    """
    found: dict[Value, frozenset[Value]] = {}
    for tiles in tilings:
        roots = frozenset(
            root
            for node in tiles.nodes
            for v in node.inputs
            if (root := places[v].root) is not None and not _by_rows(v, root, node, tiles, places)
        )
        found |= dict.fromkeys(tiles.nodes, roots)
    return found


def _by_rows(value: Value, root: Value, node: Value, tiles: Tiles, places: Places) -> bool:
    """Whether each tile of the value is a tile of the memory of its root."""
    aligned = value.ndim == max(v.ndim for v in node.inputs)
    rows = value.shape[: len(tiles.rows)] == tiles.rows
    return aligned and rows and places[value].contiguous and value.nbytes == root.nbytes


def _open(lives: Lifetimes, value: Value, start: int, stop: int) -> None:
    lives.owner[value] = value
    lives.start[value] = start
    lives.stop[value] = max(start, stop)


def last_reads(
    graph: Graph, places: Places, order: Sequence[Value], first: int
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
    places: Places,
    order: Sequence[Value],
    stop: Mapping[Value, int],
    crossed: Mapping[Value, frozenset[Value]],
    safe: int,
) -> dict[Value, Value]:
    """What can be computed straight into storage that an update goes to.

    The update itself, and what it is written over, as far back as nobody reads the old value; not
    before the instruction `safe`, since an error must leave storage as it was.
    """
    made = {node: i for i, node in enumerate(order)}
    reads = last_reads(_without_results(graph), places, order, 0)
    found: dict[Value, Value] = {}
    for old, new in stored(graph, places):
        if new not in made or not places[old].contiguous or not places[old].writeable:
            continue
        last = reads.get(old, -1)
        node: Value | None = new
        while node is not None and node not in found and old not in crossed.get(node, ()):
            if made[node] < safe:
                break
            if last > made[node] or (last == made[node] and not _may_overwrite(node, old, places)):
                break
            found[node] = old
            if old.nbytes <= SMALL:  # what leads to it may come long before the other updates
                break
            node = _overwritten(node, made, stop, places)
    return found


def stored(graph: Graph, places: Places) -> Iterator[tuple[Value, Value]]:
    """Storage outside that takes one result as a whole, and the result.

    What lies end to end does where each part of it is given its part of the result.
    """
    parts: dict[Value, list[tuple[Value, Value]]] = {}
    for old, new in graph.updates:
        root = places[old].root
        if places[old].outside and root is old:
            yield old, new
        elif root is not old and root is not None:
            parts.setdefault(root, []).append((old, new))
    for root, pairs in parts.items():
        source = places[pairs[0][1]].root
        whole = sum(old.size for old, _ in pairs) == root.size
        if source is None or source.type[:2] != root.type[:2] or not whole:
            continue
        if all(_is_part(new, source, old, places) for old, new in pairs):
            yield root, source


def _is_part(new: Value, source: Value, old: Value, places: Places) -> bool:
    """Whether a value is that part of the source which goes to this part of storage."""
    place = places[new]
    same = place.root is source and place.contiguous
    return same and offset(new, places) == offset(old, places)


def _overwritten(
    node: Value,
    made: Mapping[Value, int],
    stop: Mapping[Value, int],
    places: Places,
) -> Value | None:
    """The result that dies at a node which may be written over it."""
    for position in node.op.inplace:
        v = node.inputs[position]
        if v in made and stop[v] == made[node] and _may_overwrite(node, v, places):
            return v
    return None


def _without_results(graph: Graph) -> Graph:
    return Graph(graph.name, graph.inputs, graph.names, graph.nodes, ())


def _may_overwrite(node: Value, root: Value, places: Places) -> bool:
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


def _donors(
    node: Value,
    at: int,
    places: Places,
    lives: Lifetimes,
    crossed: Mapping[Value, frozenset[Value]],
) -> Iterator[Value]:
    """The owners of input memory that the result can take."""
    kept = {lives.owner.get(root) for root in crossed.get(node, ())}
    for position in node.op.inplace:
        root = places[node.inputs[position]].root
        if root is None or root not in lives.owner:
            continue
        owner = lives.owner[root]
        if places[owner].outside or owner in kept or lives.stop[owner] != at:
            continue
        if _may_overwrite(node, root, places):
            yield owner


def _owner(root: Value | None, lives: Lifetimes) -> Value | None:
    return None if root is None else lives.owner.get(root)
