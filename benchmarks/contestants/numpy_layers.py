"""Layers by hand: straight NumPy into buffers made beforehand, reverse parts worked on paper.

A layer's `forward` gives a buffer of its own that lives until the next step; `backward` takes the
gradient of that and gives one of the input, having left those of its parameters in `gradients`.
Arrays are matrices (rows, width); attention sees (B, H, T, d) through views.
"""

import math

import numpy as np

from benchmarks.contestants.adamw import AdamW

Array = np.ndarray
TILE = 1 << 15  # floats of a tile that stays in cache
HIDDEN_SCORE = -1e9


def buffer(*shape: int) -> Array:
    return np.empty(shape, np.float32)


class Linear:
    """x Wᵀ + b. `gradient` is where the input's gradient goes; None if nobody wants it."""

    def __init__(self, store: AdamW, name: str, rows: int, inner: bool = True) -> None:
        self.weight = store.values[f"{name}.weight"]
        self.weight_gradient = store.gradients[f"{name}.weight"]
        self.bias = store.values.get(f"{name}.bias")
        self.bias_gradient = store.gradients.get(f"{name}.bias")
        outputs, inputs = self.weight.shape
        self.out = buffer(rows, outputs)
        self.gradient = buffer(rows, inputs) if inner else None
        self.ones = np.ones(rows, np.float32)

    def forward(self, x: Array) -> Array:
        self.x = x
        np.matmul(x, self.weight.T, out=self.out)
        if self.bias is not None:
            np.add(self.out, self.bias, out=self.out)
        return self.out

    def backward(self, g: Array) -> Array | None:
        np.matmul(g.T, self.x, out=self.weight_gradient)
        if self.bias_gradient is not None:
            np.matmul(self.ones, g, out=self.bias_gradient)
        if self.gradient is not None:
            np.matmul(g, self.weight, out=self.gradient)
        return self.gradient


class LayerNorm:
    def __init__(self, store: AdamW, name: str, rows: int) -> None:
        self.gain = store.values[f"{name}.weight"]
        self.gain_gradient = store.gradients[f"{name}.weight"]
        self.bias = store.values.get(f"{name}.bias")
        self.bias_gradient = store.gradients.get(f"{name}.bias")
        (width,) = self.gain.shape
        self.normal, self.out, self.gradient = (buffer(rows, width) for _ in range(3))
        self.scale, self.column = buffer(rows, 1), buffer(rows, 1)
        self.mean = np.full((width, 1), 1.0 / width, np.float32)  # x @ mean: the rows' means
        self.ones = np.ones(rows, np.float32)

    def forward(self, x: Array) -> Array:
        normal, scale = self.normal, self.scale
        np.matmul(x, self.mean, out=self.column)
        np.subtract(x, self.column, out=normal)
        np.vecdot(normal, normal, out=scale[:, 0])
        np.multiply(scale, self.mean[0, 0], out=scale)
        np.add(scale, 1e-5, out=scale)
        np.sqrt(scale, out=scale)
        np.reciprocal(scale, out=scale)
        np.multiply(normal, scale, out=normal)
        np.multiply(normal, self.gain, out=self.out)
        if self.bias is not None:
            np.add(self.out, self.bias, out=self.out)
        return self.out

    def backward(self, g: Array) -> Array:
        normal, gradient, column = self.normal, self.gradient, self.column
        if self.bias_gradient is not None:
            np.matmul(self.ones, g, out=self.bias_gradient)
        np.multiply(g, normal, out=gradient)
        np.matmul(self.ones, gradient, out=self.gain_gradient)
        np.multiply(g, self.gain, out=gradient)
        np.matmul(gradient, self.mean, out=column)
        np.subtract(gradient, column, out=gradient)
        np.vecdot(gradient, normal, out=column[:, 0])
        np.multiply(column, self.mean[0, 0], out=column)
        np.multiply(normal, column, out=normal)  # nobody reads it again
        np.subtract(gradient, normal, out=gradient)
        np.multiply(gradient, self.scale, out=gradient)
        return gradient


