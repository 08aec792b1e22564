"""numtape, compiled, with the passes it has by default. Also times its own matrix products."""

from typing import Any

import numtape as nt
from benchmarks.contestants.floor import Floor
from benchmarks.contestants.heap import heap_of, without_buffers
from benchmarks.contestants.numtape_eager import Stepper
from benchmarks.contestants.profile import kernel_times
from benchmarks.models import Model


class Contestant(Stepper):
    """One tape: loss, reverse part and AdamW; or the forward pass alone."""

    exact = False

    def __init__(self, model: Model, training: bool) -> None:
        super().__init__(model, training)
        self.compiled = nt.compile(self.function, exact=self.exact)
        self._floor: Floor | None = None

    def step(self) -> nt.Tensor:
        with self.mode():
            return self.compiled(*self.batch)

    def floor(self) -> None:
        """The matrix products of a step, on arrays laid out as the step's are."""
        if self._floor is None:
            self._floor = Floor(self.step)
        self._floor()

    def facts(self) -> dict[str, Any]:
        (tape,) = self.compiled.tapes
        facts = {
            "phases": tape.phases,
            "nodes": tape.graph().operations,
            "arena": tape.memory.arena,
            "unshared": tape.memory.unshared,
            "heap": heap_of(self.step),
            "heap without buffers": without_buffers(self.step),
        }
        if self.training and not self.exact:
            facts["kernels"] = kernel_times(tape, self.step)
        return facts
