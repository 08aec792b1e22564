"""Python floats as arguments: known at run time only, and reckoned with as eager mode does.

A float takes the dtype of the tensor it meets; alone in an operation it becomes float32; among
themselves, under Python's operators, floats stay float64.
"""

import math

import numpy as np
import pytest
from helpers import is_float

import numtape as nt
from numtape import nn, optim
from numtape.ir.op import REGISTRY
from numtape.nn import functional as F

NUMBERS = (0.3, 1.7, 0.9, 0.6)
COLUMN = np.array([0.25, -1.5, 2.0])
COUNTS = np.array([1, -2, 3], np.int32)


def bits(results):
    """Dtype, shape and bytes of each result; a Python float counts as float64."""
    results = results if isinstance(results, tuple | list) else (results,)
    arrays = [r.numpy() if isinstance(r, nt.Tensor) else np.asarray(r) for r in results]
    return [(a.dtype, a.shape, a.tobytes()) for a in arrays]


def agree(function, *arguments):
    """Compiled, the function gives to the bit what eager mode gives."""
    expected = bits(function(*arguments))
    assert bits(nt.compile(function, exact=True)(*arguments)) == expected
    free = bits(nt.compile(function)(*arguments))
    assert [(d, s) for d, s, _ in free] == [(d, s) for d, s, _ in expected]


# ---- every operation ----------------------------------------------------------------------


def fed_floats(example):
    """The example's inputs with floats for all of its float arrays, and for one at a time."""
    drawn = example.inputs(np.random.default_rng(7))
    places = [i for i, a in enumerate(drawn) if is_float(a)]
    for chosen in (places, *([p] for p in places if len(places) > 1)):
        if chosen:
            inputs = [a.astype(np.float32) if is_float(a) else a for a in drawn]
            for i in chosen:
                inputs[i] = NUMBERS[i]
            yield inputs, chosen


def takes(op, inputs, chosen, attrs):
    # A number has no axes; functions refuse it before it comes to the op.
    if 0 in chosen and attrs.keys() & {"axis", "bounds"}:
        return False
    try:
        op(*inputs, **attrs)
    except (ValueError, TypeError, IndexError, ArithmeticError):
        return False
    return True


CASES = [
    pytest.param(op, inputs, chosen, example.attrs, id=f"{op.name}{i}-{chosen}")
    for op in REGISTRY.values()
    for i, example in enumerate(op.examples)
    for inputs, chosen in fed_floats(example)
    if takes(op, inputs, chosen, example.attrs)
]


@pytest.mark.parametrize("op, inputs, chosen, attrs", CASES)
def test_op_on_floats(op, inputs, chosen, attrs):
    agree(lambda *xs: op(*xs, **attrs), *inputs)


@pytest.mark.parametrize("op, inputs, chosen, attrs", CASES)
def test_gradient_for_floats(op, inputs, chosen, attrs):
    if op(*inputs, **attrs).dtype.kind == "f":
        agree(nt.grad(lambda *xs: nt.sum(op(*xs, **attrs)), chosen), *inputs)


def test_most_operations_take_floats():
    assert len({case.values[0].name for case in CASES}) > 40


# ---- functions and operators --------------------------------------------------------------


def steps_of_two(f):
    total = f
    for _ in range(3):
        total = (total * 2.0 - 1) / 3 + total % 0.7
    return total