class Attention:
    """softmax(q kᵀ / √d + mask) v on views (B, H, T, d); results and gradients go into views.

    The exponentials are not divided by their sums: products with them are, which are smaller.
    """

    def __init__(self, batch: int, heads: int, rows: int, columns: int, depth: int) -> None:
        self.scale = 1.0 / math.sqrt(depth)
        self.weights = buffer(batch, heads, rows, columns)
        self.errors = buffer(batch, heads, rows, columns)
        self.column = buffer(batch, heads, rows, 1)
        self.inverse = buffer(batch, heads, rows, 1)
        self.q = buffer(batch, heads, rows, depth)
        self.g = buffer(batch, heads, rows, depth)
        self.ones = np.ones((columns, 1), np.float32)

    def forward(self, q: Array, k: Array, v: Array, mask: Array, out: Array) -> None:
        weights, column = self.weights, self.column
        np.multiply(q, self.scale, out=self.q)
        np.matmul(self.q, k.swapaxes(2, 3), out=weights)
        np.add(weights, mask, out=weights)
        np.maximum.reduce(weights, axis=3, keepdims=True, out=column)
        np.subtract(weights, column, out=weights)
        np.exp(weights, out=weights)
        np.matmul(weights, self.ones, out=column)
        np.reciprocal(column, out=self.inverse)
        np.matmul(weights, v, out=out)
        np.multiply(out, self.inverse, out=out)

    def backward(self, g: Array, out: Array, k: Array, v: Array, into: tuple[Array, ...]) -> None:
        """`into`: where the gradients of q, k and v go."""
        weights, errors, column = self.weights, self.errors, self.column
        dq, dk, dv = into
        np.multiply(g, self.inverse, out=self.g)
        np.matmul(weights.swapaxes(2, 3), self.g, out=dv)
        np.matmul(self.g, v.swapaxes(2, 3), out=errors)
        np.vecdot(self.g, out, out=column[..., 0])
        np.subtract(errors, column, out=errors)
        np.multiply(errors, weights, out=errors)
        np.matmul(errors, k, out=dq)
        np.multiply(dq, self.scale, out=dq)
        np.matmul(errors.swapaxes(2, 3), self.q, out=dk)


