"""numtape with each of its passes switched off alone, and without small parameters end to end: a
tape each, in one process."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

from benchmarks.contestants.numtape_eager import Stepper
from benchmarks.models import Model
from numtape.compiler import Compiled
from numtape.optim import bundles
from numtape.passes import PIPELINE, Pass


class Contestant(Stepper):
    """`step` is the whole pipeline; `variants` names the attributes that time the others."""

    def __init__(self, model: Model, training: bool) -> None:
        super().__init__(model, training)
        self.model = model
        self.whole = self._compiled(PIPELINE)
        self.variants: dict[str, Compiled] = {}
        self.failed: dict[str, str] = {}

    def step(self) -> Any:
        return self.whole(*self.batch)

    def __getattr__(self, name: str) -> Callable[[], Any]:
        if not name.startswith("without_"):
            raise AttributeError(name)
        return partial(self.variants[name], *self.batch)

    def prepare(self) -> list[str]:
        """Compile all variants; the names of those that run."""
        for left_out in PIPELINE:
            name = f"without_{left_out.name}"
            variant = self._compiled(tuple(p for p in PIPELINE if p is not left_out))
            try:
                variant(*self.batch)
            except Exception as error:  # a pass that the runtime cannot do without
                self.failed[left_out.name] = type(error).__name__
            else:
                self.variants[name] = variant
        self.variants["without_flat_parameters"] = self._apart()
        return list(self.variants)

    def facts(self) -> dict[str, Any]:
        tapes = {"step": self.whole, **self.variants}
        arenas = {name: compiled.tapes[-1].memory.arena for name, compiled in tapes.items()}
        return {"arenas": arenas, "failed": self.failed}

    def _compiled(self, passes: tuple[Pass, ...]) -> Compiled:
        return Compiled(self.function, passes)

    def _apart(self) -> Compiled:
        """The step with every parameter where it was made, updated by itself."""
        with patch.object(bundles, "SMALL", 0):
            stepper = Stepper(self.model, self.training)
        compiled = Compiled(stepper.function, PIPELINE)
        compiled(*self.batch)
        return compiled
