"""numtape, compiled, with the passes it has by default. Also times its own matrix products."""

from collections import Counter
from typing import Any

import numtape as nt
from benchmarks.contestants.floor import Floor
from benchmarks.contestants.heap import heap_of, without_buffers
from benchmarks.contestants.numtape_eager import Stepper
from benchmarks.models import Model
from numtape.runtime.profile import Profile

ROUNDS = 3  # of a profile
PRODUCTS = "matrix products"


def costs(profile: Profile) -> dict[str, dict[str, float]]:
    """Milliseconds of a step by cause, and by kernel what is no product of matrices."""
    kernels: Counter[str] = Counter()
    for kernel in profile.kernels:
        if kernel.cause != PRODUCTS:
            kernels[kernel.name.partition("(")[0]] += 1e3 * kernel.seconds
    causes = {spent.name: 1e3 * spent.seconds for spent in profile.causes}
    return {"causes": causes, "kernels": dict(kernels.most_common())}


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
            facts |= costs(tape.profile(*self.batch, rounds=ROUNDS))
        return facts
