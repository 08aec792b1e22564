"""Adam (Kingma, Ba, 2015) and AdamW (Loshchilov, Hutter, 2019)."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from numtape.ir.ops.updates import adam_numbers
from numtape.optim.optimizer import Optimizer, Rate, Rule, check_fraction, check_not_negative
from numtape.tracer.tensor import Tensor


class Adam(Optimizer):
    """p - lr · m̂ / (√v̂ + eps), with m̂ and v̂ the corrected means of g and g².

    weight_decay · p is added to the gradient. The step count, and so the correction, is one for
    all parameters.
    """

    # Kept as sums, m / (1 - beta) of the paper's means: that saves two passes over memory.
    moments = ("first_moment", "second_moment")
    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.betas = (check_fraction("betas[0]", betas[0]), check_fraction("betas[1]", betas[1]))
        self.eps = check_not_negative("eps", eps)
        super().__init__(params, lr, weight_decay)

    def rule(self, count: Tensor, lr: Tensor, weight_decay: float) -> Rule:
        @cache
        def numbers(dtype: np.dtype) -> tuple[Any, ...]:
            return adam_numbers(count, lr, self.betas, self.eps, weight_decay, dtype)

        def update(p: Any, g: Any, first: Any, second: Any) -> tuple[Any, ...]:
            size, eps, kept = numbers(p.dtype)
            if weight_decay and not self.decoupled:
                g = g + p * weight_decay
            first = first * self.betas[0] + g
            second = second * self.betas[1] + g * g
            start = p * kept if weight_decay and self.decoupled else p
            return start - first / (second.sqrt() + eps) * size, first, second

        return update


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameter itself: p · (1 - lr · weight_decay) first."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
