"""The position-wise feed-forward network (Vaswani et al., 2017, section 3.3)."""

from collections.abc import Callable
from typing import Any

from numtape.ir.ops.activations import gelu, gelu_tanh, mish, relu, silu
from numtape.nn import Dropout, Linear, Module
from numtape.nn.checks import check_sizes

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": relu,
    "gelu": gelu,  # exact, by the error function
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "mish": mish,
}


def known_activation(name: str) -> str:
    """The name itself; ValueError lists the names that exist."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is none of {sorted(ACTIVATIONS)}")
    return name


class FeedForward(Module):
    """activation(x W₁ + b₁) W₂ + b₂ at every position, with dropout after the activation.

    (B, T, d_model) -> (B, T, d_model) through d_ff dimensions.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        dropout: float = 0.0,
        activation: str = "relu",
        bias: bool = True,
    ) -> None:
        check_sizes(d_model=d_model, d_ff=d_ff)
        self.activation = known_activation(activation)
        self.up = Linear(d_model, d_ff, bias)
        self.down = Linear(d_ff, d_model, bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Any) -> Any:
        hidden = ACTIVATIONS[self.activation](self.up(x))  # (B, T, F)
        return self.down(self.dropout(hidden))
