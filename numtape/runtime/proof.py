"""The proof that a plan overwrites nothing that is still needed.

The program is gone through kernel by kernel, and in regions tile by tile, with a map of the
memory that says of every byte which value was written there last. A read must find its own value.
What is known of lifetimes is not asked: only the order, the layouts and the offsets, which are
what the emitter writes out, so that a mistake in `lifetimes` or `arena` shows here.
"""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from numtape.ir.graph import Value, numbering
from numtape.ir.location import Located
from numtape.ir.text import columns
from numtape.runtime.layout import home
from numtape.runtime.plan import Plan
from numtape.runtime.tiles import Tiles

Writer = tuple[Value, int]  # a root, and the tile for which it was written (-1 for all)
ARENA, CONSTANTS = "arena", "constants"
HEADER = ("value", "op", "from", "to", "offset", "bytes", "line")


class OverwrittenError(Located, RuntimeError):
    """A plan under which a value that is still read is overwritten, or was never written.

    The message shows both live ranges; `clash` holds them.
    """

    def __init__(self, plan: Plan, clash: "Clash") -> None:
        self.clash = clash
        names = numbering(plan.graph)
        culprit = clash.writer
        what = (
            f"of which a part was never written when kernel {clash.at} reads it"
            if culprit is None
            else f"which kernel {clash.at} needs, shares memory with {names[culprit]}"
        )
        rows = _Ranges(plan).table([v for v in (clash.value, culprit) if v is not None])
        super().__init__(
            f"the plan of {plan.graph.name} is wrong: {names[clash.value]}, {what}\n"
            + "\n".join(rows)
            + "\nplease report this with the function; exact=True or other shapes may avoid it"
        )


class Clash(NamedTuple):
    """A value of which a byte is lost when kernel `at` needs it; what was written over it."""

    value: Value
    writer: Value | None
    at: int


def prove(plan: Plan) -> Plan:
    """The plan itself, or `OverwrittenError` that shows the first clash."""
    clash = next(clashes(plan), None)
    if clash is not None:
        raise OverwrittenError(plan, clash)
    return plan


def clashes(plan: Plan) -> Iterator[Clash]:
    """Every read that does not find its value, in the order of the program."""
    return _Proof(plan).run()


class _Map:
    """Which value each byte of one space holds: stretches that do not overlap, in order."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.stretches: list[tuple[int, Writer]] = []  # where each ends, and who wrote it

    def write(self, low: int, high: int, writer: Writer) -> None:
        if low >= high:
            return
        i, j = self._touched(low, high)
        kept = []
        for start, (stop, other) in zip(self.starts[i:j], self.stretches[i:j], strict=True):
            kept += [(start, low, other)] if start < low else []
            kept += [(high, stop, other)] if stop > high else []
        made = sorted([*kept, (low, high, writer)], key=lambda s: s[0])
        self.starts[i:j] = [start for start, _, _ in made]
        self.stretches[i:j] = [(stop, who) for _, stop, who in made]

    def foreign(self, low: int, high: int, writer: Writer) -> tuple[bool, Value | None]:
        """Whether a byte from low to high is not the writer's, and whose it is."""
        if low >= high:
            return False, None
        i, j = self._touched(low, high)
        at = low
        for start, (stop, other) in zip(self.starts[i:j], self.stretches[i:j], strict=True):
            if start > at:
                return True, None
            if other[0] is not writer[0] or other[1] != writer[1]:
                return True, other[0]
            at = stop
        return at < high, None

    def _touched(self, low: int, high: int) -> tuple[int, int]:
        i = bisect_right(self.starts, low) - 1
        i += i < 0 or self.stretches[i][0] <= low
        return i, bisect_left(self.starts, high)


@dataclass(frozen=True)
class _Tile:
    """One tile: its number, and where it lies along the leading axes."""

    tiles: Tiles
    number: int
    starts: tuple[int, ...]

    def cut(self, array: np.ndarray, deepest: int) -> np.ndarray:
        """What the loop takes of an array beside others of at most `deepest` axes."""
        steps = (*(1,) * self.tiles.axis, self.tiles.step)
        ahead = deepest - array.ndim
        index = [
            slice(start, start + step) if array.shape[axis - ahead] > 1 else slice(None)
            for axis, (start, step) in enumerate(zip(self.starts, steps, strict=True))
            if axis >= ahead
        ]
        return array[(*index, ...)]  # with dots, what has no axes stays an array


def _tiles(tiles: Tiles) -> Iterator[_Tile]:
    steps = (*(1,) * tiles.axis, tiles.step)
    lengths = tiles.rows[: tiles.axis + 1]
    starts = itertools.product(*map(range, (0,) * len(lengths), lengths, steps))
    for number, start in enumerate(starts):
        yield _Tile(tiles, number, start)


