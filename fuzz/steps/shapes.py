"""Lines that move entries, add them up and pick among them."""

import numpy as np

from fuzz.steps.draw import ALL, FLOATS, INTEGERS, NUMBERS, Draw, Operand, Steps

step = Steps()


# ---- shapes -------------------------------------------------------------------------------


@step(3)
def reshaped(d: Draw) -> str:
    x = d.value(ALL)
    forms = [f"{x}.reshape(-1)"]
    if x.ndim > 1 and 0 not in x.shape:
        i = d.number(0, x.ndim - 2)
        joined = (*x.shape[:i], -1, *x.shape[i + 2 :])
        forms += [f"{x}.reshape{joined}", f"{x}.reshape{(*x.shape[::-1],)}"]
    for i, n in enumerate(x.shape):
        if n in (4, 6, 8, 10, 12) and x.ndim < 5 and 0 not in x.shape:
            forms.append(f"{x}.reshape{(*x.shape[:i], 2, n // 2, *x.shape[i + 1 :])}")
    return d.one(forms)


@step(3)
def transposed(d: Draw) -> str:
    x = d.deep(2, ALL)
    order = tuple(int(a) for a in d.rng.permutation(x.ndim))
    a, b = d.axis(x), d.axis(x)
    forms = (f"{x}.T", f"{x}.transpose{order}", f"{x}.swapaxes({a}, {b})")
    return d.one((*forms, f"nt.moveaxis({x}, {a}, {b})"))


@step(3)
def sliced(d: Draw) -> str:
    x = d.deep(1, ALL)
    parts = [d.one((":", ":", "1:", ":-1", "::2", "::-1", "1:3", "-2:", "::-2", "0:0"))]
    parts += [d.one((":", "::-1", ":2", "1:", "0", "-1", "None", "2:0:-1")) for _ in x.shape[1:]]
    return f"{x}[{', '.join(parts[: d.number(1, len(parts))])}]"


@step(1)
def picked(d: Draw) -> str:
    x = d.deep(1, ALL)
    return f"{x}[{d.one(('0', '-1', '...', 'None', '..., None', '..., 0', '..., ::-1'))}]"


@step(1.5)
def expanded(d: Draw) -> str:
    x = d.value(ALL, lambda v: v.ndim < 5)
    return d.one((f"{x}.expand_dims({d.number(0, x.ndim)})", f"{x}.squeeze()"))


@step(2)
def repeated(d: Draw) -> str:
    x = d.value(ALL, lambda v: v.ndim < 5)
    shape = tuple(d.length() if n == 1 and d.maybe(0.7) else n for n in x.shape)
    lead = (d.length(),) if d.maybe(0.4) else ()
    return f"{x}.broadcast_to({(*lead, *shape)})"


@step(0.7)
def laid_out(d: Draw) -> str:
    x = d.value(ALL, lambda v: v.ndim < 5 and np.prod(v.shape) < 60)
    axis = d.axis(x)
    return d.one((f"nt.tile({x}, {d.number(1, 2)})", f"nt.repeat({x}, 2, {axis})"))


@step(1)
def turned(d: Draw) -> str:
    x = d.deep(1, ALL)
    return d.one((f"{x}.flip({d.axis(x)})", f"{x}.flip()", f"nt.flip({x}, 0)"))


@step(2.5)
def joined(d: Draw) -> str:
    x = d.deep(1, ALL)
    axis = d.axis(x)
    rest = np.delete(x.shape, axis).tolist()
    able = lambda v: v.ndim == x.ndim and np.delete(v.shape, axis).tolist() == rest
    parts = [x, *(d.value(ALL, able) for _ in range(d.number(1, 2)))]
    return f"nt.concatenate([{', '.join(parts)}], {axis})"


@step(1)
def stacked(d: Draw) -> str:
    x = d.value(ALL, lambda v: v.ndim < 5)
    y = d.value(ALL, lambda v: v.shape == x.shape)
    return f"nt.stack([{x}, {y}], {d.number(0, x.ndim)})"


