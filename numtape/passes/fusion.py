"""Fusion into row tiles: chains over the same rows run together, a tile of rows at a time. Exact.

A chain of elementwise operations, sums along the last axis and stacked products is limited by the
memory that its results go through. Tile by tile they stay in the cache, and a result that nobody
else reads needs memory for one tile only. Each row is computed as before, so no bit changes.

The pass groups nodes and orders them so that a group stands together; what a group becomes is the
runtime's business.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from numtape.ir.graph import Graph, Region, Value, divisible, first_part, independent, root_of
from numtape.ir.ops.dense import dense
from numtape.ir.ops.parts import unmoved
from numtape.ir.ops.shapes import reshape_op
from numtape.ir.types import Shape

SMALLEST = 2 * 1024 * 1024  # bytes: chains of smaller results stay in the cache by themselves
WIDEST = 512 * 1024  # bytes of one row, which is the least that a tile can be
WINDOW = 48  # nodes that may be passed over in the search for members
REACH = 128  # nodes to which the search goes: many of one shape may have nothing else in common

SUMMED = 64  # times smaller than what it reads is a sum over rows


def fusion(graph: Graph) -> Graph:
    """The graph with its chains grouped into regions."""
    first = first_part(graph, graph.nodes)
    fixed = independent(graph)  # computed once, when a tape is bound
    early, late = (_Fuser(part, fixed) for part in (graph.nodes[:first], graph.nodes[first:]))
    return replace(
        graph,
        nodes=(*early.nodes, *late.nodes),
        regions=(*early.regions, *late.regions),
    )


class _Fuser:
    """Groups one stretch of nodes; `nodes` is their new order."""

    def __init__(self, nodes: Sequence[Value], fixed: set[Value]) -> None:
        self.given = nodes
        self.nodes: list[Value] = []
        self.regions: list[Region] = []
        self.pending = set(nodes)
        self.views = {v for v in nodes if v in fixed or is_view(v)}
        self.able = {v: v.rows for v in nodes if v not in self.views and _joins(v)}
        self.reads = {v: [root_of(x) for x in v.inputs] for v in nodes}
        self.small: set[Value] = set()  # what no region is worth beginning with
        if max((v.nbytes for v in self.able), default=0) < SMALLEST:
            self.able.clear()
        for position, node in enumerate(nodes):
            if node in self.pending:
                self._take(node, position)

    def _take(self, head: Value, position: int) -> None:
        """Order the first pending node, with all that can join it."""
        begins = head in self.able and head not in self.small
        found = self._grown(head, position) if begins else None
        if found is not None:
            self.regions.append(Region(tuple(found.work), found.rows))
        for node in [head] if found is None else found.nodes:
            self.pending.discard(node)
            self.nodes.append(node)

    def _grown(self, head: Value, position: int) -> "_Members | None":
        """The region that begins at a node, or None where it is not worth one."""
        found, passed = _Members(self.pending, self.reads), 0
        for node in self.given[position : position + REACH]:
            if node not in self.pending:
                continue
            if node in self.views:
                found.offer_view(node)
            elif node in self.able and found.offer(node, self.able[node]):
                continue
            elif node is head or found.feeds(node) or passed == WINDOW:
                break
            else:
                passed += 1
        if not found.work:
            return None
        found.keep_connected(head)
        if len(found.work) > 1 and max(v.nbytes for v in found.work) >= SMALLEST:
            return found
        self.small.update(found.work)
        return None


class _Members:
    """A region that grows. `nodes` holds the views between its members as well."""

    def __init__(self, pending: set[Value], reads: Mapping[Value, list[Value]]) -> None:
        self.pending = pending
        self.reads = reads  # of each node, the roots of its inputs
        self.nodes: dict[Value, None] = {}
        self.work: dict[Value, None] = {}
        self.rows: Shape = ()
        self.largest = self.deepest = 0  # bytes and axes of members

    def offer_view(self, node: Value) -> None:
        """A view goes with what it looks at."""
        if self._ready(node):
            self.nodes[node] = None

    def offer(self, node: Value, rows: Shape) -> bool:
        """Take the node in if its inputs are known and it shares rows with the others."""
        if self.work and rows != self.rows:
            rows = self.rows[: unmoved(self.rows, rows)]
        if not (rows and self._ready(node) and self._follows(node, rows)):
            return False
        row = rows, max(self.largest, node.nbytes), max(self.deepest, node.ndim)
        if row != (self.rows, self.largest, self.deepest) and _too_wide(*row):
            return False
        self.rows, self.largest, self.deepest = row
        self.nodes[node] = None
        self.work[node] = None
        return True

    def keep_connected(self, head: Value) -> None:
        """Let go of what has nothing in common with the head but its shape."""
        readers: dict[Value, list[Value]] = {}
        for node in self.work:
            for v, root in zip(node.inputs, self.reads[node], strict=True):
                if v.nbytes >= node.nbytes:  # what tiles share is small, and connects nobody
                    readers.setdefault(root, []).append(node)
        kept: set[Value] = set()
        reached = [head]
        while reached:
            node = reached.pop()
            if node in self.work and node not in kept:
                kept.add(node)
                roots = self.reads[node]
                reached += roots
                for v in (node, *roots):
                    reached += readers.get(v, ())
        dropped = self.work.keys() - kept
        if dropped:
            self.nodes = {v: None for v in self.nodes if root_of(v) not in dropped}
            self.work = {v: None for v in self.work if v in kept}

    def feeds(self, node: Value) -> bool:
        """Whether the node reads a member's result, other than to add it up: that can wait."""
        sums = node.nbytes * SUMMED <= self.largest
        return not (sums or self.work.keys().isdisjoint(self.reads[node]))

    def _ready(self, node: Value) -> bool:
        return self.nodes.keys() >= self.pending.intersection(node.inputs)

    def _follows(self, node: Value, rows: Shape) -> bool:
        roots = self.reads[node]
        if self.work.keys().isdisjoint(roots):
            return True
        deepest = max([v.ndim for v in node.inputs])
        inputs = zip(node.inputs, roots, strict=True)
        return all(_aligned(v, rows, deepest) for v, root in inputs if root in self.work)


