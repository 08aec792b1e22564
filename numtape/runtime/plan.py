"""The plan: order, memory and exact bytes, known before anything has run."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numtape.ir.graph import Graph, Value, first_part, numbering
from numtape.ir.memory import aligned
from numtape.ir.records import PassRecord, timed
from numtape.ir.text import columns
from numtape.runtime.arena import Slot, Span, pack
from numtape.runtime.joins import Joins, joins_outside
from numtape.runtime.layout import (
    Place,
    Places,
    checks_first,
    hoisted,
    is_work,
    layouts,
    updates_last,
)
from numtape.runtime.lifetimes import Lifetimes, last_reads, lifetimes
from numtape.runtime.memory import Memory, account
from numtape.runtime.tiles import Tiles, tilings


@dataclass(frozen=True, eq=False)
class Plan:
    """What the emitter needs to write a tape; printed, where every value lies and how long.

    outside   the inputs that are bound by reference.
    joins     what is no copy, since the values that it joins lie end to end in memory.
    fixed     nodes computed once, at binding.
    order     the nodes computed at replay; the leading `first` are the first tape's.
    commit    the first of these from which on storage is written, and nothing can fail.
    places    the memory of every value.
    lives     how long, and `owner`: the root whose memory each root uses in the end.
    tilings   the regions that run tile by tile.
    offsets   bytes from the start of the arena, for owners that live in it.
    direct    the inputs whose updates are computed straight into their storage.
    records   what each step of planning did, as for passes.
    """

    graph: Graph
    outside: tuple[Value, ...]
    joins: Joins
    fixed: tuple[Value, ...]
    order: tuple[Value, ...]
    first: int
    commit: int
    places: Mapping[Value, Place]
    lives: Lifetimes
    tilings: tuple[Tiles, ...]
    offsets: Mapping[Value, int]
    slots: tuple[Slot, ...]
    memory: Memory
    records: tuple[PassRecord, ...]

    @property
    def owner(self) -> Mapping[Value, Value]:
        return self.lives.owner

    @cached_property
    def direct(self) -> set[Value]:
        return {old for old, new in self.graph.updates if self._is_there(old, new)}

    def _is_there(self, old: Value, new: Value) -> bool:
        """Whether a new value is computed where it is stored."""
        place, root = self.places[old], self.places[new].root
        if root is None or self.owner.get(root) is not place.root:
            return False
        return self.places[new].prototype.strides == place.prototype.strides

    @property
    def read_late(self) -> set[Value]:
        """The inputs outside that the second of two tapes reads, or shows, where they are."""
        late = [v for node in self.order[self.first :] for v in node.inputs]
        if self.graph.early is not None:
            late += self.graph.outputs[self.graph.early[1] :]
        read: dict[Value | None, list[np.ndarray]] = {}
        for place in map(self.places.__getitem__, late):
            read.setdefault(place.root, []).append(place.prototype)

        def is_read(place: Place) -> bool:  # of what lies end to end, parts may be
            return any(np.may_share_memory(place.prototype, p) for p in read.get(place.root, ()))

        return {v for v in self.outside if is_read(self.places[v])}

    @property
    def summary(self) -> str:
        kernels, arena = len(self.order), self.memory.arena
        return f"{self.graph.name}: {kernels} kernels, an arena of {arena:,} bytes"

    def __str__(self) -> str:
        return to_text(self)


def plan(
    graph: Graph,
    captured: Mapping[Value, np.ndarray],
    parameters: Collection[Value] = (),
    guard: int = 0,
) -> Plan:
    """The plan of a graph; `captured` gives the arrays of the inputs bound by reference.

    `parameters` are those captured inputs that have gradients: the memory report tells them apart.
    `guard` bytes are left free behind every slot.
    """
    joins = joins_outside(graph, captured)
    places, binding = timed(layouts, graph, captured, joins)
    work = [v for v in graph.nodes if is_work(v, places)]
    fixed, hoisting = timed(hoisted, graph, places)
    held = set(fixed)
    order = checks_first(graph, [v for v in work if v not in held])
    order = updates_last(graph, order, places)
    first = first_part(graph, order)
    last = last_reads(graph, places, order, first)
    cut, tiling = timed(tilings, graph, order, first, last)
    lives, sharing = timed(lifetimes, graph, places, order, first, last, fixed, cut)
    slots, packing = timed(_slots, graph, lives, places, held, guard)
    fixed_offsets, constants = _end_to_end(fixed)
    memory = account(graph, list(captured), parameters, slots, order, constants)
    return Plan(
        graph,
        tuple(captured),
        joins,
        tuple(fixed),
        tuple(order),
        first,
        _commit(order, first, lives, places, cut),
        places,
        lives,
        tuple(cut),
        {v: slot.offset for v, slot in slots.items()} | fixed_offsets,
        tuple(slots.values()),
        memory,
        _records(graph, work, order, slots, memory, (binding, hoisting, sharing, tiling, packing)),
    )


def _commit(
    order: Sequence[Value],
    first: int,
    lives: Lifetimes,
    places: Places,
    tilings: Sequence[Tiles],
) -> int:
    """Where the first tape begins to write storage; a region belongs to one part as a whole."""
    writes = (i for i, v in enumerate(order[:first]) if places[lives.owner[v]].outside)
    commit = next(writes, first)
    return next((t.start for t in tilings if t.start <= commit <= t.stop), commit)


def _slots(
    graph: Graph, lives: Lifetimes, places: Places, fixed: Set[Value], guard: int
) -> dict[Value, Slot]:
    """The places in the arena, by the value that each was made for."""
    apart = {v for v in lives.start if places[v].outside or v in fixed}
    owners = [v for v in lives.start if v not in apart and lives.owner[v] is v]
    spans = [Span(lives.nbytes(v) + guard, lives.start[v], lives.stop[v]) for v in owners]
    names = numbering(graph)
    return {
        v: Slot(names[v], offset, aligned(s.nbytes), s.start, s.stop)
        for v, s, offset in zip(owners, spans, pack(spans), strict=True)
    }


def _end_to_end(values: Sequence[Value]) -> tuple[dict[Value, int], int]:
    """Offsets one behind the other, for what lives throughout, and their whole size."""
    offsets, total = {}, 0
    for v in values:
        offsets[v] = total
        total += aligned(v.nbytes)
    return offsets, total


def _records(
    graph: Graph,
    work: Sequence[Value],
    order: Sequence[Value],
    slots: Mapping[Value, Slot],
    memory: Memory,
    milliseconds: Sequence[float],
) -> tuple[PassRecord, ...]:
    """What binding views, hoisting, working in place, in tiles and in shared buffers saved.

    The last three count what lies in the arena: the copies of arguments too, in whole lines of
    cache.
    """
    whole = sum(aligned(v.nbytes) for v in slots)
    apart = sum(slot.nbytes for slot in slots.values())
    sizes = (
        ("view_binding", (graph.operations, graph.nbytes), _size(work)),
        ("hoisting", _size(work), _size(order)),
        ("in_place", (len(order), memory.unshared), (len(order), whole)),
        ("tiling", (len(order), whole), (len(order), apart)),
        ("buffer_reuse", (len(order), apart), (len(order), memory.arena)),
    )
    return tuple(
        PassRecord(name, True, before[0], after[0], before[1], after[1], elapsed)
        for (name, before, after), elapsed in zip(sizes, milliseconds, strict=True)
    )


def _size(values: Sequence[Value]) -> tuple[int, int]:
    return len(values), sum(v.nbytes for v in values)


# ---- text ---------------------------------------------------------------------------------

HEADER = ("value", "op", "from", "to", "offset", "bytes", "")


def to_text(plan: Plan) -> str:
    """Where every value lies, and from which kernel to which it is needed, a line each."""
    values = [v for v in (*plan.graph.inputs, *plan.graph.nodes) if not v.is_constant]
    lines = columns([HEADER, *map(_Rows(plan).row, values)], left=(0, 1, 6))
    return "\n".join((f"plan of {plan.summary}", *(f"  {line}" for line in lines)))


class _Rows:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.names = numbering(plan.graph)
        self.made = {v: i for i, v in enumerate(plan.order)}
        self.outside, self.fixed = set(plan.outside), set(plan.fixed)

    def row(self, value: Value) -> tuple[str, ...]:
        name = f"{self.names[value]}: {value.type}"
        return name, value.op.name, *self._needed(value), *self._memory(value)

    def _needed(self, value: Value) -> tuple[str, str]:
        """The kernel that computes a value, and the last that reads it."""
        place = self.plan.places[value]
        if value in self.fixed or place.outside or place.root is not value:
            return "", ""
        start = self.made.get(value, self.plan.lives.start.get(value, -1))
        stop = self.plan.lives.last.get(value, start)
        end = "end" if stop == len(self.made) else self._moment(stop)
        return self._moment(start), end

    @staticmethod
    def _moment(kernel: int) -> str:
        return "start" if kernel < 0 else str(kernel)

    def _memory(self, value: Value) -> tuple[str, str, str]:
        """Offset, bytes, and what else there is to say of the memory of a value."""
        if value in self.outside:
            return "", "", "outside"
        place = self.plan.places[value]
        if place.outside and place.root is value:
            return "", "", "lies end to end outside"
        if place.root is not value:
            return "", "", f"view of {self.names[value.inputs[0]]}"
        owner = self.plan.owner[value]
        if self.plan.places[owner].outside:
            return "", "", f"straight into {self.names[owner]}"
        note = "computed once, apart" if value in self.fixed else self._over(value, owner)
        nbytes = self.plan.lives.nbytes(owner)
        if owner in self.plan.lives.tiles:
            note = f"one tile {note}".rstrip()
        return f"{self.plan.offsets[owner]:,}", f"{nbytes:,}", note

    def _over(self, value: Value, owner: Value) -> str:
        """Which input a result is written over."""
        if owner is value:
            return ""
        roots = (self.plan.places[v].root for v in value.inputs)
        return next(
            f"over {self.names[r]}" for r in roots if r is not None and self.plan.owner[r] is owner
        )
