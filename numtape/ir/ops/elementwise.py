"""Arithmetic, comparison and elementary functions, with NumPy's broadcasting.

Each rule is the textbook derivative in `g, out, x, y`. Un-broadcasting is not its business.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from numtape.ir.op import Example, Op, Rule
from numtape.ir.ops.rules import (
    comparison,
    elementwise,
    example,
    float_elementwise,
    number_elementwise,
)
from numtape.ir.types import BOOL, DtypeError, Type, broadcast, is_float


def unary(name: str, kernel: Callable, vjp: Rule, low: float = -2.0, high: float = 2.0) -> Op:
    """A differentiable function of one float."""
    reference = example((3, 4), reference=kernel, low=low, high=high)
    return Op(
        name,
        float_elementwise,
        kernel,
        (vjp,),
        inplace=(0,),
        promotes="float",
        entrywise=True,
        examples=(reference,),
    )


def entry_by_entry(
    name: str, kernel: Callable, vjp: Rule, infer: Callable[..., Type] = elementwise
) -> Op:
    """A function of one value that keeps its dtype: integers stay integers, as in NumPy."""
    return Op(
        name,
        infer,
        kernel,
        (vjp,),
        inplace=(0,),
        entrywise=True,
        examples=(example((3, 4), reference=kernel),),
    )


def binary(
    name: str,
    kernel: Callable,
    vjps: tuple[Rule | None, ...] = (),
    infer: Callable = elementwise,
    promotes: str = "all",
    low: float = -2.0,
) -> Op:
    """A function of two values that broadcast."""
    examples = tuple(
        example(*shapes, reference=kernel, low=low)
        for shapes in (((3, 4), (4,)), ((2, 1), (1, 3)))
    )
    inplace = (0, 1) if infer is not comparison else ()
    return Op(
        name,
        infer,
        kernel,
        vjps,
        inplace=inplace,
        promotes=promotes,
        broadcasts=True,
        entrywise=True,
        examples=examples,
    )


add = binary("add", np.add, (lambda g, out, x, y: g, lambda g, out, x, y: g))
sub = binary("sub", np.subtract, (lambda g, out, x, y: g, lambda g, out, x, y: -g))
mul = binary("mul", np.multiply, (lambda g, out, x, y: g * y, lambda g, out, x, y: g * x))
div = binary(
    "div",
    np.true_divide,
    (lambda g, out, x, y: g / y, lambda g, out, x, y: -g * out / y),
    float_elementwise,
    "float",
    low=0.5,
)


def _share(g: Any, loses: Any, equal: Any) -> Any:
    """Of a gradient: nothing for who loses, half for equals, all where NaN makes it a NaN.

    Chosen, not multiplied: who loses gets nothing of an infinite gradient either.
    """
    return where(~loses, g * (1.0 - 0.5 * equal), 0.0)


maximum = binary(
    "maximum",
    np.maximum,
    (
        lambda g, out, x, y: _share(g, x < y, eq(x, y)),
        lambda g, out, x, y: _share(g, y < x, eq(x, y)),
    ),
)
minimum = binary(
    "minimum",
    np.minimum,
    (
        lambda g, out, x, y: _share(g, x > y, eq(x, y)),
        lambda g, out, x, y: _share(g, y > x, eq(x, y)),
    ),
)


def _without_zeros(x: Any) -> Any:
    return where(eq(x, 0.0), 1.0, x)


power = binary(
    "power",
    np.power,
    (
        # x ** 0 is 1 for every x, 0 included, where x ** (0 - 1) is infinite. Elsewhere the power
        # stays as it is: its own slope for y counts in second gradients.
        lambda g, out, x, y: g * y * where(eq(y, 0.0), _without_zeros(x), x) ** (y - 1.0),
        # 0 ** y is 0 for every y above 0; below 0 there is no log, and NaN says so.
        lambda g, out, x, y: g * out * log(_without_zeros(x)),
    ),
    low=0.5,
)
# The magnitude of x with the sign of y.
copysign: Op = binary(
    "copysign",
    np.copysign,
    (lambda g, out, x, y: g * sign(x) * copysign(1.0, y), None),  # 0 and -0 have signs
    float_elementwise,
    "float",
    low=0.5,
)
floor_divide = Op(
    "floor_divide",
    elementwise,
    np.floor_divide,
    inplace=(0, 1),
    promotes="all",
    entrywise=True,
    examples=(
        Example(
            lambda rng: (rng.integers(-9, 9, (3, 4)), rng.integers(1, 5, (4,))), np.floor_divide
        ),
    ),
)
remainder = Op(
    "remainder",
    elementwise,
    np.remainder,
    # x - y ⌊x / y⌋ between its steps.
    (lambda g, out, x, y: g, lambda g, out, x, y: -g * floor_divide(x, y)),
    inplace=(0, 1),
    promotes="all",
    broadcasts=True,
    entrywise=True,
    examples=(
        Example(lambda rng: (rng.integers(-9, 9, (3, 4)), rng.integers(1, 5, (4,))), np.remainder),
        example((3, 4), (4,), reference=np.remainder, low=0.5),
    ),
)

neg = entry_by_entry("neg", np.negative, lambda g, out, x: -g, number_elementwise)
exp = unary("exp", np.exp, lambda g, out, x: g * out)
expm1 = unary("expm1", np.expm1, lambda g, out, x: g * (out + 1.0))
log: Op = unary("log", np.log, lambda g, out, x: g / x, low=0.5)
log1p = unary("log1p", np.log1p, lambda g, out, x: g / (x + 1.0), low=-0.5)
sqrt = unary("sqrt", np.sqrt, lambda g, out, x: g * 0.5 / out, low=0.5)
tanh = unary("tanh", np.tanh, lambda g, out, x: g * (1.0 - out * out))
sin = unary("sin", np.sin, lambda g, out, x: g * cos(x))
cos: Op = unary("cos", np.cos, lambda g, out, x: -g * sin(x))
absolute = entry_by_entry("abs", np.absolute, lambda g, out, x: g * sign(x))
sign: Op = entry_by_entry("sign", np.sign, lambda g, out, x: None, number_elementwise)
square = entry_by_entry("square", np.square, lambda g, out, x: g * 2.0 * x, number_elementwise)
# Steps: flat wherever they have a slope at all.
floor = entry_by_entry("floor", np.floor, lambda g, out, x: None)
ceil = entry_by_entry("ceil", np.ceil, lambda g, out, x: None)
rint = unary("rint", np.rint, lambda g, out, x: None)

eq: Op = binary("eq", np.equal, infer=comparison)
ne = binary("ne", np.not_equal, infer=comparison)
lt = binary("lt", np.less, infer=comparison)
le = binary("le", np.less_equal, infer=comparison)
gt = binary("gt", np.greater, infer=comparison)
ge = binary("ge", np.greater_equal, infer=comparison)


def _logical(*types: Type) -> Type:
    for t in types:
        if t.dtype != BOOL:
            raise DtypeError(f"it takes booleans, not {t}; compare first, as in x != 0")
    return Type(BOOL, broadcast(*types))


def _booleans(rng: "np.random.Generator") -> tuple[np.ndarray, ...]:
    return rng.integers(0, 2, (3, 4)) == 1, rng.integers(0, 2, (4,)) == 1


logical_and = Op(
    "logical_and",
    _logical,
    np.logical_and,
    inplace=(0, 1),
    entrywise=True,
    examples=(Example(_booleans, np.logical_and),),
)
logical_or = Op(
    "logical_or",
    _logical,
    np.logical_or,
    inplace=(0, 1),
    entrywise=True,
    examples=(Example(_booleans, np.logical_or),),
)
logical_xor = Op(
    "logical_xor",
    _logical,
    np.logical_xor,
    inplace=(0, 1),
    entrywise=True,
    examples=(Example(_booleans, np.logical_xor),),
)
logical_not = Op(
    "logical_not",
    _logical,
    np.logical_not,
    inplace=(0,),
    entrywise=True,
    examples=(Example(lambda rng: _booleans(rng)[:1], np.logical_not),),
)


def _test(name: str, kernel: Callable) -> Op:
    """A question about each entry."""
    values = Example(lambda rng: (np.array([1.0, np.inf, np.nan, -np.inf]),), kernel)
    return Op(name, comparison, kernel, entrywise=True, examples=(values,))


isfinite = _test("isfinite", np.isfinite)
isinf = _test("isinf", np.isinf)
isnan = _test("isnan", np.isnan)


def truth(x: Any) -> Any:
    """Booleans as they are; of numbers, which are not 0."""
    return x if x.dtype == BOOL else x != 0


def _infer_where(condition: Type, x: Type, y: Type) -> Type:
    if condition.dtype != BOOL:
        raise DtypeError(f"the condition is boolean, not {condition}; compare first, as in x > 0")
    return Type(x.dtype, broadcast(condition, x, y), x.weak and y.weak)


_BITS = {size: np.dtype(f"i{size}") for size in (1, 2, 4, 8)}


def _is_zero(y: Any) -> bool:
    """Whether y is the number 0, and not -0."""
    number = y.item() if type(y) is np.ndarray and not y.shape else y
    return type(number) is float and number == 0.0 and math.copysign(1.0, number) > 0.0


def select(condition: np.ndarray, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """`np.where` into `out`, which may be `y` itself."""
    if _is_zero(y) and type(x) is np.ndarray and x.dtype == out.dtype:
        # As integers: 0 times any bits is 0, which floats say neither of inf nor of nan. Masks
        # in no order make copies by mask wait for every entry, 15 times as long as this.
        bits = _BITS[out.itemsize]
        np.multiply(x.view(bits), condition, out=out.view(bits))
        return
    if out is not y:
        np.copyto(out, y)
    np.copyto(out, x, where=condition)


where: Op = Op(
    "where",
    _infer_where,
    select,
    (
        None,
        lambda g, out, condition, x, y: where(condition, g, 0.0),
        lambda g, out, condition, x, y: where(condition, 0.0, g),
    ),
    inplace=(2,),
    promotes="tail",
    broadcasts=True,
    entrywise=True,
    examples=(
        Example(
            lambda rng: (rng.random((3, 4)) > 0.5, rng.normal(size=(4,)), rng.normal(size=(3, 1))),
            np.where,
        ),
    ),
)


def _infer_cast(x: Type, dtype: np.dtype) -> Type:
    return Type(np.dtype(dtype), x.shape)


def convert(x: np.ndarray, out: np.ndarray, dtype: np.dtype) -> None:
    """`x.astype(dtype)` into `out`."""
    np.copyto(out, x, casting="unsafe")


cast = Op(
    "cast",
    _infer_cast,
    convert,
    (lambda g, out, x, dtype: g.astype(x.dtype),),
    entrywise=True,
    examples=(
        Example(
            lambda rng: (rng.integers(-5, 5, (3, 4)),),
            lambda x, dtype: x.astype(dtype),
            {"dtype": np.dtype(np.float64)},
        ),
        example(
            (3, 4),
            reference=lambda x, dtype: x.astype(dtype),
            dtype=np.dtype(np.float64),
        ),
    ),
)


def stop(x: np.ndarray) -> np.ndarray:
    """The array itself."""
    return x


detach = Op(
    "detach",
    elementwise,
    view=stop,
    rows=lambda x: len(x.shape),
    vjps=(None,),
    examples=(example((3, 4), reference=lambda x: x),),
)

# The same entries as a value of its own, to be differentiated for.
alias = Op(
    "alias",
    elementwise,
    view=stop,
    rows=lambda x: len(x.shape),
    vjps=(lambda g, out, x: g,),
    examples=(example((3, 4), reference=lambda x: x),),
)


def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """x held between low and high; either may be None (`numpy.clip`)."""
    raised = x if low is None else maximum(x, low)
    return raised if high is None else minimum(raised, high)


def round(x: Any, decimals: int = 0) -> Any:
    """x to the nearest, halves to even, with `decimals` digits after the point.

    Integers stay integers; `decimals` below 0 rounds them to tens, hundreds and so on.
    """
    if not is_float(x.dtype):
        return x if decimals >= 0 else round(x.astype(np.float64), decimals).astype(x.dtype)
    if decimals == 0:
        return rint(x)
    scale = 10.0 ** abs(decimals)
    return rint(x * scale) / scale if decimals > 0 else rint(x / scale) * scale


def raised(x: Any, exponent: Any) -> Any:
    """x to a power; the exponents 2, 1 and 0.5 by the cheaper function."""
    known = isinstance(exponent, int | float) and not isinstance(exponent, bool)
    if known and is_float(x.dtype) and not x.is_number:
        if exponent == 2:
            return x * x
        if exponent == 1:
            return x
        if exponent == 0.5:
            return sqrt(x)
    return power.operate(x, exponent)