FUNCTIONS = {
    "stack": lambda f: nt.stack([f, f * 2]),
    "concatenate": lambda f: nt.concatenate([nt.ravel(f), np.float32([1.0])]),
    "where": lambda f: nt.where(COLUMN > 0, f, 0.0),
    "where of floats": lambda f: nt.where(f > 0.1, f, -f),
    "maximum": lambda f: nt.maximum(f, 0.5),
    "power": lambda f: nt.power(f, 0.5),
    "clip": lambda f: nt.clip(f, 0.1, 0.2),
    "round": lambda f: nt.round(f * 100, 1),
    "abs": lambda f: nt.abs(-f),
    "sum": lambda f: nt.sum(f),
    "mean": lambda f: nt.mean(f),
    "reshape": lambda f: nt.reshape(f, (1, 1)),
    "broadcast_to": lambda f: nt.broadcast_to(f, (2, 2)),
    "full": lambda f: nt.full((2,), 0.3, np.float64) * nt.exp(f),
    "full of a typed scalar": lambda f: nt.full((), 0.1, np.float64) * f,
    "asarray": lambda f: (nt.asarray(f), nt.asarray(f, np.float64)),
    "softplus": lambda f: F.softplus(f),
    "gelu": lambda f: F.gelu(f),
    "einsum": lambda f: nt.einsum("i,->i", np.float32([1.0, 2.0]), f),
    "typed NumPy scalar": lambda f: nt.abs(np.float32(0.1)) * f + np.float64(0.1) * f,
    "NumPy's function": lambda f: nt.Tensor(COLUMN.astype(np.float32)) * np.exp(f),
    "NumPy's float": lambda f: nt.Tensor(COLUMN.astype(np.float32)) * (f - np.float64(0.7)),
    "NumPy's float and a tensor": lambda f: nt.Tensor(COLUMN.astype(np.float32)) * np.float64(0.7),
    "float32": lambda f: nt.Tensor(COLUMN.astype(np.float32)) * f,
    "float64": lambda f: nt.Tensor(COLUMN) * f,
    "integers": lambda f: nt.Tensor(COUNTS) * f,
    "float32 after operators": lambda f: nt.Tensor(COLUMN.astype(np.float32)) * (f / 3 + 0.1),
    "float64 after operators": lambda f: nt.Tensor(COLUMN) * (f / 3 + 0.1),
    "float64 after a function": lambda f: nt.Tensor(COLUMN) * nt.exp(f),
    "function times float": lambda f: nt.exp(f) * f,
    "root": lambda f: nt.Tensor(COLUMN) * f**0.5,
    "square": lambda f: nt.Tensor(COLUMN) * f**2,
    "power of 2": lambda f: nt.Tensor(COLUMN) * 2**f,
    "comparison": lambda f: nt.where(f == 0.3, nt.Tensor(COLUMN), 0.0),
    "comparison that float32 cannot make": lambda f: nt.where(f > 0.3 - 1e-12, COLUMN, 0.0),
    "float": lambda f: f,
    "operators": lambda f: (+f, -f, abs(-f), f + 1, 1 - f, f * f, f // 0.2, f % 0.2, 2 / f, f**3),
    "many operators": steps_of_two,
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_function_of_a_float(function):
    agree(function, 0.3)


SLOPES = {
    "exp": lambda f: nt.exp(f),
    "root": lambda f: f**0.5,
    "operators": lambda f: (f * 2.0 + 1) / f,
    "with float32": lambda f: (nt.Tensor(COLUMN.astype(np.float32)) * f).sum(),
    "with float64": lambda f: (nt.Tensor(COLUMN) * f * f).sum(),
    "stack": lambda f: (nt.stack([f, f]) ** 2).sum(),
    "softmax": lambda f: F.softmax(nt.stack([f, f * f]), 0)[0],
    "second": lambda f: nt.grad(lambda g: g**3 * nt.sin(g))(f),
}


@pytest.mark.parametrize("function", SLOPES.values(), ids=SLOPES)
def test_slope_in_a_float(function):
    agree(nt.value_and_grad(function), 0.3)
    agree(nt.grad(nt.compile(function)), 0.3)


def test_float_beside_a_parameter():
    weight = nt.Tensor(COLUMN.astype(np.float32), requires_grad=True)
    loss = lambda f: ((weight * f) ** 2).sum() * (1.0 - f)
    found = []
    for run in (loss, nt.compile(loss, exact=True)):
        weight.grad = None
        run(0.3).backward()
        found.append(bits(weight.grad))
    assert found[0] == found[1]


# ---- tapes --------------------------------------------------------------------------------


def test_floats_never_ask_for_a_trace():
    scaled = nt.compile(lambda x, f, g: (x * f, nt.exp(g), f + g, nt.where(x > 0, f, g)))
    x = COLUMN.astype(np.float32)
    for f, g in ((0.3, 1.0), (2.0, -0.0), (1e300, 1e-300), (math.inf, 0.5), (math.nan, 1.0)):
        with np.errstate(over="ignore"):
            found = scaled(x, f, g)
        assert np.array_equal(found[2].numpy(), f + g, equal_nan=True)
    assert len(scaled.misses) == 1


def test_number_and_scalar_tensor_have_tapes_of_their_own():
    """A learning rate takes the dtype of what it meets; a float64 tensor does not."""
    rate = optim.SGD([nt.Tensor(COLUMN, requires_grad=True)], lr=0.5).lr
    scalar = nt.Tensor(np.array(0.5))
    function = lambda s: nt.Tensor(np.float32([1.0, 2.0])) * s
    scaled = nt.compile(function)
    for argument in (rate, scalar, 0.5, rate):
        assert scaled(argument).dtype == function(argument).dtype
    assert len(scaled.misses) == 3


def test_result_that_is_a_number_stays_one():
    twice = nt.compile(lambda f: f * 2)
    assert (nt.Tensor(np.float32([1.0])) * twice(0.3)).dtype == np.float32
    assert twice(twice(0.3)).item() == 4 * 0.3


def test_optimizer_state_costs_no_conversion():
    model = nn.Linear(3, 2)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    @nt.compile
    def step(x):
        model(x).sum().backward()
        optimizer.step()

    source = step.tape(np.ones((4, 3), np.float32)).source
    assert not [line for line in source.splitlines() if "convert(optimizer_" in line]
