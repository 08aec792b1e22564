"""The operations of neural networks as functions: what the layers call with their parameters.

PyTorch's names and argument order. Classes are on the last axis throughout.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from numtape.ir.interpreter import current
from numtape.ir.op import REGISTRY
from numtape.ir.ops import activations, attention, indexing, normalisation
from numtape.ir.ops.shapes import ones_like
from numtape.ir.types import DtypeError, ShapeError
from numtape.nn.checks import check_probability, check_sizes
from numtape.tracer import random

# ---- activations --------------------------------------------------------------------------


def relu(x: Any) -> Any:
    """max(x, 0)."""
    return activations.relu(x)


def silu(x: Any) -> Any:
    """x · sigmoid(x) (Elfwing et al., 2017)."""
    return activations.silu(x)


def gelu(x: Any, approximate: str = "none") -> Any:
    """x · Φ(x), or its tanh approximation (Hendrycks, Gimpel, 2016)."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    return activations.gelu(x) if approximate == "none" else activations.gelu_tanh(x)


def mish(x: Any) -> Any:
    """x · tanh(softplus(x)) (Misra, 2019)."""
    return activations.mish(x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x)."""
    return activations.sigmoid(x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return current().lift(x).tanh()


def softplus(x: Any) -> Any:
    """log(1 + e^x)."""
    return activations.softplus(x)


def softmax(x: Any, dim: int = -1) -> Any:
    """e^x over its sum along the axis `dim`; a row that is all -inf gives zeros."""
    return normalisation.softmax(current().lift(x), dim)


def log_softmax(x: Any, dim: int = -1) -> Any:
    """log(softmax(x)), without overflow."""
    return normalisation.log_softmax(current().lift(x), dim)


# ---- layers -------------------------------------------------------------------------------


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """x weightᵀ + bias: x (..., in), weight (out, in), bias (out,) give (..., out).

    Raises ShapeError where the last axis of x is not that of the weight.
    """
    lift = current().lift
    x, weight = lift(x), lift(weight)
    if weight.ndim != 2:
        raise ShapeError(f"linear: the weight has the shape (out, in), not {weight.type}")
    if x.shape[-1:] != weight.shape[1:]:
        raise ShapeError(
            f"linear: the inner sizes differ: {x.type} does not end in the {weight.shape[1]} "
            f"features that the weight {weight.type} takes"
        )
    product = x @ weight.T
    return product if bias is None else product + bias


def embedding(index: Any, weight: Any, padding_idx: int | None = None) -> Any:
    """Rows of weight (num, dim): integers (...) give (..., dim).

    The row `padding_idx` gets no gradient. Raises IndexError for an index out of range.
    """
    index = current().lift(index)
    if index.dtype.kind not in "iu":
        raise DtypeError(
            f"embedding: the indices are integers, not {index.type}; convert with astype(np.int64)"
        )
    rows = indexing.take(weight, index, negative=False)
    if padding_idx is None:
        return rows
    padding = (index == padding_idx % weight.shape[0]).expand_dims(-1)
    return padding.where(rows.detach(), rows)


def layer_norm(
    x: Any,
    normalized_shape: int | Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    """(x - mean) / √(variance + eps) · weight + bias along the last axis (Ba et al., 2016).

    weight and bias have the shape of the last axis, which `normalized_shape` must state.
    """
    x = current().lift(x)
    _check_last_axis(x, normalized_shape)
    gain = ones_like(x[(0,) * (x.ndim - 1)]) if weight is None else weight
    return normalisation.layer_norm(x, gain, bias, eps)


def rms_norm(
    x: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float = 1e-6
) -> Any:
    """x / √(mean(x²) + eps) · weight along the last axis (Zhang, Sennrich, 2019, equation 4)."""
    x = current().lift(x)
    _check_last_axis(x, normalized_shape)
    gain = ones_like(x[(0,) * (x.ndim - 1)]) if weight is None else weight
    return normalisation.rms_norm(x, gain, eps)


def _check_last_axis(x: Any, normalized_shape: int | Sequence[int]) -> None:
    wanted = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if x.shape[-1:] != wanted:
        raise ShapeError(
            f"the last axis of {x.type} does not have the normalized shape {wanted}; "
            "norms are taken along the last axis"
        )


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """Zero with probability p and the rest times 1 / (1 - p) (Srivastava et al., 2014).

    The identity where p is 0 or not training. Draws float32 from the default generator whatever
    the dtype of x, so that models of both dtypes drop the same entries.
    """
    check_probability("dropout", p)
    if p == 0.0 or not training:
        return x
    x = current().lift(x)
    kept = random.default.uniform(x.shape) >= p
    # Products, because a where costs four times as much (2.1 and 0.5 ns per entry of 2^20).
    return x * (kept.astype(x.dtype) * (1.0 / (1.0 - p) if p < 1.0 else 0.0))


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Any:
    """softmax(q kᵀ / √d) v (Vaswani et al., 2017, equation 1).

    query (..., T, d), key (..., S, d), value (..., S, e) give (..., T, e). `attn_mask` is
    boolean, true where attention is allowed, and broadcasts to (..., T, S); with `is_causal`
    position t sees up to t. Weights are dropped with probability `dropout_p`.
    """
    lift = current().lift
    query, key, value = lift(query), lift(key), lift(value)
    if dropout_p == 0.0:
        return attention.scaled_dot_product_attention(query, key, value, attn_mask, is_causal)
    weights = attention.attention_weights(query, key, attn_mask, is_causal)
    return dropout(weights, dropout_p) @ value


def one_hot(index: Any, num_classes: int, dtype: Any = np.float32) -> Any:
    """1 at the index and 0 elsewhere: integers (...) give (..., num_classes).

    Raises IndexError for an index outside [0, num_classes).
    """
    check_sizes(num_classes=num_classes)
    return indexing.one_hot(current().lift(index), num_classes, dtype)


# ---- losses -------------------------------------------------------------------------------


def check_reduction(reduction: str) -> None:
    """ValueError unless `reduction` is one that the losses know."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")


