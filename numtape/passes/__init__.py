"""The passes, in the order in which they run. Each is a function Graph -> Graph.

An exact pass changes no bit of any result; a reassociating one may round differently, be it only
because what it adds up lies in memory in another order.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial, update_wrapper

from numtape.ir.graph import Graph
from numtape.ir.records import PassRecord, timed
from numtape.ir.verify import verify
from numtape.passes.broadcasts import broadcasts
from numtape.passes.common_subexpressions import common_subexpressions
from numtape.passes.composites import composites
from numtape.passes.copies import copies
from numtape.passes.dead_nodes import dead_nodes
from numtape.passes.dense_inputs import dense_inputs
from numtape.passes.folding import folding
from numtape.passes.fusion import fusion
from numtape.passes.gains import gains
from numtape.passes.identities import identities
from numtape.passes.old_values import old_values
from numtape.passes.products import products
from numtape.passes.recompute import recompute
from numtape.passes.renewals import renewals
from numtape.passes.scheduling import scheduling
from numtape.passes.sums import sums
from numtape.passes.views import views


@dataclass(frozen=True)
class Pass:
    """A rewrite and whether it is exact."""

    apply: Callable[[Graph], Graph]
    exact: bool

    @property
    def name(self) -> str:
        return self.apply.__name__


PIPELINE = (
    Pass(dead_nodes, exact=True),
    Pass(composites, exact=True),
    Pass(common_subexpressions, exact=True),
    Pass(broadcasts, exact=False),
    Pass(folding, exact=True),
    Pass(identities, exact=True),
    Pass(gains, exact=False),
    Pass(sums, exact=False),
    Pass(copies, exact=False),
    Pass(views, exact=False),
    Pass(products, exact=False),
    Pass(old_values, exact=True),
    Pass(scheduling, exact=True),
    Pass(renewals, exact=True),
    Pass(fusion, exact=True),
)
# For exact tapes: what no pass may change, and sums in the order in which eager mode takes them.
EXACT = tuple(
    p
    for step in PIPELINE
    if step.exact
    for p in ((Pass(dense_inputs, exact=True), step) if step.apply is fusion else (step,))
)
# What asks where nodes stand once and for all: behind all that moves them, or shares equal ones.
_LAST = (old_values, fusion)


def recomputing(
    passes: Sequence[Pass],
) -> tuple[tuple[Pass, ...], Callable[[int], tuple[Pass, ...]]]:
    """The passes parted where `recompute` belongs, and for a number of bytes those from there.

    What `renewals` would choose is among what `recompute` chooses from.
    """
    early = tuple(p for p in passes if p.apply not in (renewals, *_LAST))
    last = tuple(p for p in passes if p.apply in _LAST)

    def late(nbytes: int) -> tuple[Pass, ...]:
        wanted = update_wrapper(partial(recompute, nbytes=nbytes), recompute)
        return (Pass(wanted, exact=True), *last)

    return early, late


def optimise(
    graph: Graph,
    passes: Iterable[Pass] = PIPELINE,
    check: bool = False,
    watch: Callable[[Pass, Graph, Graph], None] | None = None,
) -> tuple[Graph, list[PassRecord]]:
    """The graph after the passes, and what each did. With `check` the verifier runs after each.

    `watch` is shown each pass with the graph before and after it.
    """
    records = []
    for step in passes:
        after, elapsed = timed(step.apply, graph)
        records.append(
            PassRecord(
                step.name,
                step.exact,
                graph.operations,
                after.operations,
                graph.nbytes,
                after.nbytes,
                elapsed,
            )
        )
        if watch is not None:
            watch(step, graph, after)
        graph = verify(after) if check else after
    return graph, records
