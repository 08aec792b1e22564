"""Layers with parameters: functions of `functional` with their weights and initial values."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from numtape.ir.types import ShapeError
from numtape.nn import functional, init
from numtape.nn.checks import check_probability, check_sizes
from numtape.nn.module import Module, Parameter


def _uninitialised(*shape: int, dtype: Any) -> Parameter:
    return Parameter(np.empty(shape, dtype))


def _last_axis(normalized_shape: int | Sequence[int]) -> int:
    """The length of the one axis that a norm is taken along."""
    if isinstance(normalized_shape, Sequence):
        if len(normalized_shape) != 1:
            raise ShapeError(
                f"norms are taken along the last axis alone, not along {tuple(normalized_shape)}; "
                "reshape what is to be normalised together into one axis"
            )
        (normalized_shape,) = normalized_shape
    check_sizes(normalized_shape=normalized_shape)
    return normalized_shape


class Linear(Module):
    """x weightᵀ + bias: (..., in_features) to (..., out_features).

    weight (out_features, in_features) and bias (out_features,) start uniform within
    ±1 / √in_features. Raises ValueError for sizes below 1.
    """

    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: Any = np.float32
    ) -> None:
        check_sizes(in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = init.kaiming_uniform_(
            _uninitialised(out_features, in_features, dtype=dtype), a=math.sqrt(5.0)
        )
        bound = 1.0 / math.sqrt(in_features)
        self.bias = (
            init.uniform_(_uninitialised(out_features, dtype=dtype), -bound, bound)
            if bias
            else None
        )

    def forward(self, x: Any) -> Any:
        return functional.linear(x, self.weight, self.bias)


class Embedding(Module):
    """A row of weight (num_embeddings, embedding_dim) for each index: (...) to (..., dim).

    Rows start as N(0, 1); the row `padding_idx` starts as zeros and is not learnt. Raises
    ValueError for sizes below 1 and for a padding row that does not exist.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        dtype: Any = np.float32,
    ) -> None:
        check_sizes(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx={padding_idx} is none of the {num_embeddings} rows")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.weight = init.normal_(_uninitialised(num_embeddings, embedding_dim, dtype=dtype))
        if padding_idx is not None:
            self.weight.numpy()[padding_idx] = 0.0

    def forward(self, index: Any) -> Any:
        return functional.embedding(index, self.weight, self.padding_idx)


class LayerNorm(Module):
    """Mean 0 and variance 1 along the last axis, times weight, plus bias (Ba et al., 2016)."""

    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        *,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        normalized_shape = _last_axis(normalized_shape)
        self.normalized_shape = normalized_shape
        self.eps = eps
        self.weight = Parameter(np.ones(normalized_shape, dtype))
        self.bias = Parameter(np.zeros(normalized_shape, dtype)) if bias else None

    def forward(self, x: Any) -> Any:
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """Root mean square 1 along the last axis, times weight (Zhang, Sennrich, 2019)."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-6,
        *,
        dtype: Any = np.float32,
    ) -> None:
        normalized_shape = _last_axis(normalized_shape)
        self.normalized_shape = normalized_shape
        self.eps = eps
        self.weight = Parameter(np.ones(normalized_shape, dtype))

    def forward(self, x: Any) -> Any:
        return functional.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class Dropout(Module):
    """Zeroes entries with probability p while training; the identity in eval mode."""

    def __init__(self, p: float = 0.5) -> None:
        check_probability("Dropout", p)
        self.p = p

    def forward(self, x: Any) -> Any:
        return functional.dropout(x, self.p, self.training)


class Identity(Module):
    """x itself."""

    def forward(self, x: Any) -> Any:
        return x


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Any) -> Any:
        return functional.relu(x)


class SiLU(Module):
    """x · sigmoid(x)."""

    def forward(self, x: Any) -> Any:
        return functional.silu(x)


class GELU(Module):
    """x · Φ(x); with approximate="tanh" its tanh approximation."""

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate is 'none' or 'tanh', not {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        return functional.gelu(x, self.approximate)


class Mish(Module):
    """x · tanh(softplus(x))."""

    def forward(self, x: Any) -> Any:
        return functional.mish(x)


class Sigmoid(Module):
    """1 / (1 + e^-x)."""

    def forward(self, x: Any) -> Any:
        return functional.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Any) -> Any:
        return functional.tanh(x)


class Softmax(Module):
    """e^x over its sum along the axis `dim`."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        return functional.softmax(x, self.dim)


class CrossEntropyLoss(Module):
    """`functional.cross_entropy` with its settings."""

    def __init__(
        self,
        *,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label smoothing lies in [0, 1), got {label_smoothing}")
        functional.check_reduction(reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction = reduction

    def forward(self, logits: Any, target: Any) -> Any:
        return functional.cross_entropy(
            logits,
            target,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )


class MSELoss(Module):
    """`functional.mse_loss`."""

    def __init__(self, *, reduction: str = "mean") -> None:
        functional.check_reduction(reduction)
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Any:
        return functional.mse_loss(x, target, reduction=self.reduction)