class Heads:
    """A matrix (B T, parts C) seen as `parts` stacks (B, H, T, d)."""

    def __init__(self, matrix: Array, batch: int, heads: int, parts: int) -> None:
        view = matrix.reshape(batch, -1, parts, heads, matrix.shape[1] // parts // heads)
        self.parts = tuple(view[:, :, i].swapaxes(1, 2) for i in range(parts))


class SelfAttention:
    def __init__(self, store: AdamW, name: str, batch: int, length: int, heads: int) -> None:
        rows = batch * length
        self.qkv = Linear(store, f"{name}.qkv", rows)
        self.project = Linear(store, f"{name}.out", rows)
        width = self.project.weight.shape[0]
        self.core = Attention(batch, heads, length, length, width // heads)
        self.context = buffer(rows, width)
        (self.joined,) = Heads(self.context, batch, heads, 1).parts
        self.views = Heads(self.qkv.out, batch, heads, 3).parts
        self.errors = buffer(rows, 3 * width)
        self.into = Heads(self.errors, batch, heads, 3).parts
        (self.g,) = Heads(self.project.gradient, batch, heads, 1).parts

    def forward(self, x: Array, mask: Array) -> Array:
        self.qkv.forward(x)
        self.core.forward(*self.views, mask, self.joined)
        return self.project.forward(self.context)

    def backward(self, g: Array) -> Array:
        self.project.backward(g)
        self.core.backward(self.g, self.joined, *self.views[1:], self.into)
        return self.qkv.backward(self.errors)


class CrossAttention:
    def __init__(self, store: AdamW, name: str, batch: int, length: int, heads: int) -> None:
        rows = batch * length
        self.q, self.kv, self.project = (
            Linear(store, f"{name}.{part}", rows) for part in ("q", "kv", "out")
        )
        width = self.project.weight.shape[0]
        self.core = Attention(batch, heads, length, length, width // heads)
        self.context, self.dq = buffer(rows, width), buffer(rows, width)
        self.dkv = buffer(rows, 2 * width)
        (self.joined,) = Heads(self.context, batch, heads, 1).parts
        self.views = (
            *Heads(self.q.out, batch, heads, 1).parts,
            *Heads(self.kv.out, batch, heads, 2).parts,
        )
        self.into = (
            *Heads(self.dq, batch, heads, 1).parts,
            *Heads(self.dkv, batch, heads, 2).parts,
        )
        (self.g,) = Heads(self.project.gradient, batch, heads, 1).parts

    def forward(self, x: Array, memory: Array, mask: Array) -> Array:
        self.q.forward(x)
        self.kv.forward(memory)
        self.core.forward(*self.views, mask, self.joined)
        return self.project.forward(self.context)

    def backward(self, g: Array) -> tuple[Array, Array]:
        self.project.backward(g)
        self.core.backward(self.g, self.joined, *self.views[1:], self.into)
        return self.q.backward(self.dq), self.kv.backward(self.dkv)


class FeedForward:
    """Two linear layers about an activation: `gelu` (exact) or `relu`."""

    def __init__(self, store: AdamW, name: str, rows: int, gelu: bool, training: bool) -> None:
        self.up, self.down = Linear(store, f"{name}.up", rows), Linear(store, f"{name}.down", rows)
        self.activation = (Gelu if gelu else Relu)(self.up.out, training)

    def forward(self, x: Array) -> Array:
        self.up.forward(x)
        return self.down.forward(self.activation.forward())

    def backward(self, g: Array) -> Array:
        return self.up.backward(self.activation.backward(self.down.backward(g)))


class Relu:
    """Over its input; the gradient over the gradient it is given."""

    def __init__(self, x: Array, training: bool) -> None:
        self.x, self.positive = x, np.empty(x.shape, np.bool_)

    def forward(self) -> Array:
        return np.maximum(self.x, 0.0, out=self.x)

    def backward(self, g: Array) -> Array:
        np.greater(self.x, 0.0, out=self.positive)
        return np.multiply(g, self.positive, out=g)


# Φ(-z) = φ(z) · t · polynomial(t), t = 1 / (1 + p z): Abramowitz and Stegun, 7.1.26.
TAIL = (0.127414796, -0.142248368, 0.7107068705, -0.7265760135, 0.5307027145)
SLOPE = 0.3275911 / math.sqrt(2.0)


class Gelu:
    """x Φ(x), tile by tile; the derivative Φ(x) + x φ(x) is kept instead of x."""

    def __init__(self, x: Array, training: bool) -> None:
        self.out, self.training = buffer(*x.shape), training
        flat, out = x.reshape(-1), self.out.reshape(-1)
        self.x = x
        self.tiles = [(flat[i : i + TILE], out[i : i + TILE]) for i in range(0, x.size, TILE)]
        self.scratch = [buffer(TILE) for _ in range(3)]

    def forward(self) -> Array:
        for x, out in self.tiles:
            t, bell, total = (s[: x.size] for s in self.scratch)
            np.multiply(x, x, out=bell)
            np.multiply(bell, -0.5, out=bell)
            np.exp(bell, out=bell)
            np.absolute(x, out=t)
            np.multiply(t, SLOPE, out=t)
            np.add(t, 1.0, out=t)
            np.reciprocal(t, out=t)
            np.multiply(t, TAIL[4], out=total)
            for c in TAIL[3::-1]:
                np.add(total, c, out=total)
                np.multiply(total, t, out=total)
            np.multiply(total, bell, out=total)
            np.subtract(0.5, total, out=total)
            np.copysign(total, x, out=total)
            np.add(total, 0.5, out=total)
            np.multiply(x, total, out=out)
            if self.training:
                np.multiply(bell, 1.0 / math.sqrt(2.0 * math.pi), out=bell)
                np.multiply(bell, x, out=bell)
                np.add(total, bell, out=x)
        return self.out

    def backward(self, g: Array) -> Array:
        return np.multiply(g, self.x, out=g)


class Embedding:
    """Rows of a table; in reverse, rows of equal ids are added up before they go into it."""

    def __init__(self, store: AdamW, name: str, rows: int) -> None:
        self.weight, self.gradient = store.values[name], store.gradients[name]
        width = self.weight.shape[1]
        self.out, self.sorted, self.sums = (buffer(rows, width) for _ in range(3))

    def forward(self, ids: Array) -> Array:
        self.ids = ids.reshape(-1)
        return np.take(self.weight, self.ids, 0, out=self.out, mode="clip")

    def backward(self, g: Array) -> None:
        """Added to what the gradient is already."""
        order = np.argsort(self.ids)
        ids = self.ids[order]
        starts = np.flatnonzero(np.diff(ids, prepend=-1))
        np.take(g, order, 0, out=self.sorted, mode="clip")
        sums = np.add.reduceat(self.sorted, starts, 0, out=self.sums[: len(starts)])
        self.gradient[ids[starts]] += sums


class CrossEntropy:
    """The mean over rows; the logits are overwritten, in the end by their gradient."""

    def __init__(self, rows: int, classes: int) -> None:
        self.column, self.rows = buffer(rows, 1), np.arange(rows)
        self.ones = np.ones((classes, 1), np.float32)

    def forward(self, logits: Array, targets: Array) -> float:
        column = self.column
        self.at = (self.rows, targets.reshape(-1))
        np.maximum.reduce(logits, axis=1, keepdims=True, out=column)
        np.subtract(logits, column, out=logits)
        chosen = logits[self.at].sum()
        self.weights = np.exp(logits, out=logits)
        np.matmul(logits, self.ones, out=column)
        return (np.log(column).sum() - chosen) / len(self.rows)

    def backward(self) -> Array:
        np.multiply(self.column, len(self.rows), out=self.column)
        np.divide(self.weights, self.column, out=self.weights)
        self.weights[self.at] -= 1.0 / len(self.rows)
        return self.weights