def _too_wide(rows: Shape, largest: int, deepest: int) -> bool:
    """Whether one row, of so many bytes and axes in all, is more than a tile may be."""
    return largest > WIDEST * math.prod(divisible(rows, deepest))


def _joins(node: Value) -> bool:
    """Whether a node can be computed row by row, and gains from it."""
    if node.op.view is not None or not node.rows:
        return False
    return all(v.dtype.kind in "fb" for v in (node, *node.inputs))


def _aligned(value: Value, rows: Shape, deepest: int) -> bool:
    """Whether a member's result has its rows where a reader of so many axes looks for them."""
    if value.ndim != deepest:
        return False
    while value.op.view is not None:
        if value.rows[: len(rows)] != rows:
            return False
        (value,) = value.inputs
    return True


def is_view(node: Value) -> bool:
    """Whether the node is a view, unless storage from outside has strides that forbid it.

    The runtime knows, and leaves a copy between the nodes of two regions.
    """
    if node.op is not reshape_op:
        return node.op.view is not None and node.op is not dense
    (x,) = node.inputs
    return _is_dense(x) or _splits(x.shape, node.shape)


def _is_dense(value: Value) -> bool:
    while value.op is reshape_op:
        (value,) = value.inputs
    return value.op.view is None


def _splits(before: Shape, after: Shape) -> bool:
    """Whether each axis before is one or several of those after."""
    rest = list(after)
    for length in before:
        while length != 1 and rest and rest[0] and length % rest[0] == 0:
            length //= rest.pop(0)
        if length != 1:
            return False
    return True
