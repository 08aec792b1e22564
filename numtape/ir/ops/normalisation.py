"""Softmax, layer norms, cross entropy and attention: what a Transformer adds to arithmetic.

Each is one node with an expansion; the gradients are the ones worked by hand, written from the
inputs so that nothing has to be saved.
"""

from typing import Any

import numpy as np

from numtape.ir.op import Example, Op
from numtape.ir.ops.elementwise import exp, log, maximum, where
from numtape.ir.ops.indexing import flat_positions, scatter_add, take_along_last
from numtape.ir.ops.rules import example, require_float, require_integers
from numtape.ir.ops.shapes import full
from numtape.ir.types import INT, ShapeError, Type, normalise_axes


def _infer_along(x: Type, axis: int) -> Type:
    require_float(x)
    return x


def _shifted(x: Any, axis: int) -> Any:
    """x minus its maximum, so that exp cannot overflow; a row of -inf stays -inf."""
    lowest = float(np.finfo(x.dtype).min)
    return x - maximum(x.max(axis, keepdims=True), lowest)


def positive(total: Any) -> Any:
    """A sum of shifted exponentials, which is 1 or more; 1/2 where everything was masked."""
    return maximum(total, 0.5)


def _expand_softmax(x: Any, axis: int) -> Any:
    e = exp(_shifted(x, axis))
    return e / positive(e.sum(axis, keepdims=True))


def _softmax_vjp(g: Any, out: Any, x: Any, axis: int) -> Any:
    weighted = g * out
    return weighted - out * weighted.sum(axis, keepdims=True)


def _reference_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


_softmax = Op(
    "softmax",
    _infer_along,
    expand=_expand_softmax,
    vjps=(_softmax_vjp,),
    promotes="float",
    examples=(
        example((3, 4), reference=_reference_softmax, axis=1),
        example((3, 4), reference=_reference_softmax, axis=0),
    ),
)


def _expand_log_softmax(x: Any, axis: int) -> Any:
    shifted = _shifted(x, axis)
    return shifted - log(positive(exp(shifted).sum(axis, keepdims=True)))


def _log_softmax_vjp(g: Any, out: Any, x: Any, axis: int) -> Any:
    return g - exp(out) * g.sum(axis, keepdims=True)


_log_softmax = Op(
    "log_softmax",
    _infer_along,
    expand=_expand_log_softmax,
    vjps=(_log_softmax_vjp,),
    promotes="float",
    examples=(
        example((3, 4), reference=lambda x, axis: np.log(_reference_softmax(x, axis)), axis=1),
    ),
)


