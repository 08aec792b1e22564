"""PyTorch, eager: fused AdamW, gradients set to None, inference mode."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.contestants.torch_modules import module
from benchmarks.models import BETAS, DECAY, EPS, LEARNING_RATE, Model, batch, parameters


class Contestant:
    """A step is zero_grad, loss, backward, fused AdamW; or a forward pass in inference mode."""

    def __init__(self, model: Model, training: bool) -> None:
        torch.set_num_threads(1)
        self.module = module(model)
        values = {name: torch.from_numpy(v) for name, v in parameters(model).items()}
        self.module.load_state_dict(values)
        *self.inputs, self.targets = map(torch.from_numpy, batch(model))
        self.forward = self.prepared(self.loss if training else self.module)
        if training:
            self.optimizer = torch.optim.AdamW(
                self.module.parameters(),
                lr=LEARNING_RATE,
                betas=BETAS,
                eps=EPS,
                weight_decay=DECAY,
                fused=True,
            )
        else:
            self.module.eval()
        self.step = self.train if training else self.infer

    def prepared(self, function: Callable) -> Callable:
        return function

    def loss(self, *inputs: Tensor) -> Tensor:
        *inputs, targets = inputs
        return F.cross_entropy(self.module(*inputs).flatten(0, -2), targets.flatten())

    def train(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.forward(*self.inputs, self.targets)
        loss.backward()
        self.optimizer.step()
        return loss

    def infer(self) -> Tensor:
        with torch.inference_mode():
            return self.forward(*self.inputs)

    @staticmethod
    def number(result: Tensor) -> float:
        return float(result.detach().abs().mean())

    def facts(self) -> dict[str, Any]:
        return {} if self.step == self.infer else {"activations": self.activations()}

    def activations(self) -> int:
        """Bytes of all that autograd saves for the reverse pass, parameters excepted.

        `saved_tensors_hooks` sees every saved tensor; memory that several share counts once.
        """
        own = {p.untyped_storage().data_ptr() for p in self.module.parameters()}
        own |= {b.untyped_storage().data_ptr() for b in self.module.buffers()}
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss(*self.inputs, self.targets)
        del loss
        return sum(saved.values())
