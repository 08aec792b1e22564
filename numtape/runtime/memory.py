"""What a tape's memory is for: exact bytes, known before the first run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

from numtape.ir.graph import Graph, Value
from numtape.ir.memory import aligned
from numtape.runtime.arena import Slot, in_use

FULLEST = "  when the arena is fullest"
NOTES = dict.fromkeys(("arguments", "activations", "gradients", "scratch"), FULLEST)


@dataclass(frozen=True)
class Memory:
    """Bytes, exact before the first run.

    Outside the tape, bound by reference:
    parameters   tensors that have gradients.
    optimizer    other tensors that the tape updates: moments, counters, random state.
    captured     other tensors and arrays from outside, which it only reads.

    Of each tape, for good:
    constants    what is computed once, when the tape is bound.

    In the arena, at the moment when most of it is in use:
    arguments    the copies of the arguments that are read then or later.
    activations  results of the forward part that the reverse part still reads.
    gradients    results of the reverse part.
    scratch      everything else.

    unshared     what arguments and results would take with memory of their own each.
    arena        the one block that they share instead.
    """

    parameters: int
    optimizer: int
    captured: int
    constants: int
    arguments: int
    activations: int
    gradients: int
    scratch: int
    unshared: int
    arena: int

    def __str__(self) -> str:
        rows = [(f.name, getattr(self, f.name)) for f in fields(self)]
        width = max(len(f"{n:,}") for _, n in rows)
        return "\n".join(
            f"{name:<12} {n:>{width},} bytes{NOTES.get(name, '')}" for name, n in rows
        )


def account(
    graph: Graph,
    captured: Sequence[Value],
    parameters: Collection[Value],
    slots: Mapping[Value, Slot],
    order: Sequence[Value],
    constants: int,
) -> Memory:
    """The report for a plan; `slots` are the arena's, by the value each was made for."""
    arguments = set(graph.inputs).difference(captured)
    moment = fullest_moment(list(slots.values()))
    used = dict.fromkeys(("arguments", "activations", "gradients", "scratch"), 0)
    for value, slot in slots.items():
        if slot.start <= moment <= slot.stop:
            used[_purpose(value, slot, moment)] += slot.nbytes
    known = set(parameters)
    updated = {old for old, _ in graph.updates} - known
    return Memory(
        parameters=sum(v.nbytes for v in captured if v in known),
        optimizer=sum(v.nbytes for v in captured if v in updated),
        captured=sum(v.nbytes for v in captured if v not in known and v not in updated),
        constants=constants,
        **used,
        unshared=sum(aligned(v.nbytes) for v in (*arguments, *order)),
        arena=max((s.offset + s.nbytes for s in slots.values()), default=0),
    )


def _purpose(value: Value, slot: Slot, moment: int) -> str:
    if not value.inputs:
        return "arguments"
    if value.origin.reverse:
        return "gradients"
    return "activations" if slot.start < moment < slot.stop else "scratch"


def fullest_moment(slots: Sequence[Slot]) -> int:
    """The instruction at which most bytes are in use."""
    return int(in_use(slots).argmax()) - 1 if slots else 0
