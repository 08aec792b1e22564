"""Scaled dot-product attention (Vaswani et al., 2017), a block of queries at a time.

Under a causal mask a block sees the keys up to its own end: what lies behind is neither computed
nor stored. Scores are touched as little as possible: the scale goes into the queries, and the
weights stay unnormalised, since their sums divide the smaller products with the values. For long
sequences the reverse part computes the scores anew, so that memory grows with their length and
not with its square (Rabe and Staats, 2021; Dao et al., 2022).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from numtape.ir.op import Example, Op
from numtape.ir.ops.elementwise import exp, isfinite, where
from numtape.ir.ops.linalg import matmul
from numtape.ir.ops.normalisation import positive, softmax
from numtape.ir.ops.parts import Bounds, add_slice
from numtape.ir.ops.ranges import arange
from numtape.ir.ops.rules import example, require_float
from numtape.ir.ops.shapes import concatenate, pad
from numtape.ir.types import BOOL, DtypeError, ShapeError, Type, broadcast, is_float

SMALLEST, LARGEST = 32, 128  # queries of a block: smaller ones lose more by their products
BLOCKS = 8  # of a sequence; more would skip little more of a causal mask
LONG = 1024 * 1024  # scores of one head, from which on they are not kept for the reverse part


def attention_weights(q: Any, k: Any, mask: Any = None, causal: bool = False) -> Any:
    """softmax(q kᵀ / √d) with -inf where masked; rows with everything masked give zeros."""
    masks = () if mask is None else (mask,)
    whole = _Block(0, q.shape[-2], k.shape[-2])
    return softmax(_scores(_scaled(q), k, masks, causal, whole))


class _Block(NamedTuple):
    """Queries from `start` up to `stop`, and how many keys they see."""

    start: int
    stop: int
    seen: int


def _blocks(queries: int, keys: int, causal: bool) -> list[_Block]:
    if queries == 0 or (not causal and queries * keys < LONG):
        return [_Block(0, queries, keys)]
    size = min(LARGEST, SMALLEST * -(-queries // (SMALLEST * BLOCKS)))
    starts = range(0, queries, size)
    stops = [min(start + size, queries) for start in starts]
    return [
        _Block(a, b, min(b, keys) if causal else keys) for a, b in zip(starts, stops, strict=True)
    ]


def _scaled(x: Any) -> Any:
    return x * (1.0 / math.sqrt(x.shape[-1]))


def _rows(x: Any, start: int, stop: int) -> Any:
    """Part of the last axis but one, of which 1 stands for all."""
    return x if x.shape[-2] in (1, stop - start) else x[..., start:stop, :]


def _scores(q: Any, k: Any, masks: Sequence[Any], causal: bool, block: _Block) -> Any:
    start, stop, seen = block
    scores = matmul(_rows(q, start, stop), _rows(k, 0, seen).swapaxes(-1, -2))
    if causal and seen > start:  # further back every query of the block sees every key
        bounds = (*((0, n, 1) for n in scores.shape[:-1]), (start, seen, 1))
        allowed = arange(stop - start).expand_dims(1) >= arange(seen - start)
        scores = add_slice(scores, _forbidding(allowed, scores), bounds=bounds)
    for mask in masks:
        part = _rows(mask, start, stop) if mask.ndim > 1 else mask
        part = part if part.shape[-1] == 1 else part[..., :seen]
        scores = scores + _forbidding(part, scores)
    return scores


def _forbidding(allowed: Any, scores: Any) -> Any:
    """0 where attention is allowed and -inf elsewhere."""
    return where(allowed, 0.0, -math.inf).astype(scores.dtype)


def _top(scores: Any, masks: Sequence[Any]) -> Any:
    """The maximum of each row, so that exp cannot overflow; 0 where everything is masked."""
    top = scores.max(-1, keepdims=True)
    return where(isfinite(top), top, 0.0) if masks else top


def _total(e: Any, masks: Sequence[Any]) -> Any:
    total = e.sum(-1, keepdims=True)
    return positive(total) if masks else total


def _expand(q: Any, k: Any, v: Any, *masks: Any, causal: bool) -> Any:
    scaled, parts = _scaled(q), []
    for block in _blocks(q.shape[-2], k.shape[-2], causal):
        scores = _scores(scaled, k, masks, causal, block)
        e = exp(scores - _top(scores, masks))
        parts.append(matmul(e, _rows(v, 0, block.seen)) / _total(e, masks))
    return _joined(parts)


def _joined(parts: list[Any]) -> Any:
    return concatenate(parts, axis=-2) if len(parts) > 1 else parts[0]


# ---- gradients ----------------------------------------------------------------------------


def _reverse(
    g: Any, out: Any, q: Any, k: Any, v: Any, masks: Sequence[Any], causal: bool
) -> tuple[Any, Any, Any]:
    """The gradients of q, k and v, block by block.

    With e = exp(scores - top), z their sum and h = g / (z √d), the gradient of q kᵀ is
    s = e ⊙ (h vᵀ - rowsum(h ⊙ out)): the scale is in h already, so that no scaled q is kept.
    """
    scaled = _scaled(q)
    root = math.sqrt(q.shape[-1])
    slopes = (g * out).sum(-1, keepdims=True)
    queries: list[Any] = []
    keys: Any = None
    values: Any = None
    for block in reversed(_blocks(q.shape[-2], k.shape[-2], causal)):  # the last sees most keys
        e, total = _weights_again(q, scaled, k, masks, causal, block)
        weight = (1.0 / root) / total
        h = _rows(g, block.start, block.stop) * weight
        slope = _rows(slopes, block.start, block.stop) * weight
        s = e * (matmul(h, _rows(v, 0, block.seen).swapaxes(-1, -2)) - slope)
        queries.insert(0, matmul(s, _rows(k, 0, block.seen)))
        keys = _added(keys, matmul(s.swapaxes(-1, -2), _rows(q, block.start, block.stop)))
        values = _added(values, matmul(e.swapaxes(-1, -2), h))
    return _joined(queries), _framed(keys, k), _framed(values * root, v)


def _weights_again(
    q: Any, scaled: Any, k: Any, masks: Sequence[Any], causal: bool, block: _Block
) -> tuple[Any, Any]:
    """The exponentials of a block and their sums, as the forward part has them.

    Written alike they are the forward part's own, kept. Of a long sequence they are computed
    anew: with the scale in the keys instead, they are other values to a compiler.
    """
    scores = _scores(scaled, k, masks, causal, block)
    top = _top(scores, masks)
    e = exp(scores - top)
    total = _total(e, masks)
    if q.shape[-2] * k.shape[-2] >= LONG:
        e = exp(_scores(q, _scaled(k), masks, causal, block) - top)
    return e, total


def _added(total: Any, part: Any) -> Any:
    """The sum of gradients of all keys so far and of those that a block sees."""
    if total is None or total.shape == part.shape:
        return part if total is None else total + part
    return add_slice(total, part, bounds=_upto(part.shape[-2], total))


def _framed(g: Any, x: Any) -> Any:
    """A gradient with 0 for the keys that nobody sees."""
    unseen = x.shape[-2] - g.shape[-2]
    return pad(g, [(0, 0)] * (g.ndim - 2) + [(0, unseen), (0, 0)]) if unseen else g


def _upto(stop: int, x: Any) -> Bounds:
    """The leading part of the last axis but one."""
    return (*((0, n, 1) for n in x.shape[:-2]), (0, stop, 1), (0, x.shape[-1], 1))


def _vjp(position: int) -> Any:
    def rule(g: Any, out: Any, q: Any, k: Any, v: Any, *masks: Any, causal: bool) -> Any:
        return _reverse(g, out, q, k, v, masks, causal)[position]

    return rule


# ---- the operation ------------------------------------------------------------------------


def _fits(shape: tuple[int, ...], larger: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts to a larger one."""
    pairs = zip(reversed(shape), reversed(larger), strict=False)
    return len(shape) <= len(larger) and all(n in (1, m) for n, m in pairs)


