"""MyGrad: tensors and `backward()`. It has no error function, so it runs the MLP alone."""

from typing import Any

import mygrad as mg
import numpy as np

from benchmarks.contestants.functional import Functional
from benchmarks.contestants.small_peer import SmallPeer
from benchmarks.models import Model


class Contestant(SmallPeer):
    def __init__(self, model: Model, training: bool) -> None:
        super().__init__(model, training)
        self.function = Functional(mg, model, None)
        # Its checks of memory cost time and are off where its documentation speaks of speed.
        mg.turn_memory_guarding_off()
        self.tensors = {
            name: mg.tensor(value, copy=False) for name, value in self.optimizer.values.items()
        }

    def gradients(self) -> Any:
        loss = self.function.loss(self.tensors, *self.batch)
        loss.backward()
        for name, tensor in self.tensors.items():
            np.copyto(self.optimizer.gradients[name], tensor.grad)
        return loss.data

    def logits(self) -> Any:
        with mg.no_autodiff:
            return self.function.logits(self.tensors, *self.batch).data
