"""The plan: order, memory and exact bytes, known before anything has run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from numtape.ir.graph import Graph, Value, numbering
from numtape.runtime.arena import Slot, Span, aligned, pack
from numtape.runtime.layout import Place, checks_first, first_tape, hoisted, is_work, layouts
from numtape.runtime.lifetimes import lifetimes
from numtape.runtime.memory import Memory, account


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
    fixed_nbytes: int
    memory: Memory

    @property
    def direct(self) -> set[Value]:
        return {new for old, new in self.graph.updates if self.owner.get(new) is old}


def plan(
    graph: Graph, captured: Mapping[Value, np.ndarray], parameters: Collection[Value] = ()
) -> Plan:
    """The plan of a graph; `captured` gives the arrays of the inputs bound by reference.

    `parameters` are those captured inputs that have gradients: the memory report tells them apart.
    """
    places = layouts(graph, captured)
    fixed = hoisted(graph, places)
    work = [v for v in graph.nodes if is_work(v, places)]
    held = set(fixed)
    order = checks_first(graph, [v for v in work if v not in held])
    first = first_tape(graph, order)
    outside = captured.keys() | held
    lives = lifetimes(graph, places, order, first, fixed, captured)
    owners = [v for v in lives.start if v not in outside and lives.owner[v] is v]
    spans = [Span(v.nbytes, lives.start[v], lives.stop[v]) for v in owners]
    offsets, nbytes = pack(spans)
    fixed_offsets, fixed_nbytes = _end_to_end(fixed)
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
        dict(zip(owners, offsets, strict=True)) | fixed_offsets,
        tuple(slots),
        nbytes,
        fixed_nbytes,
        account(
            graph,
            list(captured),
            parameters,
            dict(zip(owners, slots, strict=True)),
            work,
            fixed_nbytes,
        ),
    )


def _end_to_end(values: Sequence[Value]) -> tuple[dict[Value, int], int]:
    """Offsets one behind the other, for what lives throughout, and their whole size."""
    offsets, total = {}, 0
    for v in values:
        offsets[v] = total
        total += aligned(v.nbytes)
    return offsets, total
