"""Encoder and decoder layers and their stacks (Vaswani et al., 2017, section 3.1).

A layer is a few sublayers, each inside a `Residual`. The norms stand after the sums as published,
or before the sublayers with `pre_norm` (Xiong et al., "On layer normalization in the Transformer
architecture", 2020), where the stack ends in a norm of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

from numtape.nn import Dropout, LayerNorm, Module, ModuleList
from numtape.transformer.attention import MultiHeadAttention
from numtape.transformer.cache import CacheSlot
from numtape.transformer.feed_forward import FeedForward
from numtape.transformer.mixture import MixtureOfExperts


class Residual(Module):
    """A sublayer's answer, after dropout, added to its input; and the norm that goes with it."""

    def __init__(
        self, d_model: int, dropout: float = 0.0, pre_norm: bool = False, bias: bool = True
    ) -> None:
        self.pre_norm = pre_norm
        self.norm = LayerNorm(d_model, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Any, sublayer: Callable[[Any], Any]) -> Any:
        if self.pre_norm:
            return x + self.dropout(sublayer(self.norm(x)))
        return self.norm(x + self.dropout(sublayer(x)))


def position_wise(
    d_model: int, d_ff: int, activation: str, experts: int, bias: bool
) -> FeedForward | MixtureOfExperts:
    """A feed-forward, or a mixture of `experts` of them if there are any."""
    # No dropout inside: the published models drop only what a sublayer adds.
    if experts:
        return MixtureOfExperts(d_model, d_ff, experts, 0.0, activation, bias)
    return FeedForward(d_model, d_ff, 0.0, activation, bias)


class EncoderLayer(Module):
    """Self-attention and a feed-forward: (B, T, C) -> (B, T, C).

    With `causal` it is also the layer of a decoder-only model.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        d_ff: int,
        dropout: float = 0.1,
        *,
        pre_norm: bool = False,
        activation: str = "relu",
        experts: int = 0,
        bias: bool = True,
    ) -> None:
        self.attention = MultiHeadAttention(d_model, heads, dropout, bias)
        self.attention_residual = Residual(d_model, dropout, pre_norm, bias)
        self.feed_forward = position_wise(d_model, d_ff, activation, experts, bias)
        self.feed_forward_residual = Residual(d_model, dropout, pre_norm, bias)

    def forward(
        self, x: Any, mask: Any = None, causal: bool = False, cache: CacheSlot | None = None
    ) -> Any:
        x = self.attention_residual(x, lambda y: self.attention(y, None, mask, causal, cache))
        return self.feed_forward_residual(x, self.feed_forward)


class DecoderLayer(Module):
    """Self-attention, attention to the encoder's output and a feed-forward."""

    def __init__(
        self,
        d_model: int,
        heads: int,
        d_ff: int,
        dropout: float = 0.1,
        *,
        pre_norm: bool = False,
        activation: str = "relu",
        experts: int = 0,
        bias: bool = True,
    ) -> None:
        self.attention = MultiHeadAttention(d_model, heads, dropout, bias)
        self.attention_residual = Residual(d_model, dropout, pre_norm, bias)
        self.cross_attention = MultiHeadAttention(d_model, heads, dropout, bias, cross=True)
        self.cross_attention_residual = Residual(d_model, dropout, pre_norm, bias)
        self.feed_forward = position_wise(d_model, d_ff, activation, experts, bias)
        self.feed_forward_residual = Residual(d_model, dropout, pre_norm, bias)

    def forward(
        self,
        x: Any,
        memory: Any,
        memory_mask: Any = None,
        mask: Any = None,
        causal: bool = True,
        cache: CacheSlot | None = None,
    ) -> Any:
        """x (B, T, C), memory (B, S, C) or its keys and values, give (B, T, C)."""
        x = self.attention_residual(x, lambda y: self.attention(y, None, mask, causal, cache))
        x = self.cross_attention_residual(
            x, lambda y: self.cross_attention(y, memory, memory_mask)
        )
        return self.feed_forward_residual(x, self.feed_forward)


class Encoder(Module):
    """Layers one after another, and a final norm where the layers are pre-norm."""

    def __init__(self, layers: Sequence[EncoderLayer], norm: LayerNorm | None = None) -> None:
        self.layers = ModuleList(layers)
        self.norm = norm

    def forward(self, x: Any, mask: Any = None) -> Any:
        """x (B, S, C) and a mask that broadcasts to (B, H, S, S) give (B, S, C)."""
        for layer in self.layers:
            x = layer(x, mask)
        return x if self.norm is None else self.norm(x)


class Decoder(Module):
    """Layers that all read the encoder's output, and a final norm where they are pre-norm."""

    def __init__(self, layers: Sequence[DecoderLayer], norm: LayerNorm | None = None) -> None:
        self.layers = ModuleList(layers)
        self.norm = norm

    def forward(self, x: Any, memory: Any, memory_mask: Any = None) -> Any:
        """x (B, T, C), memory (B, S, C) and its mask (B, 1, 1, S) give (B, T, C), causally."""
        for layer in self.layers:
            x = layer(x, memory, memory_mask)
        return x if self.norm is None else self.norm(x)

    def step(
        self,
        x: Any,
        memory: Sequence[Any],
        memory_mask: Any,
        seen: Any,
        slots: Sequence[CacheSlot],
    ) -> Any:
        """One position x (B, 1, C) from each layer's cache and its keys and values of memory.

        seen: boolean (1, L), the positions of the cache that are filled.
        """
        for layer, known, slot in zip(self.layers, memory, slots, strict=True):
            x = layer(x, known, memory_mask, seen, False, slot)
        return x if self.norm is None else self.norm(x)
