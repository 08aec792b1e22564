"""HIPS autograd: `value_and_grad` of the loss over wrapped NumPy."""

import math
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad
from autograd.scipy.special import erf

from benchmarks.contestants.functional import Functional
from benchmarks.contestants.small_peer import SmallPeer
from benchmarks.models import Model


def gelu(x: Any) -> Any:
    return 0.5 * x * (1.0 + erf(x * (1.0 / math.sqrt(2.0))))


class Contestant(SmallPeer):
    def __init__(self, model: Model, training: bool) -> None:
        super().__init__(model, training)
        self.function = Functional(anp, model, gelu)
        self.differentiated = value_and_grad(self.function.loss)

    def gradients(self) -> Any:
        loss, gradients = self.differentiated(self.optimizer.values, *self.batch)
        for name, gradient in gradients.items():
            np.copyto(self.optimizer.gradients[name], gradient)
        return loss

    def logits(self) -> Any:
        return self.function.logits(self.optimizer.values, *self.batch)
