"""The models in PyTorch, in the manner of its tutorials; names of parameters as in `models`."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.models import Model, positions


def heads_of(x: Tensor, heads: int) -> Tensor:
    batch, length, width = x.shape
    return x.view(batch, length, heads, width // heads).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, m: Model, bias: bool, cross: bool = False) -> None:
        super().__init__()
        self.heads = m.heads
        if cross:
            self.q = nn.Linear(m.width, m.width, bias)
            self.kv = nn.Linear(m.width, 2 * m.width, bias)
        else:
            self.qkv = nn.Linear(m.width, 3 * m.width, bias)
        self.out = nn.Linear(m.width, m.width, bias)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        if memory is None:
            parts = self.qkv(x).chunk(3, -1)
        else:
            parts = (self.q(x), *self.kv(memory).chunk(2, -1))
        q, k, v = (heads_of(part, self.heads) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    def __init__(self, m: Model, bias: bool, activation: nn.Module) -> None:
        super().__init__()
        self.up = nn.Linear(m.width, m.hidden, bias)
        self.down = nn.Linear(m.hidden, m.width, bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class Residual(nn.Module):
    def __init__(self, m: Model, bias: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(m.width, bias=bias)


class GPTLayer(nn.Module):
    def __init__(self, m: Model) -> None:
        super().__init__()
        self.attention = Attention(m, bias=False)
        self.attention_residual = Residual(m, bias=False)
        self.feed_forward = FeedForward(m, False, nn.GELU())
        self.feed_forward_residual = Residual(m, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_residual.norm(x), causal=True)
        return x + self.feed_forward(self.feed_forward_residual.norm(x))


class GPT(nn.Module):
    def __init__(self, m: Model) -> None:
        super().__init__()
        self.embedding = nn.Embedding(m.vocabulary, m.width)
        self.positions = nn.Embedding(m.length, m.width)
        self.layers = nn.ModuleList(GPTLayer(m) for _ in range(m.layers))
        self.norm = nn.LayerNorm(m.width, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) + self.positions.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm(x), self.embedding.weight)


class Layer(nn.Module):
    """Post-norm; a decoder's with `cross`."""

    def __init__(self, m: Model, cross: bool) -> None:
        super().__init__()
        self.cross, self.causal = cross, cross
        self.attention = Attention(m, True)
        self.attention_residual = Residual(m, True)
        if cross:
            self.cross_attention = Attention(m, True, cross=True)
            self.cross_attention_residual = Residual(m, True)
        self.feed_forward = FeedForward(m, True, nn.ReLU())
        self.feed_forward_residual = Residual(m, True)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        own = None if self.cross else mask
        x = self.attention_residual.norm(x + self.attention(x, None, own, self.causal))
        if self.cross:
            answer = self.cross_attention(x, memory, mask)
            x = self.cross_attention_residual.norm(x + answer)
        return self.feed_forward_residual.norm(x + self.feed_forward(x))


class Stack(nn.Module):
    def __init__(self, m: Model, cross: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(m, cross) for _ in range(m.layers))

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask, memory)
        return x


class Translation(nn.Module):
    table: Tensor

    def __init__(self, m: Model) -> None:
        super().__init__()
        self.scale = math.sqrt(m.width)
        self.source_embedding = nn.Embedding(m.vocabulary, m.width)
        self.target_embedding = nn.Embedding(m.vocabulary, m.width)
        self.register_buffer("table", torch.from_numpy(positions(m)), persistent=False)
        self.encoder = Stack(m, cross=False)
        self.decoder = Stack(m, cross=True)
        self.output = nn.Linear(m.width, m.vocabulary)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = (source != 0)[:, None, None, :]
        x = self.source_embedding(source) * self.scale + self.table
        memory = self.encoder(x, mask)
        x = self.target_embedding(target) * self.scale + self.table
        return self.output(self.decoder(x, mask, memory))


def mlp(m: Model) -> nn.Module:
    inner = (nn.Linear(m.width, m.width) for _ in range(m.layers - 1))
    layers = [module for linear in inner for module in (linear, nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(m.width, m.vocabulary))


def module(m: Model) -> nn.Module:
    """The model, with PyTorch's own starting values."""
    return {"mlp": mlp, "gpt": GPT, "translation": Translation}[m.kind](m)
