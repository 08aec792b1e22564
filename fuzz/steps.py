"""The lines that random programs are made of: each function writes one expression.

A `Draw` offers the values there are; operands are strings, so that an expression is an f-string.
Whether NumPy's rules allow it is not asked here: the generator tries each line, and drops it
where numtape refuses.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

FLOATS, INTEGERS, BOOLEANS, NUMBERS, ALL = "f", "iu", "b", "fiu", "fiub"
STEPS: list[tuple[float, Callable[["Draw"], str]]] = []


class Operand(str):
    """The name of a value, which knows its dtype and shape."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> "Operand":
        made = cls(name)
        made.dtype, made.shape = array.dtype, array.shape
        return made

    @property
    def ndim(self) -> int:
        return len(self.shape)


class NoOperand(Exception):
    """There is no value of the wanted kind."""


class Draw:
    """Random choices among the values so far."""

    def __init__(self, rng: np.random.Generator, values: Sequence[Operand]) -> None:
        self.rng = rng
        self.values = values

    def one(self, items: Sequence[Any]) -> Any:
        return items[self.rng.integers(len(items))]

    def number(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def maybe(self, chance: float = 0.5) -> bool:
        return bool(self.rng.random() < chance)

    def value(self, kinds: str = FLOATS, test: Callable[[Operand], bool] | None = None) -> Operand:
        """A value of one of the kinds, rather one made lately."""
        able = [v for v in self.values if v.dtype.kind in kinds and (test is None or test(v))]
        if not able:
            raise NoOperand
        if self.maybe(0.4):
            return able[-1 - self.number(0, min(2, len(able) - 1))]
        return self.one(able)

    def deep(self, axes: int, kinds: str = FLOATS) -> Operand:
        return self.value(kinds, lambda v: v.ndim >= axes)

    def beside(self, x: Operand, kinds: str = NUMBERS) -> Operand:
        """A value that broadcasts with x."""
        return self.value(kinds, lambda v: broadcast(x.shape, v.shape) is not None)

    def axis(self, x: Operand) -> int:
        if not x.ndim:
            raise NoOperand
        return self.number(-x.ndim, x.ndim - 1)

    def axes(self, x: Operand) -> str:
        """None, one axis, or several."""
        if self.maybe(0.25) or not x.ndim:
            return "None"
        chosen = tuple(int(a) for a in self.rng.permutation(x.ndim)[: self.number(1, x.ndim)])
        return str(chosen if self.maybe(0.4) else chosen[0])

    def length(self) -> int:
        return int(self.rng.choice([0, 1, 2, 3, 4, 5], p=[0.04, 0.16, 0.2, 0.25, 0.2, 0.15]))

    def indices(self, size: int, shape: tuple[int, ...]) -> str:
        if size == 0:
            raise NoOperand
        return f"np.array({self.rng.integers(-size, size, shape).tolist()}, np.int64)"


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def step(weight: float = 1.0) -> Callable[[Callable[[Draw], str]], Callable[[Draw], str]]:
    def added(function: Callable[[Draw], str]) -> Callable[[Draw], str]:
        STEPS.append((weight, function))
        return function

    return added


NUMBERS_OF = ("0.0", "-0.0", "1.0", "-1.0", "2.0", "0.5", "-0.3", "1", "2", "0", "-1")


# ---- entry by entry -----------------------------------------------------------------------


@step(4)
def arithmetic(d: Draw) -> str:
    x = d.value(NUMBERS)
    return f"{x} {d.one('+-*')} {d.beside(x)}"


@step(1)
def with_booleans(d: Draw) -> str:
    x = d.value(ALL)
    return f"{x} {d.one('+*')} {d.beside(x, ALL)}"


@step(3)
def with_a_number(d: Draw) -> str:
    x, number = d.value(NUMBERS), d.one(NUMBERS_OF)
    x, y = (x, number) if d.maybe() else (number, x)
    return f"{x} {d.one('+-*')} {y}"


@step(2)
def quotient(d: Draw) -> str:
    x = d.value()
    y = d.beside(x, FLOATS)
    forms = (f"{x} / ({y} * {y} + 0.5)", f"{x} / {d.one(NUMBERS_OF[2:8])}")
    return d.one((*forms, f"1.0 / ({y}.abs() + 0.3)", f"{x} / ({y}.sigmoid() + 0.1)"))


@step(0.3)
def raw_quotient(d: Draw) -> str:
    x = d.value(NUMBERS)
    return f"{x} / {d.beside(x)}"


@step(1.5)
def extreme_of_two(d: Draw) -> str:
    x = d.value(NUMBERS)
    y = d.beside(x) if d.maybe(0.8) else d.one(NUMBERS_OF)
    return f"nt.{d.one(('maximum', 'minimum'))}({x}, {y})"


@step(1)
def powers(d: Draw) -> str:
    x = d.value()
    y = d.beside(x, FLOATS)
    whole = d.one((2, 3, 2.0, 1, 0, 4, -1, 0.5))
    forms = (f"{x} ** {whole}", f"({x}.abs() + 0.5) ** {y}.tanh()", f"2.0 ** {x}.tanh()")
    return d.one((*forms, f"({x} * {x} + 0.25) ** {d.one((0.5, -0.5, 1.5))}"))


@step(0.5)
def magnitude(d: Draw) -> str:
    x = d.value()
    return f"np.copysign({x}, {d.beside(x, FLOATS)})"


@step(1)
def whole_parts(d: Draw) -> str:
    x = d.value(NUMBERS)
    y = d.beside(x)
    divisor = d.one((f"({y}.abs() + 1)", "3", "-2") if x.dtype.kind in "iu" else ("0.5", "1.5"))
    return f"{x} {d.one(('//', '%'))} {divisor}"


UNARY = (
    "nt.exp({}.tanh())",
    "nt.exp({} * 0.5)",
    "nt.expm1({}.tanh())",
    "nt.log({0} * {0} + 0.5)",
    "nt.log({}.abs() + 0.1)",
    "nt.log1p({}.abs())",
    "nt.sqrt({0} * {0} + 0.3)",
    "{}.tanh()",
    "{}.tanh()",
    "{}.sin()",
    "{}.cos()",
    "{}.abs()",
    "-{}",
    "{}.square()",
    "nt.sign({})",
    "nt.floor({})",
    "nt.ceil({})",
    "{}.round()",
    "{}.round(1)",
    "{}.clip(-0.8, 0.6)",
    "{}.clip(0.0)",
)
ACTIVATIONS = (
    "nt.sigmoid({})",
    "F.relu({})",
    "F.silu({})",
    "F.gelu({})",
    "F.gelu({}, 'tanh')",
    "F.softplus({})",
    "F.mish({})",
    "nt.erf({})",
)
RAW = ("nt.exp({})", "nt.log({})", "nt.sqrt({})", "nt.log1p({})", "nt.expm1({})")


@step(5)
def unary(d: Draw) -> str:
    return d.one(UNARY).format(d.value(FLOATS if d.maybe(0.9) else NUMBERS))


@step(2.5)
def activation(d: Draw) -> str:
    return d.one(ACTIVATIONS).format(d.value())


@step(0.3)
def undefined_in_places(d: Draw) -> str:
    return d.one(RAW).format(d.value(NUMBERS))


@step(1.5)
def comparison(d: Draw) -> str:
    x = d.value(ALL)
    y = d.beside(x, ALL) if d.maybe(0.7) else d.one(NUMBERS_OF)
    return f"{x} {d.one(('<', '<=', '>', '>=', '==', '!='))} {y}"


@step(0.5)
def question(d: Draw) -> str:
    return f"nt.{d.one(('isfinite', 'isinf', 'isnan'))}({d.value()})"


@step(1)
def logic(d: Draw) -> str:
    x = d.value(BOOLEANS)
    y = d.beside(x, BOOLEANS)
    return d.one((f"{x} & {y}", f"{x} | {y}", f"{x} ^ {y}", f"~{x}"))


@step(2)
def selection(d: Draw) -> str:
    condition = d.value(BOOLEANS)
    x = d.beside(condition)
    y = d.value(NUMBERS, lambda v: broadcast(condition.shape, x.shape, v.shape) is not None)
    x, y = d.one(((x, y), (x, "0.0"), (d.one(NUMBERS_OF), y), (x, d.one(NUMBERS_OF))))
    return f"nt.where({condition}, {x}, {y})"


@step(1)
def masked(d: Draw) -> str:
    x = d.value()
    y = d.beside(x, FLOATS)
    return f"nt.where({x} > {y}, {x}, {d.one((y, '0.0', '-0.5'))})"


@step(1)
def conversion(d: Draw) -> str:
    dtype = d.one(("float32", "float64", "float64", "int64", "int32", "uint8", "bool"))
    x = d.value(ALL)
    whole = dtype in ("int64", "int32", "uint8") and x.dtype.kind == "f"
    # What floats out of range become as integers, C leaves open.
    source = f"({x}.tanh() * 4.0).abs()" if whole else f"{x}"
    return f"{source}.astype(np.{dtype})"


@step(0.4)
def detached(d: Draw) -> str:
    return f"{d.value()}.detach()"


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
