"""`compile(f, validate=True)`: every pass, the plan and the source against the reference.

When a shape is first seen, the graph before and after each pass is run on the arrays of that call
and must give the same: to the bit after an exact pass, else as `compare` says. Then the plan is
proved, and the tape is run in memory of its own and compared with its graph. All of this reads
copies, so that the call itself finds everything as it was.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from numtape.checking.compare import SAMPLES, allowed, differing, distance
from numtape.checking.reduction import Case, smallest
from numtape.checking.reference import results
from numtape.checking.script import script
from numtape.ir.graph import Graph
from numtape.ir.location import Located
from numtape.ir.records import PassRecord
from numtape.ir.verify import verify
from numtape.passes import Pass, optimise
from numtape.runtime.plan import plan
from numtape.runtime.proof import prove
from numtape.runtime.runs import Runs
from numtape.runtime.tape import Tape

EMITTING = "plan and emit"

Arrays = Sequence[np.ndarray]


class Stage(NamedTuple):
    """A step of the compiler: its name, its label, its pass, and what a graph gives behind it."""

    name: str
    exact: bool
    step: Pass | None
    run: Callable[[Graph, Arrays], Arrays]

    @property
    def label(self) -> str:
        return "exact" if self.exact else "reassociating"


class MistranslatedError(Located, RuntimeError):
    """A step of the compiler that changes what a program computes.

    stage   the name of the pass, or "plan and emit".
    graph   the smallest graph that shows it, and `inputs` its arrays.
    script  the same as a program that prints both values.
    """

    def __init__(self, stage: Stage, case: Case, expected: Arrays, found: Arrays) -> None:
        self.stage, self.graph, self.inputs = stage.name, case.graph, tuple(case.inputs)
        self.script = script(case, stage.step)
        kind = "the pass " if stage.step else ""
        super().__init__(
            f"{kind}{stage.name}, labelled {stage.label}, changes what {case.graph.name} "
            f"computes: {_difference(expected, found)}; the smallest graph that shows it is\n"
            f"{case.graph}\nand as a program\n\n{self.script}"
        )


class Validation:
    """The checks of one compilation, on arrays for the inputs of its graph in order."""

    def __init__(self, inputs: Arrays) -> None:
        self.inputs = inputs
        self._latest: tuple[Graph, Arrays] | None = None

    def optimise(self, graph: Graph, passes: Sequence[Pass]) -> tuple[Graph, list[PassRecord]]:
        """As `passes.optimise`, with each pass checked."""
        return optimise(graph, passes, watch=self.check)

    def check(self, step: Pass, before: Graph, after: Graph) -> None:
        """`MistranslatedError` (or `VerifyError`) unless the pass kept what the graph computes."""
        expected, found = self._results(before), self._results(verify(after))
        stage = Stage(step.name, step.exact, step, lambda g, xs: results(step.apply(g), xs))
        self._compare(stage, before, expected, found)

    def check_tape(self, tape: Tape, exact: bool) -> None:
        """`OverwrittenError` or `MistranslatedError` unless the tape computes its graph."""
        prove(tape.plan)
        expected = self._results(tape.graph)
        runs = Runs(tape, [x for x, v in self._paired(tape) if v not in set(tape.plan.outside)])
        with np.errstate(all="ignore"):  # the call itself will warn where there is cause
            found = runs.results(tape.bind, tape.filename)
        self._compare(Stage(EMITTING, exact, None, _emitted), tape.graph, expected, found)

    def _paired(self, tape: Tape) -> list[tuple]:
        return list(zip(self.inputs, tape.graph.inputs, strict=True))

    def _results(self, graph: Graph) -> Arrays:
        """Of a graph on the call's arrays; what follows one pass goes before the next."""
        if self._latest is None or self._latest[0] is not graph:
            self._latest = graph, results(graph, self.inputs)
        return self._latest[1]

    def _compare(self, stage: Stage, graph: Graph, expected: Arrays, found: Arrays) -> None:
        case = Case(graph, self.inputs)
        if not _disagree(stage, case, expected, found):
            return
        small = smallest(case, lambda trial: _shows(stage, trial))
        if small is not case:
            expected = results(small.graph, small.inputs)
            found = stage.run(small.graph, small.inputs)
        raise MistranslatedError(stage, small, expected, found)


def _shows(stage: Stage, case: Case) -> bool:
    """Whether the stage changes what this graph computes; what it cannot take shows nothing."""
    try:
        found = stage.run(case.graph, case.inputs)
    except Exception:  # whatever a stage, which is wrong somewhere, makes of a part of a graph
        return False
    return _disagree(stage, case, results(case.graph, case.inputs), found)


def _disagree(stage: Stage, case: Case, expected: Arrays, found: Arrays) -> bool:
    def noisy() -> list[list[np.ndarray]]:
        rngs = map(np.random.default_rng, range(SAMPLES))
        return [results(case.graph, case.inputs, rng) for rng in rngs]

    return differing(found, expected, stage.exact, noisy) is not None


def _emitted(graph: Graph, inputs: Arrays) -> Arrays:
    """What a graph gives planned and written out, all of its inputs copied in."""
    tape = Tape(plan(graph, {}), ())
    return Runs(tape, inputs).results(tape.bind, tape.filename)


def _difference(expected: Arrays, found: Arrays) -> str:
    """The result that differs most, beside what rounding may do."""
    pairs = list(zip(expected, found, strict=True))
    for x, y in pairs:
        if (x.dtype, x.shape) != (y.dtype, y.shape):
            return f"{x.dtype}{list(x.shape)} becomes {y.dtype}{list(y.shape)}"
    apart = [distance(np.atleast_1d(y), np.atleast_1d(x)).max(initial=0.0) for x, y in pairs]
    worst = int(np.argmax(apart))
    return (
        f"result {worst} by up to {apart[worst]:.3g}, where rounding could give "
        f"{allowed(expected[worst]):.3g}"
    )
