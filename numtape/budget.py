"""A budget for the arena: how bytes are written, and which graph's plan keeps to them.

Passes and plans know nothing of each other, so what connects them stands here. `recompute` counts
bytes by the order of nodes; the plan packs them, tile by tile where it can. The wish is therefore
corrected by what the last count was off, which settles in two or three plans.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from numtape.ir.effort import effort
from numtape.ir.graph import Graph, Value
from numtape.ir.location import Located
from numtape.ir.records import PassRecord
from numtape.passes import Pass, optimise, recomputing
from numtape.runtime.cost import cost
from numtape.runtime.plan import Plan

Optimiser = Callable[[Graph, Sequence[Pass]], tuple[Graph, list[PassRecord]]]
TRIES = 8
STEPS = 64  # the least by which a wish that came out too large is corrected, as a part
CLOSE = 0.97  # of the budget: more in use would save next to nothing
UNITS = {
    "": 1,
    **{f"{prefix}B": 1000**n for n, prefix in enumerate(("", "K", "M", "G", "T"))},
    **{f"{prefix}IB": 1024**n for n, prefix in enumerate(("K", "M", "G", "T"), 1)},
}


class OverBudget(Located, MemoryError):
    """A budget that no plan keeps to; `least` is the smallest that one does."""

    def __init__(self, name: str, budget: int, least: int) -> None:
        super().__init__(
            f"{name} needs an arena of at least {least:,} bytes for these shapes, but may take "
            f"{budget:,}: give compile memory={least}, or the function smaller arguments"
        )
        self.least = least


@dataclass(frozen=True)
class Recomputed:
    """What keeping to a budget costs at every replay.

    nodes   kernels that run in addition.
    flops   floating-point operations of these.
    nbytes  bytes that they read and write.
    share   the time that they take by estimate, as a part of the step without them.
    """

    nodes: int = 0
    flops: int = 0
    nbytes: int = 0
    share: float = 0.0

    def __str__(self) -> str:
        if self == Recomputed():
            return "nothing is recomputed"
        return (
            f"{self.nodes:,} kernels recomputed: {self.flops:,} flops, {self.nbytes:,} bytes "
            f"moved, about {100 * self.share:.1f} % of the step"
        )


@dataclass(frozen=True)
class Optimised:
    """An optimised graph, what the passes did, its plan, and what running it costs more.

    `whole` is the graph in which nothing is recomputed, itself for itself.
    """

    graph: Graph
    records: Sequence[PassRecord]
    planned: Callable[[Graph], Plan]
    whole: "Optimised | None" = None

    @cached_property
    def plan(self) -> Plan:
        return self.planned(self.graph)

    @property
    def arena(self) -> int:
        return self.plan.memory.arena

    @property
    def report(self) -> list[PassRecord]:
        """The records, with a note of what is recomputed."""
        note = str(self.recomputed)
        return [replace(r, note=note) if r.name == "recompute" else r for r in self.records]

    @cached_property
    def recomputed(self) -> Recomputed:
        if self.whole is None:
            return Recomputed()
        order, before = self.plan.order, self.whole.plan.order
        more = Counter(map(_described, order)) - Counter(map(_described, before))
        return Recomputed(
            more.total(),
            cost(order).flops - cost(before).flops,
            cost(order).nbytes - cost(before).nbytes,
            effort(order) / effort(before) - 1,
        )


def _described(node: Value) -> tuple:
    """What tells kernels apart, but for those that compute again what another does."""
    return node.op, node.type, tuple(node.attrs.items()), node.origin[:2]


def as_bytes(memory: int | str, what: str = "memory") -> int:
    """A number of bytes, or text such as "512MB" (millions) or "1.5GiB" (2^30), as a number.

    An error calls it `what`.
    """
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?i?b|)\s*", memory, re.IGNORECASE)
        unit = UNITS.get(found[2].upper()) if found else None
        nbytes = int(float(found[1]) * unit) if found and unit else 0
    else:
        nbytes = memory if isinstance(memory, int) and not isinstance(memory, bool) else 0
    if nbytes < 1:
        raise ValueError(
            f'{what} is a positive number of bytes, or text such as "512MB" or "1.5GiB", '
            f"not {memory!r}"
        )
    return nbytes


def within(
    budget: int | None,
    program: Graph,
    passes: Sequence[Pass],
    planned: Callable[[Graph], Plan],
    optimised: Optimiser = optimise,
) -> Optimised:
    """The program optimised so that its arena keeps to a budget, with the least recomputed.

    `planned` gives the plan of a graph, `optimised` runs passes on one. Raises `OverBudget`.
    """
    whole = Optimised(*optimised(program, passes), planned)
    if budget is None or whole.arena <= budget:
        return whole
    search = _Search(program, passes, whole, optimised)
    found = search.cheapest(budget) or search.made(0)
    if found.arena > budget:
        raise OverBudget(program.name, budget, min(found.arena, whole.arena))
    return found


class _Search:
    def __init__(
        self, program: Graph, passes: Sequence[Pass], whole: Optimised, optimised: Optimiser
    ) -> None:
        early, self.late = recomputing(passes)
        self.graph, self.records = optimised(program, early)
        self.whole, self.optimised = whole, optimised

    def cheapest(self, budget: int) -> Optimised | None:
        """The cheapest of a few that keep to the budget, or None."""
        fitting: list[Optimised] = []
        wanted, arena, further = budget, 0, 1
        for _ in range(TRIES):
            found = self.made(max(wanted, 0))
            same, arena = found.arena == arena, found.arena
            if arena <= budget:
                fitting.append(found)
                if same or arena >= CLOSE * budget:
                    break
                wanted += budget - arena
            else:
                further = 2 * further if same else 1  # many wishes give the same arena
                wanted -= further * max(arena - budget, budget // STEPS)
        return min(fitting, key=lambda found: found.recomputed.share, default=None)

    def made(self, nbytes: int) -> Optimised:
        """The graph that is left where so many bytes are wanted, by count."""
        graph, records = self.optimised(self.graph, self.late(nbytes))
        return Optimised(graph, (*self.records, *records), self.whole.planned, self.whole)
