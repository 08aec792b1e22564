"""The two models made of PyTorch's own layers, and which parameters are the same."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch_peer import torch

from fuzz.peers import as_torch, torch_dtype
from numtape.transformer import GPT, Transformer

# One of PyTorch's parameters, and those of numtape that it joins along the first axis.
Pairs = Iterator[tuple[Any, tuple[Any, ...]]]


class EncoderDecoder(torch.nn.Module):
    """`torch.nn.Transformer` between embeddings and an output layer, as in the paper."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        c = self.config = model.config
        self.source_embedding = torch.nn.Embedding(c.src_vocab, c.d_model)
        self.target_embedding = torch.nn.Embedding(c.tgt_vocab, c.d_model)
        sizes = (c.d_model, c.heads, c.layers, c.layers, c.d_ff)
        self.core = torch.nn.Transformer(
            *sizes, 0.0, c.activation, batch_first=True, norm_first=c.pre_norm
        )
        if not c.pre_norm:  # the published model ends without another norm
            self.core.encoder.norm = self.core.decoder.norm = None
        self.output = torch.nn.Linear(c.d_model, c.tgt_vocab)
        if c.tie_embeddings:
            self.output.weight = self.target_embedding.weight
            self.source_embedding.weight = self.target_embedding.weight
        self.table = as_torch(model.positions.table.numpy())
        self.to(torch_dtype(model.output.weight.dtype))

    def forward(self, src: Any, tgt: Any) -> Any:
        unseen = src == self.config.pad
        length = tgt.shape[1]
        hidden = self.core(
            self._embedded(src, self.source_embedding),
            self._embedded(tgt, self.target_embedding),
            tgt_mask=torch.ones(length, length).triu(1).bool(),
            src_key_padding_mask=unseen,
            memory_key_padding_mask=unseen,
        )
        return self.output(hidden)

    def _embedded(self, ids: Any, embedding: Any) -> Any:
        return embedding(ids) * math.sqrt(self.config.d_model) + self.table[: ids.shape[1]]

    def pairs(self, model: Transformer) -> Pairs:
        yield self.source_embedding.weight, (model.source_embedding.weight,)
        yield self.target_embedding.weight, (model.target_embedding.weight,)
        yield self.output.weight, (model.output.weight,)
        yield self.output.bias, (model.output.bias,)
        for theirs, mine in (
            (self.core.encoder, model.encoder),
            (self.core.decoder, model.decoder),
        ):
            for layer, own in zip(theirs.layers, mine.layers, strict=True):
                yield from _layer(layer, own)
            if mine.norm is not None:
                yield from _alike(theirs.norm, mine.norm)


class LanguageModel(torch.nn.Module):
    """GPT of `torch.nn.TransformerEncoderLayer`s under a causal mask."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        c = model.config
        self.embedding = torch.nn.Embedding(c.vocab, c.d_model)
        self.positions = torch.nn.Embedding(c.context, c.d_model)
        options = {"activation": c.activation, "batch_first": True, "norm_first": True}
        sizes = (c.d_model, c.heads, 4 * c.d_model, 0.0)
        self.layers = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(*sizes, **options, bias=c.bias)
            for _ in range(c.layers)
        )
        self.norm = torch.nn.LayerNorm(c.d_model, bias=c.bias)
        self.to(torch_dtype(model.embedding.weight.dtype))

    def forward(self, ids: Any) -> Any:
        length = ids.shape[1]
        x = self.embedding(ids) + self.positions.weight[:length]
        for layer in self.layers:
            x = layer(x, torch.ones(length, length).triu(1).bool())
        return torch.nn.functional.linear(self.norm(x), self.embedding.weight)

    def pairs(self, model: GPT) -> Pairs:
        yield self.embedding.weight, (model.embedding.weight,)
        yield self.positions.weight, (model.positions.weight,)
        for layer, own in zip(self.layers, model.layers, strict=True):
            yield from _layer(layer, own)
        yield from _alike(self.norm, model.norm)


def _alike(theirs: Any, *mine: Any) -> Pairs:
    yield theirs.weight, tuple(m.weight for m in mine)
    if theirs.bias is not None:
        yield theirs.bias, tuple(m.bias for m in mine)


def _attention(theirs: Any, own: Any) -> Pairs:
    sources = (own.q, own.kv) if own.cross else (own.qkv,)
    yield theirs.in_proj_weight, tuple(s.weight for s in sources)
    if theirs.in_proj_bias is not None:
        yield theirs.in_proj_bias, tuple(s.bias for s in sources)
    yield from _alike(theirs.out_proj, own.out)


def _layer(theirs: Any, own: Any) -> Pairs:
    residuals = [own.attention_residual, own.feed_forward_residual]
    yield from _attention(theirs.self_attn, own.attention)
    if hasattr(own, "cross_attention"):
        yield from _attention(theirs.multihead_attn, own.cross_attention)
        residuals.insert(1, own.cross_attention_residual)
    yield from _alike(theirs.linear1, own.feed_forward.up)
    yield from _alike(theirs.linear2, own.feed_forward.down)
    for i, residual in enumerate(residuals, start=1):
        yield from _alike(getattr(theirs, f"norm{i}"), residual.norm)


def load(theirs: Any, mine: Any) -> None:
    """numtape's parameters into PyTorch's; every one of both, or AssertionError."""
    pairs = list(theirs.pairs(mine))
    assert {id(p) for p, _ in pairs} == set(map(id, theirs.parameters()))
    assert {id(p) for _, held in pairs for p in held} == set(map(id, mine.parameters()))
    with torch.no_grad():
        for p, held in pairs:
            p.copy_(as_torch(np.concatenate([h.numpy() for h in held])))
