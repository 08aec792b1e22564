"""The encoder-decoder Transformer of "Attention is all you need" (Vaswani et al., 2017).

Read `forward`, then `encode` and `decode`; `blocks` and `attention` are what they are made of.
`prepare` and `step` compute the same one position at a time, for `decoding`.
"""

import math
from collections.abc import Sequence
from typing import Any, Self

from numtape.ir.interpreter import current
from numtape.ir.types import ShapeError
from numtape.nn import Dropout, Embedding, LayerNorm, Linear, Module, init
from numtape.transformer.attention import padding_mask
from numtape.transformer.blocks import Decoder, DecoderLayer, Encoder, EncoderLayer
from numtape.transformer.cache import KeyValueCache, Memory, visible
from numtape.transformer.checks import as_ids
from numtape.transformer.config import TransformerConfig
from numtape.transformer.pool import SessionPool
from numtape.transformer.positions import SinusoidalPositions


class Transformer(Module):
    """Source ids (B, S) and target ids (B, T) to logits (B, T, tgt_vocab).

    Post-norm, sinusoidal positions, embeddings times √d_model, dropout on what sublayers add, on
    attention weights and on embeddings. The fields are those of `TransformerConfig`, which says
    what they mean and raises ValueError where they do not fit together.
    """

    def __init__(
        self,
        src_vocab: int,
        tgt_vocab: int,
        d_model: int = 512,
        heads: int = 8,
        layers: int = 6,
        d_ff: int = 2048,
        dropout: float = 0.1,
        *,
        pre_norm: bool = False,
        tie_embeddings: bool | str = False,
        activation: str = "relu",
        experts: int = 0,
        max_length: int = 1024,
        pad: int = 0,
    ) -> None:
        self.config = TransformerConfig(
            src_vocab=src_vocab,
            tgt_vocab=tgt_vocab,
            d_model=d_model,
            heads=heads,
            layers=layers,
            d_ff=d_ff,
            dropout=dropout,
            pre_norm=pre_norm,
            tie_embeddings=tie_embeddings,
            activation=activation,
            experts=experts,
            max_length=max_length,
            pad=pad,
        )
        self.sessions = SessionPool()
        self._build(self.config)
        self._initialise()

    @classmethod
    def from_config(cls, config: TransformerConfig) -> Self:
        """The model that a configuration describes, newly initialised."""
        return cls(**config.to_dict())

    def _build(self, c: TransformerConfig) -> None:
        def norm() -> LayerNorm | None:
            return LayerNorm(c.d_model) if c.pre_norm else None

        def layers(kind: type) -> list[Any]:
            options = {"pre_norm": c.pre_norm, "activation": c.activation, "experts": c.experts}
            sizes = (c.d_model, c.heads, c.d_ff, c.dropout)
            return [kind(*sizes, **options) for _ in range(c.layers)]

        self.source_embedding = Embedding(c.src_vocab, c.d_model)
        self.target_embedding = Embedding(c.tgt_vocab, c.d_model)
        self.positions = SinusoidalPositions(c.max_length, c.d_model)
        self.dropout = Dropout(c.dropout)
        self.encoder = Encoder(layers(EncoderLayer), norm())
        self.decoder = Decoder(layers(DecoderLayer), norm())
        self.output = Linear(c.d_model, c.tgt_vocab)
        if c.tie_embeddings:
            self.output.weight = self.target_embedding.weight
        if c.tie_embeddings == "all":
            self.source_embedding.weight = self.target_embedding.weight

    def _initialise(self) -> None:
        """Xavier for matrices, zero for biases, and embeddings of variance 1 / d_model."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                init.zeros_(parameter)
            elif parameter.ndim == 2:
                init.xavier_uniform_(parameter)
        # Last, because the output may share a weight with them; times √d_model they are N(0, 1).
        for embedding in (self.source_embedding, self.target_embedding):
            init.normal_(embedding.weight, std=1.0 / math.sqrt(self.config.d_model))

    # ---- training ----------------------------------------------------------------------------

    def forward(self, src: Any, tgt: Any) -> Any:
        """Logits (B, T, tgt_vocab): position t predicts the id after tgt[:, t].

        src (B, S), tgt (B, T): integers. Source positions equal to `pad` are not attended to.
        Padding at the end of tgt needs no mask: no earlier position sees it.
        """
        return self.decode(tgt, self.encode(src), src)

    def encode(self, src: Any) -> Any:
        """Integers (B, S) give the memory (B, S, C)."""
        ids = self._sources(src)
        x = self._embed(ids, self.source_embedding)  # (B, S, C)
        return self.encoder(x, padding_mask(ids, self.config.pad))

    def decode(self, tgt: Any, memory: Any, src: Any) -> Any:
        """Integers (B, T), memory (B, S, C) and its source ids (B, S) give logits (B, T, V)."""
        ids = as_ids(tgt, "target", self.config.max_length, self.config.tgt_vocab)
        sources = self._sources(src)
        if not ids.shape[0] == sources.shape[0] == memory.shape[0]:
            raise ShapeError(
                f"{sources.shape[0]} sources and {ids.shape[0]} targets make no batch; give both "
                "one row per sentence"
            )
        x = self._embed(ids, self.target_embedding)  # (B, T, C)
        x = self.decoder(x, memory, padding_mask(sources, self.config.pad))
        return self.output(x)

    def _sources(self, src: Any) -> Any:
        return as_ids(src, "source", self.config.max_length, self.config.src_vocab)

    def _embed(self, ids: Any, embedding: Embedding, start: Any = None) -> Any:
        x = embedding(ids) * math.sqrt(self.config.d_model)  # (B, T, C)
        return self.dropout(x + self.positions(ids.shape[1], start))

    # ---- decoding, one position at a time ----------------------------------------------------

    def prepare(self, src: Any) -> Memory:
        """What `step` needs of the source (B, S), computed once."""
        memory = self.encode(src)
        layers = (layer.cross_attention.keys_values(memory) for layer in self.decoder.layers)
        return Memory(tuple(layers), padding_mask(src, self.config.pad))

    def new_caches(self, batch: int, length: int) -> tuple[KeyValueCache, ...]:
        """An empty cache of `length` positions for each decoder layer."""
        c = self.config
        shape = (batch, c.heads, length, c.d_model // c.heads)
        dtype = self.target_embedding.weight.dtype
        return tuple(KeyValueCache.empty(*shape, dtype) for _ in range(c.layers))

    def step(
        self,
        ids: Any,
        position: Any,
        memory: Memory,
        caches: Sequence[KeyValueCache],
        order: Any = None,
    ) -> Any:
        """Logits (B, V) for the id after `ids` (B, 1), which stand at `position` (1,).

        Fills that position of the caches. `order` (B,): the row that each row continues.
        """
        seen = visible(position, 1, caches[0].length)  # (1, L)
        slots = [cache.at(position, order) for cache in caches]
        x = self._embed(current().lift(ids), self.target_embedding, position)  # (B, 1, C)
        x = self.decoder.step(x, memory.layers, memory.mask, seen, slots)
        return self.output(x).squeeze(1)  # (B, V)
