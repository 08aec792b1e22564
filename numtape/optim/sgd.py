"""Stochastic gradient descent with momentum."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from numtape.optim.optimizer import Optimizer, Rate, Rule, check_not_negative
from numtape.tracer.tensor import Tensor


class SGD(Optimizer):
    """p - lr · b, with the velocity b = momentum · b + (1 - dampening) · (g + weight_decay · p).

    The first velocity is the gradient itself, undampened. With `nesterov` the step is along
    g + momentum · b (Sutskever et al., 2013). Raises ValueError for settings that do not fit.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0.0 or dampening != 0.0):
            raise ValueError(
                "nesterov needs a momentum above 0 and a dampening of 0, got "
                f"momentum={momentum}, dampening={dampening}"
            )
        self.momentum = check_not_negative("momentum", momentum)
        self.nesterov = nesterov
        self.dampening = dampening
        self.moments = ("velocity",) if momentum else ()
        super().__init__(params, lr, weight_decay)

    def rule(self, count: Tensor, lr: Tensor, weight_decay: float) -> Rule:
        share = 1.0 - (count > 1.0).astype(np.float64) * self.dampening

        def update(p: Any, g: Any, *velocity: Any) -> tuple[Any, ...]:
            if weight_decay:
                g = g + p * weight_decay
            if not velocity:
                return (p - g * lr.astype(p.dtype),)
            added = g * share.astype(g.dtype) if self.dampening else g
            new = velocity[0] * self.momentum + added
            direction = g + new * self.momentum if self.nesterov else new
            return p - direction * lr.astype(p.dtype), new

        return update
