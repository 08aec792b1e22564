"""The models that are measured: sizes, starting values and batches, the same for everybody.

Parameters go by the names that numtape's modules give them; the other contestants use the same
names, so that all start from the same values and must arrive at the same losses.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Shapes = dict[str, tuple[int, ...]]
LEARNING_RATE, BETAS, EPS, DECAY = 1e-3, (0.9, 0.999), 1e-8, 1e-2  # AdamW's


@dataclass(frozen=True)
class Model:
    """One size of one kind. `length` is the context, or the length of source and of target."""

    name: str
    kind: str  # "gpt", "mlp" or "translation"
    layers: int
    width: int
    heads: int
    length: int
    batch: int
    vocabulary: int  # or classes

    @property
    def hidden(self) -> int:
        return 4 * self.width

    @property
    def head(self) -> int:
        return self.width // self.heads

    def __str__(self) -> str:
        if self.kind == "mlp":
            return f"{self.layers} layers, width {self.width}, batch {self.batch}, ReLU"
        layers = f"{self.layers}+{self.layers}" if self.kind == "translation" else self.layers
        return (
            f"{layers} layers, width {self.width}, {self.heads} heads, length {self.length}, "
            f"batch {self.batch}, vocabulary {self.vocabulary:,}"
        )


MODELS = {
    m.name: m
    for m in (
        Model("mlp", "mlp", 3, 64, 1, 1, 32, 10),
        Model("tiny", "gpt", 2, 32, 2, 16, 4, 65),
        Model("nano", "gpt", 4, 128, 4, 64, 12, 65),
        Model("baby", "gpt", 6, 384, 6, 256, 8, 65),
        Model("mid", "gpt", 4, 512, 8, 128, 8, 1000),
        Model("base", "translation", 6, 512, 8, 64, 8, 8000),
    )
}


def shapes(model: Model) -> Shapes:
    """The parameters: weights (out, in), biases and gains (width,)."""
    return dict({"mlp": _mlp, "gpt": _gpt, "translation": _translation}[model.kind](model))


def parameters(model: Model) -> dict[str, np.ndarray]:
    """Starting values: gains 1, biases 0, weights uniform within ±1 / √in."""
    generator = np.random.default_rng(0)
    return {name: _start(generator, name, shape) for name, shape in shapes(model).items()}


def batch(model: Model) -> tuple[np.ndarray, ...]:
    """Inputs, then targets: int64 ids from 1 on, or float32 features and int64 classes."""
    generator = np.random.default_rng(1)
    if model.kind == "mlp":
        features = generator.standard_normal((model.batch, model.width), np.float32)
        return features, generator.integers(0, model.vocabulary, model.batch)
    count = 3 if model.kind == "translation" else 2
    size = (model.batch, model.length)
    return tuple(generator.integers(1, model.vocabulary, size) for _ in range(count))


def positions(model: Model) -> np.ndarray:
    """The sinusoidal table (length, width) of the encoder-decoder."""
    column = np.arange(model.width)
    angle = np.arange(model.length)[:, None] / 10000.0 ** ((column - column % 2) / model.width)
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def _start(generator: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        fill = 0.0 if name.endswith("bias") else 1.0
        return np.full(shape, fill, np.float32)
    values = generator.random(shape, np.float32)
    values -= 0.5
    values *= 2.0 / math.sqrt(shape[-1])
    return values


Named = Iterator[tuple[str, tuple[int, ...]]]


def _linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int, bias: bool = True) -> Named:
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)


def _mlp(m: Model) -> Named:
    for i in range(m.layers):
        last = i == m.layers - 1
        yield from _linear(str(2 * i), m.vocabulary if last else m.width, m.width)


def _self_attention(name: str, m: Model, bias: bool) -> Named:
    yield from _linear(f"{name}.attention.qkv", 3 * m.width, m.width, bias)
    yield from _linear(f"{name}.attention.out", m.width, m.width, bias)
    yield from _norm(f"{name}.attention_residual.norm", m.width, bias)


def _feed_forward(name: str, m: Model, bias: bool) -> Named:
    yield from _linear(f"{name}.feed_forward.up", m.hidden, m.width, bias)
    yield from _linear(f"{name}.feed_forward.down", m.width, m.hidden, bias)
    yield from _norm(f"{name}.feed_forward_residual.norm", m.width, bias)


def _gpt(m: Model) -> Named:
    yield "embedding.weight", (m.vocabulary, m.width)  # of the output too
    yield "positions.weight", (m.length, m.width)
    for i in range(m.layers):
        yield from _self_attention(f"layers.{i}", m, False)
        yield from _feed_forward(f"layers.{i}", m, False)
    yield from _norm("norm", m.width, False)


def _translation(m: Model) -> Named:
    for side in ("source", "target"):
        yield f"{side}_embedding.weight", (m.vocabulary, m.width)
    for i in range(m.layers):
        yield from _self_attention(f"encoder.layers.{i}", m, True)
        yield from _feed_forward(f"encoder.layers.{i}", m, True)
    for i in range(m.layers):
        name = f"decoder.layers.{i}"
        yield from _self_attention(name, m, True)
        yield from _linear(f"{name}.cross_attention.q", m.width, m.width)
        yield from _linear(f"{name}.cross_attention.kv", 2 * m.width, m.width)
        yield from _linear(f"{name}.cross_attention.out", m.width, m.width)
        yield from _norm(f"{name}.cross_attention_residual.norm", m.width)
        yield from _feed_forward(name, m, True)
    yield from _linear("output", m.vocabulary, m.width)
