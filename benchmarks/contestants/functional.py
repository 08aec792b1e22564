"""The models as functions of a dict of parameters, on any module with NumPy's functions.

JAX, autograd and MyGrad differentiate them; each says what to use where NumPy has no function of
the name, or where its own documentation recommends another.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.models import Model, positions

Parameters = dict[str, Any]
Function = Callable[..., Any]


class Functional:
    """`logits(parameters, *inputs)` and `loss(parameters, *inputs, targets)`.

    attention takes q, k, v (B, T, H, d), a mask or None and `causal`.
    """

    def __init__(self, xp: Any, model: Model, gelu: Function, attention: Function | None = None):
        self.xp, self.model, self.gelu = xp, model, gelu
        self.attend = attention or self._attend
        models = {"mlp": self._mlp, "gpt": self._gpt, "translation": self._translation}
        self.logits = models[model.kind]
        self.table = positions(model) if model.kind == "translation" else None

    def loss(self, p: Parameters, *batch: Any) -> Any:
        """The mean cross entropy."""
        xp = self.xp
        *inputs, targets = batch
        logits = self.logits(p, *inputs).reshape(-1, self.model.vocabulary)
        shifted = logits - xp.max(logits, axis=-1, keepdims=True)
        chosen = shifted[np.arange(len(logits)), targets.reshape(-1)]
        return xp.mean(xp.log(xp.sum(xp.exp(shifted), axis=-1)) - chosen)

    # ---- models ------------------------------------------------------------------------------

    def _mlp(self, p: Parameters, x: Any) -> Any:
        for i in range(self.model.layers - 1):
            x = self.xp.maximum(_linear(p, str(2 * i), x), 0.0)
        return _linear(p, str(2 * i + 2), x)

    def _gpt(self, p: Parameters, ids: Any) -> Any:
        x = p["embedding.weight"][ids] + p["positions.weight"]
        for i in range(self.model.layers):
            name = f"layers.{i}"
            y = self._norm(p, f"{name}.attention_residual.norm", x)
            x = x + self._self_attention(p, f"{name}.attention", y, None, True)
            y = self._norm(p, f"{name}.feed_forward_residual.norm", x)
            x = x + self._feed_forward(p, f"{name}.feed_forward", y, self.gelu)
        return self._norm(p, "norm", x) @ p["embedding.weight"].T

    def _translation(self, p: Parameters, source: Any, target: Any) -> Any:
        mask = (source != 0)[:, None, None, :]
        memory = self._embed(p, "source", source)
        for i in range(self.model.layers):
            memory = self._layer(p, f"encoder.layers.{i}", memory, mask)
        x = self._embed(p, "target", target)
        for i in range(self.model.layers):
            x = self._layer(p, f"decoder.layers.{i}", x, mask, memory)
        return _linear(p, "output", x)

    def _embed(self, p: Parameters, side: str, ids: Any) -> Any:
        scale = math.sqrt(self.model.width)
        return p[f"{side}_embedding.weight"][ids] * scale + self.table

    def _layer(self, p: Parameters, name: str, x: Any, mask: Any, memory: Any = None) -> Any:
        """Post-norm; with `memory`, of the decoder."""
        own = mask if memory is None else None
        y = self._self_attention(p, f"{name}.attention", x, own, memory is not None)
        x = self._norm(p, f"{name}.attention_residual.norm", x + y)
        if memory is not None:
            y = self._cross_attention(p, f"{name}.cross_attention", x, memory, mask)
            x = self._norm(p, f"{name}.cross_attention_residual.norm", x + y)
        relu = lambda y: self.xp.maximum(y, 0.0)
        y = self._feed_forward(p, f"{name}.feed_forward", x, relu)
        return self._norm(p, f"{name}.feed_forward_residual.norm", x + y)

    # ---- parts -------------------------------------------------------------------------------

    def _norm(self, p: Parameters, name: str, x: Any) -> Any:
        centred = x - self.xp.mean(x, axis=-1, keepdims=True)
        variance = self.xp.mean(centred * centred, axis=-1, keepdims=True)
        y = centred / self.xp.sqrt(variance + 1e-5) * p[f"{name}.weight"]
        return y + p[f"{name}.bias"] if f"{name}.bias" in p else y

    def _feed_forward(self, p: Parameters, name: str, x: Any, activation: Function) -> Any:
        return _linear(p, f"{name}.down", activation(_linear(p, f"{name}.up", x)))

    def _self_attention(self, p: Parameters, name: str, x: Any, mask: Any, causal: bool) -> Any:
        y = self.attend(*self._heads(_linear(p, f"{name}.qkv", x), 3), mask, causal)
        return _linear(p, f"{name}.out", y.reshape(x.shape))

    def _cross_attention(self, p: Parameters, name: str, x: Any, memory: Any, mask: Any) -> Any:
        (q,) = self._heads(_linear(p, f"{name}.q", x), 1)
        k, v = self._heads(_linear(p, f"{name}.kv", memory), 2)
        return _linear(p, f"{name}.out", self.attend(q, k, v, mask, False).reshape(x.shape))

    def _heads(self, x: Any, parts: int) -> list[Any]:
        shape = (*x.shape[:2], self.model.heads, self.model.head)
        return [part.reshape(shape) for part in self.xp.split(x, parts, -1)]

    def _attend(self, q: Any, k: Any, v: Any, mask: Any, causal: bool) -> Any:
        xp = self.xp
        q, k, v = (xp.swapaxes(part, 1, 2) for part in (q, k, v))
        scores = q @ xp.swapaxes(k, 2, 3) * (1.0 / math.sqrt(self.model.head))
        if causal:
            length = self.model.length
            scores = scores + np.triu(np.full((length, length), -1e9, np.float32), 1)
        if mask is not None:
            scores = xp.where(mask, scores, -1e9)
        weights = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
        weights = weights / xp.sum(weights, axis=-1, keepdims=True)
        return xp.swapaxes(weights @ v, 1, 2)


def _linear(p: Parameters, name: str, x: Any) -> Any:
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y