def _infer(q: Type, k: Type, v: Type, *mask: Type, causal: bool) -> Type:
    require_float(q, k, v)
    matched = q.shape[-1:] == k.shape[-1:] != (0,) and k.shape[-2:-1] == v.shape[-2:-1]
    if len(q.shape) < 2 or not matched:
        raise ShapeError(f"queries {q}, keys {k} and values {v} do not fit together")
    batch = broadcast(*(Type(t.dtype, t.shape[:-2]) for t in (q, k, v)))
    scores = Type(q.dtype, (*batch, q.shape[-2], k.shape[-2]))
    for m in mask:
        if m.dtype != BOOL:
            raise DtypeError(f"a mask is boolean, true where attention is allowed, not {m}")
        if not _fits(m.shape, scores.shape):
            raise ShapeError(f"the mask {m} does not broadcast to the scores {scores.shape}")
    return Type(q.dtype, (*batch, q.shape[-2], v.shape[-1]))


def _reference(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *mask: np.ndarray, causal: bool
) -> np.ndarray:
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, -1e30)
    if mask:
        scores = np.where(mask[0], scores, -1e30)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


_attention = Op(
    "attention",
    _infer,
    expand=_expand,
    vjps=lambda position: _vjp(position) if position < 3 else None,
    broadcasts=True,
    examples=(
        example((2, 3, 4), (2, 5, 4), (2, 5, 6), reference=_reference, causal=False),
        example((2, 3, 4), (2, 3, 4), (2, 3, 4), reference=_reference, causal=True),
        Example(
            lambda rng: (
                *(rng.normal(size=(2, 3, 4)) for _ in range(3)),
                np.array([[[True, True, False]], [[True, False, True]]]),
            ),
            _reference,
            {"causal": False},
        ),
    ),
)


def scaled_dot_product_attention(
    q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False
) -> Any:
    """softmax(q kᵀ / √d) v (Vaswani et al., 2017, equation 1).

    q (..., T, d), k (..., S, d), v (..., S, e) give (..., T, e). `mask` is boolean, true where
    attention is allowed, and broadcasts to (..., T, S); `causal` lets position t see up to t.
    """
    masks = () if mask is None else (mask,)
    return _attention(*_alike(q, k, v), *masks, causal=bool(causal))


def _alike(*xs: Any) -> tuple[Any, ...]:
    """Floats in the dtype in which they meet; what is none is left for the operation to refuse."""
    met = np.result_type(*(x.dtype for x in xs))
    return tuple(x.astype(met) if is_float(x.dtype) else x for x in xs)