def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) normalised to sum 1 along `axis`; a row that is all -inf gives zeros."""
    (position,) = normalise_axes(axis, x.ndim)
    return _softmax(x, axis=position)


def log_softmax(x: Any, axis: int = -1) -> Any:
    """log(softmax(x)) computed as x - log-sum-exp; a row that is all -inf stays -inf."""
    (position,) = normalise_axes(axis, x.ndim)
    return _log_softmax(x, axis=position)


# ---- layer norms --------------------------------------------------------------------------


def _infer_norm(x: Type, *parameters: Type, eps: float) -> Type:
    require_float(x)
    for p in parameters:
        if p.shape != x.shape[-1:]:
            raise ShapeError(f"the gain and bias of {x} have shape {x.shape[-1:]}, not {p.shape}")
    return x


def _standardised(x: Any, eps: float) -> tuple[Any, Any]:
    """x with mean 0 and variance 1 along its last axis, and 1 / standard deviation."""
    centred = x - x.mean(-1, keepdims=True)
    rate = 1.0 / ((centred * centred).mean(-1, keepdims=True) + eps).sqrt()
    return centred * rate, rate


def _expand_layer_norm(x: Any, gain: Any, *bias: Any, eps: float) -> Any:
    scaled = _standardised(x, eps)[0] * gain
    return scaled + bias[0] if bias else scaled


def _layer_norm_vjp_x(g: Any, out: Any, x: Any, gain: Any, *bias: Any, eps: float) -> Any:
    z, rate = _standardised(x, eps)
    h = g * gain
    slope = (h * z).mean(-1, keepdims=True)
    return rate * (h - h.mean(-1, keepdims=True) - z * slope)


def _layer_norm_vjp_gain(g: Any, out: Any, x: Any, gain: Any, *bias: Any, eps: float) -> Any:
    return _over_rows(g * _standardised(x, eps)[0])


def _over_rows(g: Any) -> Any:
    """The sum over all axes but the last."""
    return g.sum(tuple(range(g.ndim - 1)))


def _reference_layer_norm(
    x: np.ndarray, gain: np.ndarray, bias: np.ndarray | float = 0.0, *, eps: float
) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * gain + bias


_layer_norm = Op(
    "layer_norm",
    _infer_norm,
    expand=_expand_layer_norm,
    vjps=(
        _layer_norm_vjp_x,
        _layer_norm_vjp_gain,
        lambda g, out, x, gain, bias, eps: _over_rows(g),
    ),
    promotes="float",
    examples=(
        example((2, 3, 4), (4,), (4,), reference=_reference_layer_norm, eps=1e-5),
        example((2, 3, 4), (4,), reference=_reference_layer_norm, eps=1e-5),
    ),
)


def _root_mean_square_rate(x: Any, eps: float) -> Any:
    return 1.0 / ((x * x).mean(-1, keepdims=True) + eps).sqrt()


def _expand_rms_norm(x: Any, gain: Any, eps: float) -> Any:
    return x * _root_mean_square_rate(x, eps) * gain


def _rms_norm_vjp_x(g: Any, out: Any, x: Any, gain: Any, eps: float) -> Any:
    rate = _root_mean_square_rate(x, eps)
    h = g * gain
    z = x * rate
    return rate * (h - z * (h * z).mean(-1, keepdims=True))


_rms_norm = Op(
    "rms_norm",
    _infer_norm,
    expand=_expand_rms_norm,
    vjps=(
        _rms_norm_vjp_x,
        lambda g, out, x, gain, eps: _over_rows(g * (x * _root_mean_square_rate(x, eps))),
    ),
    promotes="float",
    examples=(
        example(
            (2, 3, 4),
            (4,),
            reference=lambda x, gain, eps: (
                x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain
            ),
            eps=1e-6,
        ),
    ),
)


def layer_norm(x: Any, gain: Any, bias: Any = None, eps: float = 1e-5) -> Any:
    """Standardised along the last axis, times gain, plus bias (Ba, Kiros, Hinton, 2016)."""
    return _layer_norm(x, gain, *(() if bias is None else (bias,)), eps=float(eps))


def rms_norm(x: Any, gain: Any, eps: float = 1e-6) -> Any:
    """Divided by its root mean square along the last axis, times gain (Zhang, Sennrich, 2019)."""
    return _rms_norm(x, gain, eps=float(eps))


# ---- cross entropy ------------------------------------------------------------------------


def _infer_cross_entropy(
    logits: Type, target: Type, ignore_index: int | None, label_smoothing: float
) -> Type:
    require_float(logits)
    require_integers(target)
    if target.shape != logits.shape[:-1]:
        raise ShapeError(
            f"logits {logits} need a target of shape {logits.shape[:-1]}, not {target}"
        )
    if not 0.0 <= label_smoothing < 1.0:
        raise ShapeError(f"label smoothing lies in [0, 1), got {label_smoothing}")
    return Type(logits.dtype, ())


def _counted_rows(target: Any, ignore_index: int | None, dtype: np.dtype) -> tuple[Any, Any, Any]:
    """Targets with 0 for the ignored, 1 or 0 per row, and 1 / rows counted (0 if none is)."""
    if ignore_index is None:
        return target, full(target.shape, 1.0, dtype), 1.0 / max(1, target.size)
    target = target.astype(INT)  # where an index to ignore may be negative
    counted = target != ignore_index
    kept = counted.astype(dtype)
    total = kept.sum()
    return where(counted, target, 0), kept, where(total > 0.0, 1.0, 0.0) / positive(total)


def _expand_cross_entropy(
    logits: Any, target: Any, ignore_index: int | None, label_smoothing: float
) -> Any:
    safe, kept, share = _counted_rows(target, ignore_index, logits.dtype)
    z = _shifted(logits, logits.ndim - 1)
    lse = log(positive(exp(z).sum(-1, keepdims=True))).reshape(target.shape)
    loss = lse - take_along_last(z, safe) * (1.0 - label_smoothing)
    if label_smoothing:
        loss = loss - z.mean(-1) * label_smoothing
    return (loss * kept).sum() * share


def _cross_entropy_vjp(
    g: Any,
    out: Any,
    logits: Any,
    target: Any,
    ignore_index: int | None,
    label_smoothing: float,
) -> Any:
    # softmax - smoothed one-hot, each row weighted; the one-hot is one entry a row.
    safe, kept, share = _counted_rows(target, ignore_index, logits.dtype)
    z = _shifted(logits, logits.ndim - 1)
    e = exp(z)
    weight = (g * share * kept).expand_dims(-1)
    p = e * (weight / positive(e.sum(-1, keepdims=True)))
    if label_smoothing:
        p = p - weight * (label_smoothing / logits.shape[-1])
    hit = (weight * (label_smoothing - 1.0)).reshape(-1)
    places = flat_positions(logits, safe).reshape(-1)
    return scatter_add(p.reshape(-1), places, hit, axis=0).reshape(logits.shape)


def _reference_cross_entropy(
    logits: np.ndarray, target: np.ndarray, ignore_index: int | None, label_smoothing: float
) -> np.ndarray:
    log_p = np.log(_reference_softmax(logits, -1))
    picked = np.take_along_axis(log_p, np.maximum(target, 0)[..., None], -1)[..., 0]
    loss = -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1)
    rows = np.ones(target.shape, bool) if ignore_index is None else target != ignore_index
    return loss[rows].mean()


def _cross_entropy_example(ignore_index: int | None, label_smoothing: float) -> Example:
    return Example(
        lambda rng: (
            rng.normal(size=(3, 4, 5)),
            rng.integers(0 if ignore_index is None else ignore_index, 5, (3, 4)),
        ),
        _reference_cross_entropy,
        {"ignore_index": ignore_index, "label_smoothing": label_smoothing},
    )


_cross_entropy = Op(
    "cross_entropy",
    _infer_cross_entropy,
    expand=_expand_cross_entropy,
    vjps=(_cross_entropy_vjp, None),
    examples=(
        _cross_entropy_example(None, 0.0),
        _cross_entropy_example(-1, 0.1),
        _cross_entropy_example(0, 0.2),
    ),
)


def cross_entropy(
    logits: Any, target: Any, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> Any:
    """Mean negative log likelihood of class indices.

    logits (..., classes) floats, target (...) integers; rows whose target is `ignore_index` do
    not count, and if none counts the loss is 0. Label smoothing as in Szegedy et al., 2016: the
    target keeps 1 - s and every class gets s / classes.
    """
    return _cross_entropy(
        logits, target, ignore_index=ignore_index, label_smoothing=float(label_smoothing)
    )
