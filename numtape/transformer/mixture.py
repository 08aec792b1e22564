"""A dense mixture of experts that can stand in a feed-forward's place.

Every expert computes for every position and a gate weighs the answers (Jacobs et al., "Adaptive
mixtures of local experts", 1991). Nothing is routed, so shapes stay static and the expert axis E
is one more axis of a stacked matrix product.
"""

import math
from typing import Any

import numpy as np

from numtape.ir.ops.normalisation import softmax
from numtape.nn import Dropout, Linear, Module, Parameter, init
from numtape.nn.checks import check_sizes
from numtape.transformer.feed_forward import ACTIVATIONS, known_activation


class ExpertLinear(Module):
    """E linear layers side by side: (E, N, inputs), or (N, inputs) for all, -> (E, N, outputs)."""

    def __init__(self, experts: int, inputs: int, outputs: int, bias: bool = True) -> None:
        weight = Parameter(np.empty((experts, inputs, outputs), np.float32))
        bound = math.sqrt(6.0 / (inputs + outputs))
        self.weight = init.uniform_(weight, -bound, bound)  # Xavier, expert by expert
        self.bias = Parameter(np.zeros((experts, 1, outputs), np.float32)) if bias else None

    def forward(self, x: Any) -> Any:
        out = x @ self.weight  # (E, N, outputs): x broadcasts over the experts
        return out if self.bias is None else out + self.bias


class MixtureOfExperts(Module):
    """Σₑ gₑ(x) FeedForwardₑ(x) with g = softmax(x W): (B, T, C) -> (B, T, C).

    Raises ValueError for sizes below 1, such as no experts.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        experts: int,
        dropout: float = 0.0,
        activation: str = "relu",
        bias: bool = True,
    ) -> None:
        check_sizes(d_model=d_model, d_ff=d_ff, experts=experts)
        self.activation = known_activation(activation)
        self.gate = Linear(d_model, experts, bias=False)
        self.up = ExpertLinear(experts, d_model, d_ff, bias)
        self.down = ExpertLinear(experts, d_ff, d_model, bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Any) -> Any:
        rows = x.reshape(-1, x.shape[-1])  # (B*T, C)
        share = softmax(self.gate(rows))  # (B*T, E)
        hidden = self.dropout(ACTIVATIONS[self.activation](self.up(rows)))  # (E, B*T, F)
        answers = self.down(hidden)  # (E, B*T, C)
        mixed = (answers * share.T.expand_dims(-1)).sum(0)  # (B*T, C)
        return mixed.reshape(x.shape)  # (B, T, C)
