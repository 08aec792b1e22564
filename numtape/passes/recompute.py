"""Recompute or keep: what is read again much later is computed again, to hold fewer bytes. Exact.

A step holds the most memory where its reverse part begins. What is held there can be dropped, and
computed again by the same kernels from the same inputs right in front of its next reader. What to
drop is the cheapest cut of a network: each value either has its bytes held, at a price, or its
node runs again, which wants its inputs in turn. A higher price drops more.

Bytes are counted here from the order of nodes, since passes know nothing of plans and a count
takes a tenth of the time of a plan. A count is near the size of the arena, not equal to it: who
sees the plan asks again for as much more or less as the count was off.
"""

import math
from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from numtape.ir.effort import effort
from numtape.ir.graph import INPUT, Graph, Value, independent
from numtape.ir.location import Origin
from numtape.ir.ops.shapes import concatenate_op
from numtape.passes.cuts import Edge, reachable
from numtape.passes.fusion import is_view
from numtape.passes.rewrite import without_dead_nodes

SMALLEST = 1000  # what has a smaller part of the most bytes is always kept
PATIENCE = 4  # prices that may rise in vain
PARTS = 4  # of what is dropped, of which the first may be kept
ROUNDS = 8  # cuts one after the other, each at the peak that the last has left


def recompute(graph: Graph, nbytes: int) -> Graph:
    """The cheapest graph with at most `nbytes` of results in use at once, by count.

    Where none is found, the one with the fewest. What is given from outside, and what updates it,
    is not counted.
    """
    whole = _Counted(graph)
    if whole.peak <= nbytes:
        return graph
    split, best, price, misses = _Split(whole), whole, 0.0, 0
    for choice in split.choices():
        found = split.lowered(choice.dropped, nbytes)
        if found.peak <= nbytes:
            return found.graph
        misses += 1
        if found.peak < best.peak:
            best, price, misses = found, choice.price, 0
        if misses == PATIENCE:  # so much runs again that it is in its own way
            break
    return _lowered(best, price, nbytes).graph


def _lowered(counted: "_Counted", price: float, nbytes: int) -> "_Counted":
    """The graph with further cuts at its new peaks, as long as that helps and is needed."""
    for _ in range(ROUNDS):
        if counted.peak <= nbytes:
            break
        split = _Split(counted)
        after = split.lowered(split.best(price).dropped, nbytes)
        if after.peak >= counted.peak:
            break
        counted = after
    return counted