def _reduced(losses: Any, reduction: str) -> Any:
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


def cross_entropy(
    logits: Any,
    target: Any,
    *,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """Negative log likelihood: logits (..., classes), integer target (...) give a scalar.

    Rows whose target is `ignore_index` do not count; if none counts the mean is 0. The smoothed
    target is 1 - s plus s / classes everywhere (Szegedy et al., 2016, section 7). `reduction` is
    "mean" (over the rows that count), "sum" or "none", which gives the rows' losses (...).
    """
    check_reduction(reduction)
    logits, target = current().lift(logits), current().lift(target)
    if reduction == "mean":
        return normalisation.cross_entropy(logits, target, ignore_index, label_smoothing)
    return _reduced(_row_losses(logits, target, ignore_index, label_smoothing), reduction)


def _row_losses(logits: Any, target: Any, ignore_index: int | None, label_smoothing: float) -> Any:
    """The cross entropy of each row, 0 where the target is ignored."""
    settings = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    REGISTRY["cross_entropy"].type_of((logits.type, target.type), settings)  # or it says why not
    scores = log_softmax(logits)
    counted = None if ignore_index is None else target != ignore_index
    safe = target if counted is None else counted.where(target, 0)
    losses = indexing.take_along_last(scores, safe) * (label_smoothing - 1.0)
    if label_smoothing:
        losses = losses - scores.mean(-1) * label_smoothing
    return losses if counted is None else counted.where(losses, 0.0)


def mse_loss(x: Any, target: Any, *, reduction: str = "mean") -> Any:
    """(x - target)², its mean, sum or ("none") every entry; of one shape, or ShapeError."""
    check_reduction(reduction)
    x, target = current().lift(x), current().lift(target)
    if x.shape != target.shape:
        raise ShapeError(
            f"mse_loss: {x.type} and the target {target.type} differ in shape; reshape one, "
            "for they would broadcast to something not meant"
        )
    return _reduced((x - target).square(), reduction)
