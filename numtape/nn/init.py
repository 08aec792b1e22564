"""Initial values of parameters, written in place; called by the layers' constructors.

All draw from the default generator (`nt.random.seed`), in float64, so that a float32 and a
float64 model of one seed start alike.
"""

import math
from typing import TypeVar

import numpy as np

from numtape.ir.types import ShapeError
from numtape.tracer import random
from numtape.tracer.tensor import Tensor

T = TypeVar("T", bound=Tensor)


def zeros_(tensor: T) -> T:
    """Fill with 0."""
    return _filled(tensor, np.zeros(tensor.shape))


def ones_(tensor: T) -> T:
    """Fill with 1."""
    return _filled(tensor, np.ones(tensor.shape))


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0) -> T:
    """Fill from the uniform distribution on [a, b)."""
    return _filled(tensor, random.default.numpy().uniform(a, b, tensor.shape))


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """Fill from the normal distribution."""
    return _filled(tensor, random.default.numpy().normal(mean, std, tensor.shape))


def trunc_normal_(
    tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> T:
    """Fill from the normal distribution cut off outside [a, b] (values, not deviations).

    Raises ValueError where [a, b] holds less than 1 % of the distribution.
    """
    if _share_below(b, mean, std) - _share_below(a, mean, std) < 0.01:
        raise ValueError(
            f"[{a}, {b}] lies in the tail of the normal distribution with mean {mean} and "
            f"standard deviation {std}; widen it or move the mean"
        )
    generator = random.default.numpy()
    values = generator.normal(mean, std, tensor.shape)
    while (outside := (values < a) | (values > b)).any():
        values[outside] = generator.normal(mean, std, int(outside.sum()))
    return _filled(tensor, values)


def _share_below(x: float, mean: float, std: float) -> float:
    """The share of the normal distribution below x."""
    return 0.5 * math.erfc((mean - x) / (std * math.sqrt(2.0)))


def xavier_uniform_(tensor: T, gain: float = 1.0) -> T:
    """Uniform with variance gain² · 2 / (fan in + fan out) (Glorot, Bengio, 2010, equation 16)."""
    bound = gain * math.sqrt(6.0 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """Normal with variance gain² · 2 / (fan in + fan out) (Glorot, Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_fans(tensor))))


def kaiming_uniform_(
    tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> T:
    """Uniform with variance gain² / fan (He et al., 2015, equation 14).

    `a` is the negative slope of a leaky ReLU. Raises ValueError for an unknown mode or
    nonlinearity.
    """
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"the mode is 'fan_in' or 'fan_out', not {mode!r}")
    fan = _fans(tensor)[mode == "fan_out"]
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / fan)
    return uniform_(tensor, -bound, bound)


def calculate_gain(nonlinearity: str, slope: float = 0.01) -> float:
    """By how much a nonlinearity shrinks a signal; ValueError for an unknown one."""
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5.0 / 3.0,
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1.0 + slope**2)),
    }
    if nonlinearity not in gains:
        raise ValueError(f"the nonlinearity is one of {', '.join(gains)}, not {nonlinearity!r}")
    return gains[nonlinearity]


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Inputs and outputs of a unit of a weight (out, in, ...)."""
    if tensor.ndim < 2:
        raise ShapeError(f"fan in and fan out need a weight (out, in), not {tensor.type}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _filled(tensor: T, values: np.ndarray) -> T:
    tensor.assign(values.astype(tensor.dtype))
    return tensor
