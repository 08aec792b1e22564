"""A step written by hand in NumPy: buffers made once, `out=` everywhere, no library between."""

import math
from typing import Any

import numpy as np

from benchmarks.contestants.adamw import AdamW
from benchmarks.contestants.heap import heap_of
from benchmarks.contestants.numpy_layers import (
    HIDDEN_SCORE,
    Array,
    CrossAttention,
    CrossEntropy,
    Embedding,
    FeedForward,
    LayerNorm,
    Linear,
    Relu,
    SelfAttention,
    buffer,
)
from benchmarks.models import Model, batch, parameters, positions, shapes


class Contestant:
    def __init__(self, model: Model, training: bool) -> None:
        self.store = AdamW(shapes(model), parameters(model))
        kinds = {"mlp": Mlp, "gpt": GPT, "translation": Translation}
        self.network = kinds[model.kind](self.store, model, training)
        *self.inputs, self.targets = batch(model)
        self.loss = CrossEntropy(self.targets.size, model.vocabulary)
        self.step = self.train if training else self.infer

    def train(self) -> float:
        loss = self.loss.forward(self.network.forward(*self.inputs), self.targets)
        self.network.backward(self.loss.backward())
        self.store.step()
        return loss

    def infer(self) -> Array:
        return self.network.forward(*self.inputs)

    @staticmethod
    def number(result: Any) -> float:
        return float(np.abs(result).mean())

    def facts(self) -> dict[str, Any]:
        return {"heap": heap_of(self.step)}


class Mlp:
    def __init__(self, store: AdamW, m: Model, training: bool) -> None:
        names = [str(2 * i) for i in range(m.layers)]
        self.layers = [Linear(store, name, m.batch, inner=name != "0") for name in names]
        self.activations = [Relu(layer.out, training) for layer in self.layers[:-1]]

    def forward(self, x: Array) -> Array:
        for layer, activation in zip(self.layers, self.activations, strict=False):
            layer.forward(x)
            x = activation.forward()
        return self.layers[-1].forward(x)

    def backward(self, g: Array) -> None:
        g = self.layers[-1].backward(g)
        for layer, activation in zip(self.layers[-2::-1], self.activations[::-1], strict=True):
            g = layer.backward(activation.backward(g))


class GPTLayer:
    """Pre-norm; the stream x is added to in place."""

    def __init__(self, store: AdamW, name: str, m: Model, training: bool) -> None:
        rows = m.batch * m.length
        self.first = LayerNorm(store, f"{name}.attention_residual.norm", rows)
        self.attention = SelfAttention(store, f"{name}.attention", m.batch, m.length, m.heads)
        self.second = LayerNorm(store, f"{name}.feed_forward_residual.norm", rows)
        self.feed_forward = FeedForward(store, f"{name}.feed_forward", rows, True, training)

    def forward(self, x: Array, mask: Array) -> None:
        np.add(x, self.attention.forward(self.first.forward(x), mask), out=x)
        np.add(x, self.feed_forward.forward(self.second.forward(x)), out=x)

    def backward(self, g: Array) -> None:
        np.add(g, self.second.backward(self.feed_forward.backward(g)), out=g)
        np.add(g, self.first.backward(self.attention.backward(g)), out=g)


class GPT:
    def __init__(self, store: AdamW, m: Model, training: bool) -> None:
        rows = m.batch * m.length
        self.embedding = Embedding(store, "embedding.weight", rows)
        self.places = store.values["positions.weight"]
        self.places_gradient = store.gradients["positions.weight"]
        self.shape = (m.batch, m.length, m.width)
        self.mask = _causal(m.length)
        self.layers = [GPTLayer(store, f"layers.{i}", m, training) for i in range(m.layers)]
        self.norm = LayerNorm(store, "norm", rows)
        self.logits, self.g = buffer(rows, m.vocabulary), buffer(rows, m.width)

    def forward(self, ids: Array) -> Array:
        x = self.embedding.forward(ids)
        stacked = x.reshape(self.shape)
        np.add(stacked, self.places, out=stacked)
        for layer in self.layers:
            layer.forward(x, self.mask)
        self.last = self.norm.forward(x)
        return np.matmul(self.last, self.embedding.weight.T, out=self.logits)

    def backward(self, g: Array) -> None:
        np.matmul(g.T, self.last, out=self.embedding.gradient)
        g = self.norm.backward(np.matmul(g, self.embedding.weight, out=self.g))
        for layer in self.layers[::-1]:
            layer.backward(g)
        np.add.reduce(g.reshape(self.shape), axis=0, out=self.places_gradient)
        self.embedding.backward(g)


