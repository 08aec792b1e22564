"""The plan: order, memory and exact bytes, known before anything has run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from numtape.ir.graph import Graph, Value, ancestors, numbering
from numtape.runtime.arena import Slot, Span, aligned, pack
from numtape.runtime.layout import Place, hoisted, is_work, layouts, schedule
from numtape.runtime.lifetimes import lifetimes


@dataclass(frozen=True, eq=False)
class Plan:
    """What the emitter needs to write a tape.

    fixed     nodes computed once, at binding.
    order     the nodes computed at replay; the leading `first` are the first tape's.
    places    the memory of every value; `owner` maps a root to the root whose memory it uses.
    offsets   bytes from the start of the arena, for owners that live in it.
    direct    updates computed straight into the storage they go to.
    """

    graph: Graph
    outside: tuple[Value, ...]
    fixed: tuple[Value, ...]
    order: tuple[Value, ...]
    first: int
    places: Mapping[Value, Place]
    owner: Mapping[Value, Value]
    offsets: Mapping[Value, int]
    slots: tuple[Slot, ...]
    nbytes: int
    memory: "Memory"

    @property
    def direct(self) -> set[Value]:
        return {new for old, new in self.graph.updates if self.owner.get(new) is old}


@dataclass(frozen=True)
class Memory:
    """Bytes, exact before the first run.

    captured     storage outside the tape that it reads: parameters, optimizer state, arrays.
    updated      the part of it that the tape also writes.
    unshared     what all results would take with memory of their own each.
    arena        the one block that holds them instead.
    arguments, constants, forward, reverse: what of the arena is in use at its fullest moment.
    """

    captured: int
    updated: int
    unshared: int
    arena: int
    arguments: int
    constants: int
    forward: int
    reverse: int

    def __str__(self) -> str:
        rows = [(name, getattr(self, name)) for name in self.__dataclass_fields__]
        width = max(len(f"{n:,}") for _, n in rows)
        return "\n".join(f"{name:<10} {n:>{width},} bytes" for name, n in rows)


def plan(graph: Graph, captured: Mapping[Value, np.ndarray]) -> Plan:
    """The plan of a graph; `captured` gives the arrays of the inputs bound by reference."""
    places = layouts(graph, captured)
    fixed = hoisted(graph, places)
    work = [v for v in graph.nodes if is_work(v, places)]
    held = set(fixed)
    order, first = schedule(graph, [v for v in work if v not in held], _first_tape(graph))
    lives = lifetimes(graph, places, order, first, fixed, captured)
    owners = [v for v in lives.start if v not in captured and lives.owner[v] is v]
    spans = [Span(v.nbytes, lives.start[v], lives.stop[v]) for v in owners]
    offsets, nbytes = pack(spans)
    names = numbering(graph)
    slots = [
        Slot(names[v], offset, aligned(s.nbytes), s.start, s.stop)
        for v, s, offset in zip(owners, spans, offsets, strict=True)
    ]
    return Plan(
        graph,
        tuple(captured),
        tuple(fixed),
        tuple(order),
        first,
        places,
        lives.owner,
        dict(zip(owners, offsets, strict=True)),
        tuple(slots),
        nbytes,
        _account(graph, captured, owners, slots, nbytes, fixed, work),
    )


def _first_tape(graph: Graph) -> set[Value]:
    """What the first of two tapes computes: its outputs and every update."""
    if graph.early is None:
        return set()
    return ancestors((*graph.outputs[: graph.early[1]], *(new for _, new in graph.updates)))


def _account(
    graph: Graph,
    captured: Mapping[Value, np.ndarray],
    owners: Sequence[Value],
    slots: Sequence[Slot],
    nbytes: int,
    fixed: Sequence[Value],
    work: Sequence[Value],
) -> Memory:
    held = set(fixed)
    at = _fullest_moment(slots)
    used = {"arguments": 0, "constants": 0, "forward": 0, "reverse": 0}
    for v, slot in zip(owners, slots, strict=True):
        if slot.start <= at <= slot.stop:
            part = "arguments" if not v.inputs and v not in held else "forward"
            part = "reverse" if v.origin.reverse else "constants" if v in held else part
            used[part] += slot.nbytes
    return Memory(
        captured=sum(v.nbytes for v in captured),
        updated=sum(old.nbytes for old, _ in graph.updates if old in captured),
        unshared=sum(aligned(v.nbytes) for v in work),
        arena=nbytes,
        **used,
    )


def _fullest_moment(slots: Sequence[Slot]) -> int:
    """The instruction at which most bytes are in use."""
    if not slots:
        return 0
    change = np.zeros(max(s.stop for s in slots) + 3, np.int64)
    for s in slots:
        change[s.start + 1] += s.nbytes
        change[s.stop + 2] -= s.nbytes
    return int(np.cumsum(change).argmax()) - 1


