"""numtape, eager: every operation at once, on arrays of its own."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

import numtape as nt
from benchmarks.contestants.heap import heap_of
from benchmarks.models import BETAS, DECAY, EPS, LEARNING_RATE, Model, batch, parameters
from numtape import nn, optim
from numtape.transformer import GPT, Transformer


def module(m: Model) -> nn.Module:
    """The model, with numtape's own starting values."""
    if m.kind == "gpt":
        return GPT(m.vocabulary, m.length, m.width, m.heads, m.layers)
    if m.kind == "translation":
        return Transformer(
            m.vocabulary, m.vocabulary, m.width, m.heads, m.layers, m.hidden, dropout=0.0
        )
    inner = (nn.Linear(m.width, m.width) for _ in range(m.layers - 1))
    layers = [part for linear in inner for part in (linear, nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(m.width, m.vocabulary))


def train_step(model: nn.Module) -> Callable[..., nt.Tensor]:
    """Loss, gradients and AdamW, of a batch whose last array is the targets."""
    optimizer = optim.AdamW(model.parameters(), LEARNING_RATE, BETAS, EPS, DECAY)

    def train(*batch: Any) -> nt.Tensor:
        *inputs, targets = batch
        loss = nn.functional.cross_entropy(model(*inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return train


class Stepper:
    """The function to run or compile, and the batch that goes into it."""

    def __init__(self, model: Model, training: bool) -> None:
        self.module = module(model)
        self.module.load_state_dict(parameters(model))
        self.batch = batch(model) if training else batch(model)[:-1]
        self.mode: Callable[[], AbstractContextManager] = nullcontext
        self.training = training
        self.function = train_step(self.module) if training else self.module
        if not training:
            self.module.eval()
            self.mode = nt.no_grad

    @staticmethod
    def number(result: nt.Tensor) -> float:
        return float(np.abs(result.numpy()).mean())


class Contestant(Stepper):
    def __init__(self, model: Model, training: bool) -> None:
        super().__init__(model, training)
        self.tensors = tuple(map(nt.tensor, self.batch))

    def step(self) -> nt.Tensor:
        with self.mode():
            return self.function(*self.tensors)

    def facts(self) -> dict[str, Any]:
        # Its batch too: an arena holds copies of its arguments.
        return {"heap": heap_of(self.step) + sum(t.nbytes for t in self.batch)}
