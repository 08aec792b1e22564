"""JAX: the whole step under `jit`, parameters and moments donated."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.contestants.functional import Functional
from benchmarks.models import BETAS, DECAY, EPS, LEARNING_RATE, Model, batch, parameters


def attention(q: Any, k: Any, v: Any, mask: Any, causal: bool) -> Any:
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)


def adamw(state: tuple, gradients: Any) -> tuple:
    """New parameters, moments and count."""
    values, first, second, count = state
    (b1, b2), count = BETAS, count + 1
    first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, second, gradients)
    c1, c2 = 1 - b1**count, 1 - b2**count

    def update(p: Any, m: Any, v: Any) -> Any:
        return p - LEARNING_RATE * (m / c1 / (jnp.sqrt(v / c2) + EPS) + DECAY * p)

    return jax.tree.map(update, values, first, second), first, second, count


class Contestant:
    def __init__(self, model: Model, training: bool) -> None:
        function = Functional(jnp, model, partial(jax.nn.gelu, approximate=False), attention)
        values = jax.device_put(parameters(model))
        arrays = batch(model) if training else batch(model)[:-1]
        self.batch = jax.device_put(
            tuple(a.astype("int32") if a.dtype == int else a for a in arrays)
        )
        if not training:
            self.forward, self.values = jax.jit(function.logits), values
            self.step = self.infer
            return
        zeros = lambda: jax.tree.map(jnp.zeros_like, values)
        self.state = (values, zeros(), zeros(), jnp.zeros((), jnp.float32))
        self.step = self.train

        def whole(state: tuple, *batch: Any) -> tuple:
            loss, gradients = jax.value_and_grad(function.loss)(state[0], *batch)
            return adamw(state, gradients), loss

        self.whole = jax.jit(whole, donate_argnums=0)

    def train(self) -> jax.Array:
        self.state, loss = self.whole(self.state, *self.batch)
        jax.block_until_ready(self.state)
        return loss

    def infer(self) -> jax.Array:
        return jax.block_until_ready(self.forward(self.values, *self.batch))

    @staticmethod
    def number(result: jax.Array) -> float:
        return float(jnp.abs(result).mean())

    def facts(self) -> dict[str, Any]:
        return {}