class _Counted:
    """A graph with the bytes of results in use at its nodes: the most, and where that is."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.root = roots(graph)
        self.fixed = independent(graph)
        in_use = self._in_use()
        self.peak = int(in_use.max(initial=0))
        self.at = int(in_use.argmax()) if in_use.size else 0

    def _in_use(self) -> np.ndarray:
        made = {v: i for i, v in enumerate(self.graph.nodes)}
        last = self._last_reads(made)
        change = np.zeros(len(made) + 2, np.int64)
        for v, stop in last.items():
            donors = (self.root[v.inputs[p]] for p in v.op.inplace)
            over = any(last.get(u) == made[v] and u.nbytes == v.nbytes for u in donors)
            change[made[v] + over] += v.nbytes
            change[stop + 1] -= v.nbytes
        return np.cumsum(change)[: len(made)]

    def _last_reads(self, made: dict[Value, int]) -> dict[Value, int]:
        """Where each result that needs memory is read last, in the order of nodes."""
        outside = self.fixed | {self.root[new] for _, new in self.graph.updates}
        outside |= set(filter(self._joins_inputs, made))
        last = {v: i for v, i in made.items() if self.root[v] is v and v not in outside}
        for i, node in enumerate(self.graph.nodes):
            last |= {self.root[v]: i for v in node.inputs if self.root[v] in last}
        return last | {self.root[v]: len(made) for v in self.graph.outputs if self.root[v] in last}

    def _joins_inputs(self, v: Value) -> bool:
        """Whether it joins parameters, which as a rule lie end to end, so that it is no copy."""
        return v.op is concatenate_op and all(self.root[x].op is INPUT for x in v.inputs)


@dataclass(frozen=True)
class _Choice:
    """What to drop, best where a byte is worth so many seconds; the bytes still held then."""

    price: float
    dropped: set[Value]
    held: int

    @property
    def seconds(self) -> float:
        return effort(self.dropped)


class _Split:
    """A graph parted at its peak: what the early part computes for the late one.

    first   where the late part reads each result of the early part that can be computed again.
    """

    def __init__(self, counted: _Counted) -> None:
        self.counted = counted
        self.graph, self.at, self.root = counted.graph, counted.at, counted.root
        results = {self.root[v] for v in self.graph.results}
        self.able = {
            v
            for v in self.graph.nodes[: self.at]
            if self.root[v] is v
            and SMALLEST * v.nbytes >= counted.peak
            # Integers are indices, whose checks come first, or states of random numbers.
            and v.dtype.kind not in "iu"
        } - (results | counted.fixed)
        self.first: dict[Value, int] = {}
        for i, node in enumerate(self.graph.nodes[self.at :], self.at):
            for v in self._able_inputs(node):
                self.first.setdefault(v, i)
        self.needed = self._needed()

    def _able_inputs(self, node: Value) -> list[Value]:
        return [u for u in (self.root[v] for v in node.inputs) if u in self.able]

    def _needed(self) -> dict[Value, list[Value]]:
        """What the late part reads or would have to compute again, with the inputs of each."""
        found: dict[Value, list[Value]] = {}
        pending = list(self.first)
        while pending:
            v = pending.pop()
            if v not in found:
                found[v] = self._able_inputs(v)
                pending += found[v]
        return found

    def choices(self) -> Iterator[_Choice]:
        """All that may be best to drop, from the least to the most.

        Each is best for some range of prices; at the price where two of them cost the same, only
        one that lies between can be better (Eisner and Severance, 1976).
        """
        if not self.first:  # nothing is held that could be computed again
            return
        nothing = _Choice(0.0, set(), sum(v.nbytes for v in self.first))
        everything = _Choice(math.inf, set(self.needed), 0)
        yield from self._between(nothing, everything)
        yield everything

    def _between(self, low: _Choice, high: _Choice) -> Iterator[_Choice]:
        price = (high.seconds - low.seconds) / (low.held - high.held)
        middle = self.best(price)
        if low.held > middle.held > high.held:
            yield from self._between(low, middle)
            yield middle
            yield from self._between(middle, high)

    def best(self, price: float) -> _Choice:
        """What to drop where holding a byte costs so many seconds.

        Whoever is on the side of the source is at hand late (`False`), or computed again (`True`).
        """
        edges: list[Edge] = []
        for v, inputs in self.needed.items():
            edges.append(((v, False), (v, True), price * v.nbytes))
            edges.append(((v, True), "sink", effort([v])))
            edges += [((v, True), (u, False), math.inf) for u in inputs]
        edges += [("source", (v, False), math.inf) for v in self.first]
        side = reachable(edges, "source", "sink")
        dropped = {v for v in self.needed if (v, True) in side}
        at_hand = {v for v in self.needed if (v, False) in side}
        return _Choice(price, dropped, sum(v.nbytes for v in at_hand - dropped))

    def lowered(self, dropped: set[Value], nbytes: int) -> _Counted:
        """The graph without what is dropped, but for what is read first: that is kept as far as
        the rest fits, or else as is best for the peak."""
        starts = sorted({self.first.get(v, self.at) for v in dropped})
        step = -(-len(starts) // PARTS)
        tried: list[_Counted] = []
        for i in reversed(range(0, len(starts), step or 1)):
            tried.append(self._from(dropped, starts[i]))
            if tried[-1].peak <= nbytes:
                return self._latest(dropped, starts[i : i + step], nbytes)
        return min(tried, key=lambda counted: counted.peak, default=self.counted)

    def _latest(self, dropped: set[Value], starts: list[int], nbytes: int) -> _Counted:
        """The graph that fits with as little recomputed as may be; all does from the first."""

        def too_large(start: int) -> bool:
            return self._from(dropped, start).peak > nbytes

        return self._from(dropped, starts[bisect_left(starts[1:], True, key=too_large)])

    def _from(self, dropped: set[Value], start: int) -> _Counted:
        """The graph that computes again what is dropped and not read before `start`."""
        again = {v for v in dropped if self.first.get(v, start) >= start}
        return _Counted(Renewal(self.graph, self.root, again, start).graph())


class Renewal:
    """A graph whose nodes behind `start` read new copies of what is to be computed `again`.

    `root` is what each value looks at in the end.
    """

    def __init__(
        self, graph: Graph, root: Mapping[Value, Value], again: Container[Value], start: int
    ) -> None:
        self.old, self.root, self.again, self.start = graph, root, again, start
        self.nodes = list(graph.nodes[:start])
        self.new: dict[Value, Value] = {}

    def graph(self) -> Graph:
        for node in self.old.nodes[self.start :]:
            self._add(node, node.origin)
        old = self.old
        outputs = tuple(self.new.get(v, v) for v in old.outputs)
        updates = tuple((into, self.new.get(v, v)) for into, v in old.updates)
        whole = replace(old, nodes=tuple(self.nodes), outputs=outputs, updates=updates)
        return without_dead_nodes(whole)

    def _add(self, node: Value, origin: Origin) -> None:
        inputs = tuple(self._late(v, origin.reverse) for v in node.inputs)
        self.new[node] = Value(node.op, inputs, node.attrs, node.type, origin)
        self.nodes.append(self.new[node])

    def _late(self, value: Value, reverse: bool) -> Value:
        """The value as late nodes read it, computed right here where that is new."""
        if value not in self.new and self.root[value] in self.again:
            self._add(value, value.origin._replace(reverse=reverse))
        return self.new.get(value, value)


def roots(graph: Graph) -> dict[Value, Value]:
    """What each value looks at in the end."""
    found = {v: v for v in graph.inputs}
    for v in graph.nodes:
        found[v] = found[v.inputs[0]] if is_view(v) else v
    return found
