"""What autograd and MyGrad share: loss and gradients theirs, AdamW in NumPy."""

from typing import Any

import numpy as np

from benchmarks.contestants.adamw import AdamW
from benchmarks.models import Model, batch, parameters, shapes


class SmallPeer:
    """Subclasses give `gradients()`, which fills `self.optimizer.gradients`, and `logits()`."""

    def __init__(self, model: Model, training: bool) -> None:
        self.batch = batch(model) if training else batch(model)[:-1]
        self.optimizer = AdamW(shapes(model), parameters(model))
        self.step = self.train if training else self.logits

    def gradients(self) -> Any:
        raise NotImplementedError

    def logits(self) -> Any:
        raise NotImplementedError

    def train(self) -> Any:
        loss = self.gradients()
        self.optimizer.step()
        return loss

    @staticmethod
    def number(result: Any) -> float:
        return float(np.abs(result).mean())

    def facts(self) -> dict[str, Any]:
        return {}
