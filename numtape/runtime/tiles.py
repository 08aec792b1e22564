"""How a region runs: which tiles its rows are cut into, and what then needs memory for one only.

A tile is one place along each leading axis, and a stretch of the next. Small tiles stay in the
cache together; each costs a call for every node. Measured on whole training steps with 512 KB of
second-level cache to a core: tiles of 256 KB take 0.93 of the time of tiles of 128 KB at width 512
and 0.99 at width 128, tiles of 64 KB 1.03; chains of less than 2 MB are as fast or faster whole.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from numtape.ir.graph import Graph, Region, Value, divisible
from numtape.ir.types import Shape

TILE = 256 * 1024  # bytes of the widest member's part


@dataclass(frozen=True, eq=False)
class Tiles:
    """A region in the order of instructions, and its tiles.

    start, stop  its first and last instruction.
    axis, step   a tile spans `step` of this axis of the rows, one of each before, all behind.
    inside       what only its own nodes read: it needs memory for one tile.
    """

    nodes: tuple[Value, ...]
    rows: Shape
    start: int
    stop: int
    axis: int
    step: int
    inside: frozenset[Value]

    @property
    def count(self) -> int:
        """The number of tiles."""
        return math.prod(self.rows[: self.axis]) * (self.rows[self.axis] // self.step)

    def shape(self, shape: Shape) -> Shape:
        """The shape of one tile of what has the given shape, whose leading axes are the rows."""
        ahead = (1,) * self.axis
        return (*ahead, self.step, *shape[self.axis + 1 :])

    def attrs(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes of a view, for one tile of what it looks at."""
        found = dict(attrs)
        if "shape" in attrs:
            found["shape"] = self.shape(attrs["shape"])
        if "bounds" in attrs:
            ahead = tuple((0, n, 1) for n in self.shape(self.rows)[: self.axis + 1])
            found["bounds"] = (*ahead, *attrs["bounds"][self.axis + 1 :])
        return found

    def nbytes(self, value: Value) -> int:
        """Bytes of one tile of a member's result."""
        return math.prod(self.shape(value.shape)) * value.dtype.itemsize


def tilings(
    graph: Graph, order: Sequence[Value], first: int, last: Mapping[Value, int]
) -> list[Tiles]:
    """The regions that are worth tiling, in order; none reaches over the end of the first tape.

    `last` gives the last instruction that reads each value's memory.
    """
    instructions = {v: i for i, v in enumerate(order)}
    found = []
    for region in graph.regions:
        for nodes, start in _stretches(region, order, instructions, first):
            cut = _cut(region.rows, nodes)
            if cut is not None:
                stop = start + len(nodes) - 1
                inside = frozenset(v for v in nodes if last.get(v, stop) <= stop)
                found.append(Tiles(nodes, region.rows, start, stop, *cut, inside))
    return sorted(found, key=lambda tiles: tiles.start)


def _stretches(
    region: Region, order: Sequence[Value], instructions: Mapping[Value, int], first: int
) -> Iterator[tuple[tuple[Value, ...], int]]:
    """The members that stand together in the order, with the place of the first."""
    at = sorted(instructions[v] for v in region.nodes if v in instructions)
    breaks = [k for k, (i, j) in enumerate(pairwise(at), 1) if j != i + 1 or j == first]
    for a, b in pairwise((0, *breaks, len(at))):
        if b - a > 1:
            yield tuple(order[at[a] : at[b - 1] + 1]), at[a]


def _cut(rows: Shape, nodes: Sequence[Value]) -> tuple[int, int] | None:
    """The axis and the step of tiles of about the wanted size; None where one would do."""
    able = divisible(rows, max(v.ndim for v in nodes))
    wanted = TILE * math.prod(able) // max(v.nbytes for v in nodes)
    axis = len(able) - 1
    while axis > 0 and wanted >= able[axis]:
        wanted //= able[axis]
        axis -= 1
    length = able[axis]
    step = max((n for n in range(1, min(wanted, length) + 1) if length % n == 0), default=1)
    # A length without fitting divisors would give tiles so small that the calls cost more.
    one = step == math.prod(able[: axis + 1])
    if one or 8 * step < min(wanted, length):
        return None
    return axis, step
