"""Activations and the error function: composites, each with the derivative worked by hand.

Numerical stability is stated in the expansion. Everything goes through `exp`, which costs a third
of `tanh`.
"""

import math
from typing import Any

import numpy as np

from numtape.ir.op import Op
from numtape.ir.ops.elementwise import (
    absolute,
    copysign,
    exp,
    log1p,
    maximum,
    minimum,
    square,
    tanh,
    where,
)
from numtape.ir.ops.rules import example, float_elementwise


def _expand_sigmoid(x: Any) -> Any:
    # exp of at most this stays finite, and 1 / (1 + exp) is already 0 to the last bit but one.
    limit = 87.0 if x.dtype == np.float32 else 708.0
    return 1.0 / (exp(minimum(-x, limit)) + 1.0)


sigmoid = Op(
    "sigmoid",
    float_elementwise,
    expand=_expand_sigmoid,
    vjps=(lambda g, out, x: g * (out * (1.0 - out)),),
    promotes="float",
    examples=(example((3, 4), reference=lambda x: 1 / (1 + np.exp(-x)), low=-6, high=6),),
)

relu = Op(
    "relu",
    float_elementwise,
    expand=lambda x: maximum(x, 0.0),
    # 0 at 0, as everywhere below it; asked of the result, which is kept anyway. NaN is not 0.
    vjps=(lambda g, out, x: where(out != 0.0, g, 0.0),),
    promotes="float",
    examples=(example((3, 4), reference=lambda x: np.maximum(x, 0)),),
)

silu = Op(
    "silu",
    float_elementwise,
    expand=lambda x: x * sigmoid(x),
    vjps=(lambda g, out, x: g * (sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)))),),
    promotes="float",
    examples=(example((3, 4), reference=lambda x: x / (1 + np.exp(-x))),),
)


def _expand_softplus(x: Any) -> Any:
    # log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): nothing overflows.
    return relu(x) + log1p(exp(-absolute(x)))


softplus = Op(
    "softplus",
    float_elementwise,
    expand=_expand_softplus,
    vjps=(lambda g, out, x: g * sigmoid(x),),
    promotes="float",
    examples=(example((3, 4), reference=lambda x: np.log1p(np.exp(x))),),
)


def _mish_vjp(g: Any, out: Any, x: Any) -> Any:
    t = tanh(softplus(x))
    return g * (t + x * (1.0 - t * t) * sigmoid(x))


mish = Op(
    "mish",
    float_elementwise,
    expand=lambda x: x * tanh(softplus(x)),
    vjps=(_mish_vjp,),
    promotes="float",
    examples=(example((3, 4), reference=lambda x: x * np.tanh(np.log1p(np.exp(x)))),),
)

# The upper tail of the normal distribution is Q(z) = e^(-z²/2) · poly(t), t = 1 / (1 + p z).
# float32: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26, error below 1e-7.
# float64: Chebyshev interpolation of Q(z) e^(z²/2) / t in 2t - 1, error below 3e-16.
_TAIL_32 = (0.127414796, -0.142248368, 0.7107068705, -0.7265760135, 0.5307027145)
# fmt: off
_TAIL_64 = (
    0.18882128260393788, 0.15197416049296703, 0.09678435018556342,
    0.04663046449035396, 0.015099143722014924, 0.0018850472322579051,
    -0.0008699230762275525, -0.0004077045223168244, 3.3335921983867025e-05,
    5.777324361161029e-05, -4.762035574659567e-07, -8.784626365340733e-06,
    1.7629840755663983e-07, 1.4770767246150229e-06, -1.5140174329536263e-07,
    -2.5201459899859196e-07, 5.990972967743164e-08, 3.679509242913543e-08,
    -1.4710413058842763e-08, -3.2179057731102546e-09, 1.8004835227203933e-09,
)
# fmt: on


def _polynomial(t: Any, coefficients: tuple[float, ...]) -> Any:
    """Horner's rule; the constant term first."""
    total = t * coefficients[-1] + coefficients[-2]
    for c in coefficients[-3::-1]:
        total = total * t + c
    return total


def _tail_polynomial(z: Any) -> Any:
    """Q(z) e^(z²/2) for z >= 0."""
    if z.dtype == np.float32:
        t = 1.0 / (z * (0.3275911 / math.sqrt(2.0)) + 1.0)
        return t * _polynomial(t, _TAIL_32)
    t = 1.0 / (z * 0.25 + 1.0)
    return t * _polynomial(t * 2.0 - 1.0, _TAIL_64)


def _expand_normal_cdf(x: Any) -> Any:
    tail = _tail_polynomial(absolute(x)) * exp(square(x) * -0.5)
    return copysign(0.5 - tail, x) + 0.5


def _gaussian(x: Any) -> Any:
    """The normal density."""
    return exp(square(x) * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))


def _reference_cdf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2.0)))(x)


normal_cdf = Op(
    "normal_cdf",
    float_elementwise,
    expand=_expand_normal_cdf,
    vjps=(lambda g, out, x: g * _gaussian(x),),
    promotes="float",
    examples=(example((5, 4), reference=_reference_cdf, low=-5.0, high=5.0),),
)


def _expand_erf(x: Any) -> Any:
    # In float64: the polynomial for float32 serves gelu, which weighs its rounding by |x|.
    wide = x.astype(np.float64)
    tail = _tail_polynomial(absolute(wide) * math.sqrt(2.0)) * exp(-square(wide))
    return copysign(1.0 - tail * 2.0, wide).astype(x.dtype)


erf = Op(
    "erf",
    float_elementwise,
    expand=_expand_erf,
    vjps=(lambda g, out, x: g * (exp(-square(x)) * (2.0 / math.sqrt(math.pi))),),
    promotes="float",
    examples=(example((3, 4), reference=np.vectorize(math.erf)),),
)

gelu = Op(
    "gelu",
    float_elementwise,
    expand=lambda x: x * normal_cdf(x),
    vjps=(lambda g, out, x: g * (normal_cdf(x) + x * _gaussian(x)),),
    promotes="float",
    examples=(example((3, 4), reference=lambda x: x * _reference_cdf(x)),),
)

_TANH_SCALE = math.sqrt(2.0 / math.pi)


def _expand_gelu_tanh(x: Any) -> Any:
    # x/2 · (1 + tanh u) = x · sigmoid(2u): an exponential costs less than a tanh.
    return x * sigmoid((x + square(x) * x * 0.044715) * (2.0 * _TANH_SCALE))


def _gelu_tanh_vjp(g: Any, out: Any, x: Any) -> Any:
    s = sigmoid((x + square(x) * x * 0.044715) * (2.0 * _TANH_SCALE))
    du = (square(x) * (3.0 * 0.044715) + 1.0) * (2.0 * _TANH_SCALE)
    return g * (s + x * (s * (1.0 - s)) * du)


gelu_tanh = Op(
    "gelu_tanh",
    float_elementwise,
    expand=_expand_gelu_tanh,
    vjps=(_gelu_tanh_vjp,),
    promotes="float",
    examples=(
        example(
            (3, 4),
            reference=lambda x: 0.5 * x * (1 + np.tanh(_TANH_SCALE * (x + 0.044715 * x**3))),
        ),
    ),
)
