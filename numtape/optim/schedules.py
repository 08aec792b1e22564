"""Learning rates as functions of the step, which counts from 1.

Each takes a Python number and gives one (`optimizer.lr = schedule(step)` between steps), or a
tensor and gives one (`AdamW(parameters, lr=schedule)`, evaluated inside the step).
"""

import math
from collections.abc import Callable
from typing import Any

from numtape import functions
from numtape.tracer.tensor import Tensor

Schedule = Callable[[Any], Any]


def constant(lr: float) -> Schedule:
    """The same rate at every step."""
    return lambda step: lr


def inverse_square_root(d_model: int, warmup: int = 4000, factor: float = 1.0) -> Schedule:
    """factor · d_model^-0.5 · min(step^-0.5, step · warmup^-1.5).

    Linear for `warmup` steps, then falling (Vaswani et al., 2017, section 5.3, equation 3).
    """
    _check_positive(d_model=d_model, warmup=warmup)
    scale = factor * d_model**-0.5

    def schedule(step: Any) -> Any:
        return _minimum(step**-0.5, step * warmup**-1.5) * scale

    return schedule


def warmup_cosine(lr: float, warmup: int, total: int, minimum: float = 0.0) -> Schedule:
    """From 0 to `lr` over `warmup` steps, then half a cosine down to `minimum` at step `total`.

    Stays at `minimum` after that (Loshchilov, Hutter, 2017, equation 5, with one period).
    """
    _check_positive(warmup=warmup)
    if total <= warmup:
        raise ValueError(f"total counts the warm-up steps too: {total} is not above {warmup}")

    def schedule(step: Any) -> Any:
        done = _minimum(_maximum((step - warmup) / (total - warmup), 0.0), 1.0)
        cosine = minimum + (lr - minimum) * 0.5 * (1.0 + _cos(done * math.pi))
        return _minimum(step / warmup, 1.0) * cosine

    return schedule


def _check_positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is at least 1, got {count}")


def _minimum(x: Any, y: Any) -> Any:
    return functions.minimum(x, y) if isinstance(x, Tensor) else min(x, y)


def _maximum(x: Any, y: Any) -> Any:
    return functions.maximum(x, y) if isinstance(x, Tensor) else max(x, y)


def _cos(x: Any) -> Any:
    return functions.cos(x) if isinstance(x, Tensor) else math.cos(x)