@step(1)
def parted(d: Draw) -> str:
    x = d.deep(1, ALL)
    axis = d.axis(x)
    cut = d.number(0, x.shape[axis])
    return f"nt.split({x}, [{cut}], {axis})[{d.number(0, 1)}]"


@step(1)
def framed(d: Draw) -> str:
    x = d.deep(1, NUMBERS)
    widths = [(d.number(0, 1), d.number(0, 2)) for _ in x.shape]
    return f"nt.pad({x}, {widths}, {d.one((0, 0, 1, -1))})"


@step(0.7)
def triangle(d: Draw) -> str:
    return f"nt.{d.one(('tril', 'triu'))}({d.deep(2, NUMBERS)}, {d.number(-1, 1)})"


# ---- sums and places ----------------------------------------------------------------------


@step(3)
def total(d: Draw) -> str:
    x = d.value(ALL)
    keep = d.one((True, False))
    name = "sum" if d.maybe(0.7) or x.dtype.kind == "b" else "mean"
    return f"{x}.{name}({d.axes(x)}, keepdims={keep})"


@step(2)
def extreme(d: Draw) -> str:
    x = d.value(NUMBERS)
    return f"{x}.{d.one(('max', 'min'))}({d.axes(x)}, keepdims={d.maybe()})"


@step(1)
def spread(d: Draw) -> str:
    x = d.value()
    if d.maybe():
        return f"{x}.var({d.axes(x)}, keepdims={d.maybe()})"
    return f"({x}.var({d.axes(x)}, keepdims={d.maybe()}) + 0.1).sqrt()"


@step(0.3)
def deviation(d: Draw) -> str:
    x = d.value()
    return f"{x}.std({d.axes(x)}, keepdims=True)"


@step(0.7)
def product(d: Draw) -> str:
    x = d.value()
    return f"{x}.tanh().prod({d.axes(x)}, keepdims={d.maybe()})"


@step(1)
def running(d: Draw) -> str:
    x = d.value(ALL)
    return f"{x}.cumsum({d.axis(x)})"


@step(0.7)
def truths(d: Draw) -> str:
    x = d.value(ALL)
    return f"{x}.{d.one(('any', 'all'))}({d.axes(x)})"


@step(1)
def place_of_extreme(d: Draw) -> str:
    x = d.value(NUMBERS)
    return f"{x}.{d.one(('argmax', 'argmin'))}({d.one((d.axis(x), None))})"


@step(1.5)
def gathered(d: Draw) -> str:
    x = d.deep(1, ALL)
    axis = d.axis(x)
    shape = d.one(((3,), (2, 2), (1,), (0,), (5,)))
    return f"nt.take({x}, {d.indices(x.shape[axis], shape)}, {axis})"


@step(1)
def gathered_at_computed(d: Draw) -> str:
    x = d.deep(1, ALL)
    axis = d.axis(x)
    index = d.value(INTEGERS)
    return f"nt.take({x}, {index} % {x.shape[axis]}, {axis})"


@step(1)
def fancy(d: Draw) -> str:
    x = d.deep(2, ALL)
    i, j = (d.indices(n, (3,)) for n in x.shape[:2])
    return d.one((f"{x}[{i}, {j}]", f"{x}[:, {j}]", f"{x}[{i}, 1:]", f"{x}[{i}]"))


@step(1.2)
def scattered(d: Draw) -> str:
    x = d.deep(1)
    axis = d.axis(x) % x.ndim
    values = d.value(FLOATS, lambda v: v.ndim == x.ndim and fits(v, x, axis))
    index = d.indices(x.shape[axis], (values.shape[axis],))
    return f"nt.index_add({x}, {index}, {values}.astype(np.{x.dtype}), {axis})"


def fits(v: Operand, x: Operand, axis: int) -> bool:
    return np.delete(v.shape, axis).tolist() == np.delete(x.shape, axis).tolist()