class TranslationLayer:
    """Post-norm; with `cross`, of the decoder."""

    def __init__(self, store: AdamW, name: str, m: Model, training: bool, cross: bool) -> None:
        rows = m.batch * m.length
        sizes = (m.batch, m.length, m.heads)
        self.attention = SelfAttention(store, f"{name}.attention", *sizes)
        self.first = LayerNorm(store, f"{name}.attention_residual.norm", rows)
        self.cross = None
        if cross:
            self.cross = CrossAttention(store, f"{name}.cross_attention", *sizes)
            self.second = LayerNorm(store, f"{name}.cross_attention_residual.norm", rows)
        self.feed_forward = FeedForward(store, f"{name}.feed_forward", rows, False, training)
        self.third = LayerNorm(store, f"{name}.feed_forward_residual.norm", rows)

    def forward(
        self, x: Array, own: Array, memory: Array | None = None, mask: Array | None = None
    ) -> Array:
        y = self.attention.forward(x, own)
        x = self.first.forward(np.add(x, y, out=y))
        if self.cross is not None:
            y = self.cross.forward(x, memory, mask)
            x = self.second.forward(np.add(x, y, out=y))
        y = self.feed_forward.forward(x)
        return self.third.forward(np.add(x, y, out=y))

    def backward(self, g: Array, memory_gradient: Array | None = None) -> Array:
        g = self.third.backward(g)
        np.add(g, self.feed_forward.backward(g), out=g)
        if self.cross is not None:
            g = self.second.backward(g)
            own, others = self.cross.backward(g)
            np.add(memory_gradient, others, out=memory_gradient)
            np.add(g, own, out=g)
        g = self.first.backward(g)
        return np.add(g, self.attention.backward(g), out=g)


class Translation:
    def __init__(self, store: AdamW, m: Model, training: bool) -> None:
        rows = m.batch * m.length
        self.shape, self.scale = (m.batch, m.length, m.width), math.sqrt(m.width)
        self.table, self.causal = positions(m), _causal(m.length)
        self.mask = buffer(m.batch, 1, 1, m.length)
        self.source, self.target = (
            Embedding(store, f"{side}_embedding.weight", rows) for side in ("source", "target")
        )
        self.encoder, self.decoder = (
            [
                TranslationLayer(store, f"{side}.layers.{i}", m, training, side == "decoder")
                for i in range(m.layers)
            ]
            for side in ("encoder", "decoder")
        )
        self.output = Linear(store, "output", rows)
        self.memory_gradient = buffer(rows, m.width)

    def forward(self, source: Array, target: Array) -> Array:
        np.multiply((source == 0)[:, None, None], HIDDEN_SCORE, out=self.mask, casting="unsafe")
        memory = self._embed(self.source, source)
        for layer in self.encoder:
            memory = layer.forward(memory, self.mask)
        x = self._embed(self.target, target)
        for layer in self.decoder:
            x = layer.forward(x, self.causal, memory, self.mask)
        return self.output.forward(x)

    def backward(self, g: Array) -> None:
        g = self.output.backward(g)
        self.memory_gradient[...] = 0.0
        for layer in self.decoder[::-1]:
            g = layer.backward(g, self.memory_gradient)
        self._embedded(self.target, g)
        g = self.memory_gradient
        for layer in self.encoder[::-1]:
            g = layer.backward(g)
        self._embedded(self.source, g)

    def _embed(self, embedding: Embedding, ids: Array) -> Array:
        x = embedding.forward(ids)
        np.multiply(x, self.scale, out=x)
        stacked = x.reshape(self.shape)
        np.add(stacked, self.table, out=stacked)
        return x

    def _embedded(self, embedding: Embedding, g: Array) -> None:
        np.multiply(g, self.scale, out=g)
        embedding.gradient[...] = 0.0
        embedding.backward(g)


def _causal(length: int) -> Array:
    """What is added to scores: hides later positions."""
    return np.triu(np.full((length, length), HIDDEN_SCORE, np.float32), 1)
