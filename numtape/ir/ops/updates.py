"""What an optimizer works out once per step, for all parameters: a few numbers in one call."""

import math
from typing import Any

import numpy as np

from numtape.ir.op import Example, Op
from numtape.ir.ops.rules import require_float
from numtape.ir.types import ShapeError, Type


def _infer_adam_scalars(
    count: Type,
    lr: Type,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    dtype: np.dtype,
) -> Type:
    require_float(count, lr)
    for t in (count, lr):
        if t.shape != ():
            raise ShapeError(f"the step count and the learning rate are scalars, not {t}")
    return Type(np.dtype(dtype), (3,))


def adam_scalars(
    count: np.ndarray,
    lr: np.ndarray,
    out: np.ndarray,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    dtype: np.dtype,
) -> None:
    """Step size, eps and the share that weight decay leaves, worked out in float64."""
    # Python's floats: they take less than half the time of NumPy's scalars.
    n, rate, (b1, b2) = float(count), float(lr), betas
    scale = math.sqrt((1.0 - b2**n) / (1.0 - b2))
    out[0] = rate * (1.0 - b1) / (1.0 - b1**n) * scale
    out[1] = scale * eps
    out[2] = 1.0 - rate * weight_decay


def _reference(
    count: np.ndarray,
    lr: np.ndarray,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    dtype: np.dtype,
) -> np.ndarray:
    first, second = (1 - np.power(beta, count) for beta in betas)
    scale = np.sqrt(second / (1 - betas[1]))
    values = [lr * (1 - betas[0]) / first * scale, scale * eps, 1 - lr * weight_decay]
    return np.array(values, dtype)


_adam_scalars = Op(
    "adam_scalars",
    _infer_adam_scalars,
    adam_scalars,
    examples=(
        Example(
            lambda rng: (np.asarray(rng.integers(1, 9), np.float64), np.asarray(rng.random())),
            _reference,
            {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "dtype": np.dtype("f8")},
        ),
    ),
)


def adam_numbers(
    count: Any,
    lr: Any,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    dtype: np.dtype,
) -> tuple[Any, ...]:
    """Step size, eps and the share that decay leaves, as scalars in the parameters' dtype.

    count, lr: float scalars. With m = (1 - b1) M, v = (1 - b2) V for the paper's means and
    s = √((1 - b2^t) / (1 - b2)), the step is lr (1 - b1) / (1 - b1^t) s · M / (√V + eps s).
    """
    numbers = _adam_scalars(
        count, lr, betas=betas, eps=eps, weight_decay=weight_decay, dtype=dtype
    )
    return numbers[0], numbers[1], numbers[2]
