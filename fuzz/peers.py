"""What PyTorch computes for each operation: the one table from the registry to PyTorch.

Needs PyTorch; nothing else of the package imports this module before it is asked to compare.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from numtape.ir.ops.parts import slices

torch.set_num_threads(1)


def as_torch(x: np.ndarray, wanted: bool = False) -> torch.Tensor:
    """A tensor of PyTorch's with memory of its own; `wanted` asks for its gradient."""
    return torch.from_numpy(np.array(x, order="C")).requires_grad_(wanted and x.dtype.kind == "f")


def torch_dtype(dtype: Any) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def pulled(function: Callable, xs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """PyTorch's gradients of a scalar function for those of `xs` that want one, to pull again."""
    wanted = [x for x in xs if x.requires_grad]
    value = function(*xs)
    if not value.requires_grad:
        return [torch.zeros_like(x) for x in wanted]
    return list(torch.autograd.grad(value, wanted, create_graph=True, materialize_grads=True))


# ---- operations that PyTorch has under another name or in parts ---------------------------


def _sliced(x, bounds):
    for axis, bound in enumerate(bounds):
        x = x.index_select(axis, torch.tensor(list(range(*bound)), dtype=torch.int64))
    return x


def _placed(x, shape, bounds, fill=0.0):
    frame = torch.full(shape, fill, dtype=x.dtype)
    frame[slices(bounds)] = x
    return frame


def _added_to_slice(x, y, bounds):
    whole = x.clone()
    whole[slices(bounds)] += y
    return whole


def _scattered(x, index, values, axis):
    flat = values.flatten(axis, axis + index.ndim - 1).to(x.dtype)
    return x.index_add(axis, index.flatten(), flat)


def _attention(q, k, v, *masks, causal):
    batch = torch.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))  # empty ones, too
    q, k, v = (x.expand(*batch, *x.shape[-2:]) for x in (q, k, v))
    mask = masks[0] if masks else None
    if masks and causal:  # PyTorch takes one or the other
        mask, causal = mask & torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril(), False
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)


def _cross_entropy(logits, target, ignore_index, label_smoothing):
    ignored = -100 if ignore_index is None else ignore_index
    rows = logits.reshape(target.numel(), logits.shape[-1])
    return F.cross_entropy(
        rows, target.flatten(), ignore_index=ignored, label_smoothing=label_smoothing
    )


PEERS = {
    "abs": torch.abs,
    "add": torch.add,
    "add_slice": _added_to_slice,
    "alias": lambda x: x,
    "arange": lambda start, stop, step, dtype: torch.arange(start, stop, step),
    "argmax": lambda x, axis: x.argmax(axis),
    "argmin": lambda x, axis: x.argmin(axis),
    "attention": _attention,
    "broadcast_to": lambda x, shape: x.broadcast_to(shape),
    "cast": lambda x, dtype: x.to(torch_dtype(dtype)),
    "ceil": torch.ceil,
    "concatenate": lambda *xs, axis: torch.cat(xs, axis),
    "copysign": torch.copysign,
    "cos": torch.cos,
    "cross_entropy": _cross_entropy,
    "cumsum": lambda x, axis: x.cumsum(axis).to(x.dtype),
    "dense": lambda x, whole: x.contiguous(),
    "detach": lambda x: x.detach(),
    "div": torch.div,
    "einsum": lambda *xs, subscripts: torch.einsum(subscripts, *xs),
    "eq": torch.eq,
    "erf": torch.erf,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "filled": lambda shape, value, dtype: torch.full(shape, value, dtype=torch_dtype(dtype)),
    "floor": torch.floor,
    "floor_divide": lambda x, y: torch.floor_divide(x.detach(), y.detach()),
    "ge": torch.ge,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gt": torch.gt,
    "isfinite": torch.isfinite,
    "isinf": torch.isinf,
    "isnan": torch.isnan,
    "layer_norm": lambda x, *gain_bias, eps: F.layer_norm(x, x.shape[-1:], *gain_bias, eps=eps),
    "le": torch.le,
    "linspace": lambda start, stop, num, endpoint, dtype: torch.linspace(
        start, stop, num, dtype=torch_dtype(dtype)
    ),
    "log": torch.log,
    "log1p": torch.log1p,
    "log_softmax": lambda x, axis: torch.log_softmax(x, axis),
    "logical_and": torch.logical_and,
    "logical_not": torch.logical_not,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "lt": torch.lt,
    "matmul": torch.matmul,
    "max": lambda x, axis: x.amax(axis),
    "maximum": torch.maximum,
    "min": lambda x, axis: x.amin(axis),
    "minimum": torch.minimum,
    "mish": F.mish,
    "mul": torch.mul,
    "ne": torch.ne,
    "neg": torch.neg,
    "normal_cdf": torch.special.ndtr,
    "place": _placed,
    "power": torch.pow,
    "relu": torch.relu,
    "remainder": torch.remainder,
    "reshape": lambda x, shape: x.reshape(shape),
    "rint": torch.round,
    "rms_norm": lambda x, gain, eps: F.rms_norm(x, x.shape[-1:], gain, eps),
    "scatter_add": _scattered,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": F.silu,
    "sin": torch.sin,
    "slice": _sliced,
    "softmax": lambda x, axis: torch.softmax(x, axis),
    "softplus": F.softplus,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "sub": torch.sub,
    "sum": lambda x, axis: x.sum(axis).to(x.dtype),
    "take": lambda x, index, axis: x[(slice(None),) * axis + (index,)],
    "tanh": torch.tanh,
    "transpose": lambda x, axes: x.permute(axes),
    "vecdot": torch.linalg.vecdot,
    "where": torch.where,
    "wrap_index": lambda index, size, lowest: torch.remainder(index.long(), size),
}
NO_PEER = {
    "input": "stands in graphs and computes nothing",
    "constant": "stands in graphs and computes nothing",
    "released": "stands in records and computes nothing",
    "uniform": "another generator: PyTorch's has no Philox stream that is the same",
    "advance": "the state of that generator",
    "adam_scalars": "a part of Adam, compared as a whole in test_torch_optim.py",
}