class _Proof:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.maps: dict[object, _Map] = {}
        self.fixed = set(plan.fixed)
        self.tiled = {node: tiles for tiles in plan.tilings for node in tiles.nodes}
        self.held = plan.lives.tiles
        self.lows = {
            v: np.lib.array_utils.byte_bounds(place.prototype)[0]
            for v, place in plan.places.items()
            if place.root is v
        }

    def run(self) -> Iterator[Clash]:
        plan, graph = self.plan, self.plan.graph
        inputs, outputs = graph.early or (len(graph.inputs), len(graph.outputs))
        for value in (*graph.inputs[:inputs], *plan.fixed):
            self._write(value, None)
        yield from self._kernels(plan.order[: plan.first])
        yield from self._updates()
        yield from self._results(graph.outputs[:outputs], plan.first)
        for value in graph.inputs[inputs:]:
            self._write(value, None)
        yield from self._kernels(plan.order[plan.first :], plan.first)
        yield from self._results((*self.fixed, *graph.outputs[outputs:]), len(plan.order))

    def _kernels(self, nodes: Sequence[Value], at: int = 0) -> Iterator[Clash]:
        for tiles, group in itertools.groupby(nodes, self.tiled.get):
            part = tuple(group)
            for tile in (None,) if tiles is None else _tiles(tiles):
                for i, node in enumerate(part, at):
                    yield from self._kernel(node, i, tile)
            at += len(part)

    def _kernel(self, node: Value, at: int, tile: _Tile | None) -> Iterator[Clash]:
        for v in node.inputs:
            yield from self._read(v, at, tile, max(x.ndim for x in node.inputs))
        for position, v in enumerate(node.inputs):
            root = self.plan.places[v].root
            if root is not None and self._spoils(node, position, tile):
                yield Clash(root, node, at)
        self._write(node, tile)

    def _read(
        self, value: Value, at: int, tile: _Tile | None = None, deepest: int = 0
    ) -> Iterator[Clash]:
        root = self.plan.places[value].root
        if root is None:
            return
        space, low, high = self._stretch(value, tile, deepest)
        lost, culprit = self._map(space).foreign(low, high, self._writer(root, tile))
        if lost:
            yield Clash(root, culprit, at)

    def _results(self, values: Iterable[Value], at: int) -> Iterator[Clash]:
        for value in values:
            yield from self._read(value, at)

    def _updates(self) -> Iterator[Clash]:
        """The copies at the end of the first tape; storage then holds what it should."""
        plan = self.plan
        for old, new in plan.graph.updates:
            yield from self._read(new, plan.first)
            if old not in plan.direct:
                space, low, high = self._stretch(old, None, 0)
                self._map(space).write(low, high, (new, -1))

    def _spoils(self, node: Value, position: int, tile: _Tile | None) -> bool:
        """Whether the result is written over an input before the op has read it."""
        deepest = max(v.ndim for v in node.inputs)
        value = node.inputs[position]
        place = self.plan.places[value]
        space, low, high = self._stretch(value, tile, deepest)
        other, start, stop = self._stretch(node, tile, node.ndim)
        if space is not other or low >= stop or start >= high:
            return False
        op = node.op
        allowed = position in op.inplace or (op.entrywise and bool(op.inplace))
        same = (low, high) == (start, stop) and value.shape == node.shape
        return not (allowed and same and place.contiguous and value.dtype == node.dtype)

    def _write(self, node: Value, tile: _Tile | None) -> None:
        root = home(node, self.plan.places)
        space, low, high = self._stretch(node, tile, node.ndim)
        self._map(space).write(low, high, self._writer(root, tile))

    def _writer(self, root: Value, tile: _Tile | None) -> Writer:
        """What has memory for one tile is another value in the next."""
        held = self.plan.owner.get(root) in self.held
        return root, tile.number if held and tile is not None else -1

    def _stretch(self, value: Value, tile: _Tile | None, deepest: int) -> tuple[object, int, int]:
        """In which space a value lies and from where to where, or what a tile takes of it."""
        root, array = home(value, self.plan.places), self.plan.places[value].prototype
        owner = self.plan.owner.get(root, root)
        space, offset = self._space(owner)
        if owner in self.held:
            return space, offset, offset + self.held[owner].nbytes(root)
        if tile is not None:
            array = tile.cut(array, deepest)
        if not array.size:
            return space, offset, offset
        low, high = np.lib.array_utils.byte_bounds(array)
        start = self.lows[root]
        return space, offset + low - start, offset + high - start

    def _space(self, owner: Value) -> tuple[object, int]:
        if owner in self.fixed:
            return CONSTANTS, self.plan.offsets[owner]
        return (ARENA, self.plan.offsets[owner]) if owner in self.plan.offsets else (owner, 0)

    def _map(self, space: object) -> _Map:
        return self.maps.setdefault(space, _Map())


class _Ranges:
    """Live ranges as text, worked out from the order alone."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.names = plan, numbering(plan.graph)
        self.made = {v: i for i, v in enumerate(plan.order)}

    def table(self, values: Sequence[Value]) -> list[str]:
        rows = [HEADER, *map(self._row, values)]
        return [f"  {line}" for line in columns(rows, left=(0, 1, 6))]

    def _row(self, value: Value) -> tuple[str, ...]:
        plan, owner = self.plan, self.plan.owner.get(value, value)
        reads = [i for i, v in enumerate(plan.order) if self._reads(v.inputs, value)]
        made = self.made.get(value, -1)
        stop = "end" if self._reads(plan.graph.results, value) else str(max(reads, default=made))
        held = plan.lives.tiles.get(owner)
        nbytes = value.nbytes if held is None else held.nbytes(value)
        return (
            f"{self.names[value]}: {value.type}",
            value.op.name,
            "start" if made < 0 else str(made),
            stop,
            f"{plan.offsets[owner]:,}" if owner in plan.offsets else "outside",
            f"{nbytes:,}",
            str(value.origin),
        )

    def _reads(self, inputs: Sequence[Value], root: Value) -> bool:
        return any(self.plan.places[v].root is root for v in inputs)
