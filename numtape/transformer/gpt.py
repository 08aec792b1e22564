"""A decoder-only language model in the manner of GPT-2 (Radford et al., 2019) and nanoGPT.

Pre-norm layers with causal self-attention, learned positions, exact GELU, and an output head that
shares the embedding's weight.
"""

import math
from collections.abc import Sequence
from typing import Any, Self

from numtape.nn import Dropout, Embedding, LayerNorm, Linear, Module, ModuleList, init
from numtape.transformer.blocks import EncoderLayer
from numtape.transformer.cache import KeyValueCache, visible
from numtape.transformer.checks import as_ids
from numtape.transformer.config import GPTConfig
from numtape.transformer.pool import SessionPool
from numtape.transformer.positions import LearnedPositions


class GPT(Module):
    """Token ids (B, T) to logits (B, T, vocab), position t predicting the id at t + 1.

    The fields are those of `GPTConfig`, which raises ValueError where they do not fit together.
    """

    def __init__(
        self,
        vocab: int,
        context: int,
        d_model: int,
        heads: int,
        layers: int,
        dropout: float = 0.0,
        bias: bool = False,
        experts: int = 0,
        activation: str = "gelu",
        d_ff: int | None = None,
    ) -> None:
        self.config = c = GPTConfig(
            vocab=vocab,
            context=context,
            d_model=d_model,
            heads=heads,
            layers=layers,
            dropout=dropout,
            bias=bias,
            experts=experts,
            activation=activation,
            d_ff=d_ff,
        )
        self.sessions = SessionPool()
        self.embedding = Embedding(vocab, d_model)
        self.positions = LearnedPositions(context, d_model)
        self.dropout = Dropout(dropout)
        self.layers = ModuleList([self._layer(c) for _ in range(layers)])
        self.norm = LayerNorm(d_model, bias=bias)
        self.head = Linear(d_model, vocab, bias=False)
        self.head.weight = self.embedding.weight
        self._initialise()

    @classmethod
    def from_config(cls, config: GPTConfig) -> Self:
        """The model that a configuration describes, newly initialised."""
        return cls(**config.to_dict())

    @staticmethod
    def _layer(c: GPTConfig) -> EncoderLayer:
        return EncoderLayer(
            c.d_model,
            c.heads,
            c.d_ff or 4 * c.d_model,
            c.dropout,
            pre_norm=True,
            activation=c.activation,
            experts=c.experts,
            bias=c.bias,
        )

    def _initialise(self) -> None:
        """N(0, 0.02), less for what is added to the residual stream (Radford et al., 2.3)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                init.zeros_(parameter)
            elif parameter.ndim > 1:
                onto_stream = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
                scale = 1.0 / math.sqrt(2 * self.config.layers) if onto_stream else 1.0
                init.normal_(parameter, std=0.02 * scale)

    def forward(self, ids: Any) -> Any:
        """Integers (B, T), T at most `context`, give logits (B, T, vocab)."""
        x = self._embed(self._text(ids))  # (B, T, C)
        for layer in self.layers:
            x = layer(x, causal=True)
        return self.head(self.norm(x))

    def _text(self, ids: Any) -> Any:
        return as_ids(ids, "text", self.config.context, self.config.vocab)

    def _embed(self, ids: Any, start: Any = None) -> Any:
        return self.dropout(self.embedding(ids) + self.positions(ids.shape[1], start))

    # ---- decoding ----------------------------------------------------------------------------

    def new_caches(self, batch: int, length: int) -> tuple[KeyValueCache, ...]:
        """An empty cache of `length` positions for each layer."""
        c = self.config
        shape = (batch, c.heads, length, c.d_model // c.heads)
        dtype = self.embedding.weight.dtype
        return tuple(KeyValueCache.empty(*shape, dtype) for _ in range(c.layers))

    def step(
        self, ids: Any, position: Any, caches: Sequence[KeyValueCache], last: Any = None
    ) -> Any:
        """Logits (B, vocab) for the id after `ids` (B, T), which stand from `position` (1,) on.

        Fills those positions of the caches; T is 1 or the caches' length. `last` (1,): the row
        of ids that counts, the final one by default.
        """
        held = self._text(ids)
        seen = visible(position, held.shape[1], caches[0].length)  # (T, L)
        x = self._embed(held, position)  # (B, T, C)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, seen, cache=cache.at(position))
        x = x[:, -1] if last is None else x.take(last, 1).squeeze(1)  # (B, C)
        return self.head(self.norm(x))
