"""Lines of products and layers; and those that start from nothing or from chance."""

import numpy as np

from fuzz.steps.draw import ALL, FLOATS, Draw, Steps

step = Steps()


# ---- products and layers ------------------------------------------------------------------


@step(3)
def matrix_product(d: Draw) -> str:
    x = d.deep(1)
    y = d.value(FLOATS, lambda v: v.ndim > 0 and v.shape[-2 if v.ndim > 1 else -1] == x.shape[-1])
    return f"{x} @ {y}"


@step(2)
def product_with_itself(d: Draw) -> str:
    x = d.deep(2)
    return d.one((f"{x} @ {x}.swapaxes(-1, -2)", f"{x}.swapaxes(-1, -2) @ {x}"))


@step(0.7)
def dots(d: Draw) -> str:
    x = d.deep(1)
    y = d.value(FLOATS, lambda v: v.ndim > 0 and v.shape[-2 if v.ndim > 1 else -1] == x.shape[-1])
    return f"nt.dot({x}, {y})"


@step(0.7)
def vector_dots(d: Draw) -> str:
    x = d.deep(1)
    y = d.value(FLOATS, lambda v: v.ndim > 0 and v.shape[-1] == x.shape[-1])
    return f"np.vecdot({x}, {y})"


@step(0.5)
def outer(d: Draw) -> str:
    small = lambda v: 0 < np.prod(v.shape) <= 12
    return f"nt.outer({d.value(FLOATS, small)}, {d.value(FLOATS, small)})"


@step(1)
def contraction(d: Draw) -> str:
    x = d.deep(2)
    y = d.value(FLOATS, lambda v: v.ndim >= 2 and v.shape[-2] == x.shape[-1])
    forms = (f"nt.einsum('...ij,...jk->...ki', {x}, {y})", f"nt.einsum('...ij->...j', {x})")
    more = (f"nt.einsum('...i,...i->...i', {x}, {x})", f"nt.einsum('...ij->...ji', {x})")
    return d.one((*forms, *more))


@step(1.5)
def softmax(d: Draw) -> str:
    x = d.deep(1)
    return f"F.{d.one(('softmax', 'log_softmax'))}({x}, {d.axis(x)})"


@step(1.5)
def norm(d: Draw) -> str:
    x = d.value(FLOATS, lambda v: v.ndim > 0 and v.shape[-1] > 1)
    gain = d.value(FLOATS, lambda v: v.ndim == 1 and v.shape[-1] == x.shape[-1])
    n = x.shape[-1]
    if d.maybe():
        return f"F.layer_norm({x}, {n}, {d.one((gain, 'None'))}, {d.one((gain, 'None'))}, 0.1)"
    return f"F.rms_norm({x}, {n}, {gain}, 0.1)"


@step(1)
def entropy(d: Draw) -> str:
    x = d.value(FLOATS, lambda v: v.ndim > 0 and v.shape[-1] > 0)
    target = f"np.array({d.rng.integers(0, x.shape[-1], x.shape[:-1]).tolist()}, np.int64)"
    target = f"{target}.reshape({x.shape[:-1]})"
    smoothing, ignored = d.one((0.0, 0.1)), d.one((None, 0))
    return f"F.cross_entropy({x}, {target}, label_smoothing={smoothing}, ignore_index={ignored})"


@step(1.5)
def attention(d: Draw) -> str:
    q = d.deep(2)
    k = d.value(FLOATS, lambda v: v.ndim >= 2 and v.shape[-1] == q.shape[-1])
    v = d.value(FLOATS, lambda v: v.ndim >= 2 and v.shape[-2] == k.shape[-2])
    masks = [m for m in d.values if m.dtype.kind == "b"]
    mask = d.one(masks) if masks and d.maybe(0.3) else "None"
    same = f".astype(np.{q.dtype})"
    return (
        f"F.scaled_dot_product_attention({q}, {k}{same}, {v}{same}, {mask}, is_causal={d.maybe()})"
    )


# ---- from nothing, and by chance ----------------------------------------------------------


@step(0.7)
def made(d: Draw) -> str:
    x = d.value(ALL)
    n = x.shape[-1] if x.ndim else 3
    forms = (f"nt.arange({n})", f"nt.arange({n}, 0, -1)", f"nt.linspace(-1.0, 1.0, {n})")
    return d.one((*forms, f"nt.full({x.shape}, 0.5, np.float64)", f"nt.ones_like({x})"))


@step(0.7)
def chance(d: Draw) -> str:
    x = d.value()
    drawn = f"nt.random.default.uniform({x.shape}, np.{x.dtype})"
    return d.one((f"F.dropout({x}, 0.3)", f"{x} * {drawn}"))


@step(0.5)
def inner_gradient(d: Draw) -> str:
    x = d.value(FLOATS, lambda v: v.dtype == np.float64)
    inner = d.one(("(t.tanh() * t).sum()", "(t * t).sum().tanh()", "nt.exp(t.tanh()).sum()"))
    return f"nt.grad(lambda t: {inner})({x})"
