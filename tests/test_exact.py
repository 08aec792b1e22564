"""Exact mode: compiled equals eager to the bit, whatever a program does with layouts.

NumPy and BLAS choose the order of a sum by where its entries lie in memory; `ir.ops.dense` keeps
that from mattering.
"""

import numpy as np
import pytest
from helpers import layouts
from test_ops import arrays_of, each_example, value_and_gradients

import numtape as nt
import numtape.compiler
from numtape.ir.ops.dense import dense_array
from numtape.nn.functional import log_softmax, softmax
from numtape.passes import EXACT, PIPELINE


def drawn(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


STACK, WIDE, SQUARE = drawn(4, 1, 64), drawn(4, 2, 64), drawn(50, 50)
WEIGHT, COLUMN, ROW = drawn(64, 33), drawn(64, 1), drawn(1, 64)


def parts_and_their_gradient(x, w):
    def loss(x):
        left, right = nt.split(x, 2, axis=1)
        return ((left @ w) ** 2).sum() + (right * right).sum()

    g = nt.grad(loss)(x)
    return g, g[:, :1] @ w, g.sum(0)


PROGRAMS = {
    "slice of a join": (
        lambda a, b, w: nt.concatenate([a, b], 1)[:, :1] @ w,
        (STACK, STACK * 2, WEIGHT),
    ),
    "slice of a frame": (
        lambda a, w: nt.pad(a, ((0, 0), (0, 1), (0, 0)))[:, :1] @ w,
        (STACK, WEIGHT),
    ),
    "sum of a function of a repeated column": (
        lambda v: nt.exp(v.broadcast_to((64, 1000))).sum(),
        (COLUMN,),
    ),
    "product of a function of a repeated row": (
        lambda v, w: nt.exp(v.broadcast_to((8, 1, 64))) @ w,
        (ROW, WEIGHT),
    ),
    "sum of a repeated product": (
        lambda v, u: (v.broadcast_to((64, 1000)) * u.broadcast_to((64, 1000))).sum(),
        (COLUMN, COLUMN * 3),
    ),
    "reshape of a copy": (lambda x, w: x[:, :1].reshape(-1).reshape(4, 1, 64) @ w, (WIDE, WEIGHT)),
    "frame of nothing": (lambda x: nt.pad(x.T, 0).sum(0), (SQUARE,)),
    "transposed and back": (lambda x: x.T.T.sum(0) + x.T.sum(0), (SQUARE,)),
    "only ones move": (lambda x, w: x.swapaxes(0, 1).swapaxes(0, 2) @ w, (STACK[:1], WEIGHT[:1])),
    "transposed times 1": (lambda x: (x.T * 1.0).sum(0), (SQUARE,)),
    "transposed by 1": (lambda x: (x.T / 1.0).sum(), (SQUARE,)),
    "transposed minus 0": (lambda x: (x.T - 0.0).sum(0), (SQUARE,)),
    "transposed, negative twice": (lambda x: x.T.__neg__().__neg__().sum(0), (SQUARE,)),
    "transposed either way": (lambda x: nt.where(x.T > 0, x.T, x.T).sum(0), (SQUARE,)),
    "slice times 1": (lambda x, w: (x[:, :1] * 1.0) @ w, (WIDE, WEIGHT)),
    "detached transpose": (lambda x: (x.T.detach() * 1.0).sum(0) + x.T.detach().sum(0), (SQUARE,)),
    "reversed": (lambda x: nt.flip(nt.flip(x, 0), 0).sum(0) + nt.flip(x).sum(), (SQUARE,)),
    "minus -0": (lambda x: 1.0 / (x * 0.0 - -0.0), (SQUARE,)),
    "frames of either 0": (lambda x: 1.0 / nt.pad(x, 1) - 1.0 / nt.pad(x, 1, -0.0), (SQUARE,)),
    "gradients of parts": (parts_and_their_gradient, (WIDE, WEIGHT)),
}


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


def bits(results):
    return [(r.dtype, r.shape, r.numpy().tobytes()) for r in as_tuple(results)]


def exactly(function):
    return nt.compile(function, exact=True)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("function, arrays", PROGRAMS.values(), ids=PROGRAMS)
def test_layouts(function, arrays):
    assert bits(nt.compile(function, exact=True)(*arrays)) == bits(
        function(*map(nt.Tensor, arrays))
    )


def part(x, r):
    axis = int(r.integers(x.ndim))
    return x[(slice(None),) * axis + (slice(x.shape[axis] // 3, None),)]


def part_of_join(x, r):
    axis = int(r.integers(x.ndim))
    joined = nt.concatenate([x, x * 0.5], axis)
    return joined[(slice(None),) * axis + (slice(x.shape[axis]),)]


STEPS = (
    part,
    part_of_join,
    lambda x, r: x.transpose(tuple(r.permutation(x.ndim).tolist())),
    lambda x, r: x.reshape(-1).reshape(x.shape),
    lambda x, r: x.reshape(x.shape[0], -1),
    lambda x, r: x * 1.0,
    lambda x, r: x.__neg__().__neg__(),
    lambda x, r: nt.exp(x[..., :1].broadcast_to(x.shape) * 0.1),
    lambda x, r: nt.pad(x, 1)[tuple(slice(1, 1 + n) for n in x.shape)],
    lambda x, r: nt.pad(x, 0),
    lambda x, r: nt.where(x > 0, x, x),
    lambda x, r: nt.flip(x, int(r.integers(x.ndim))),
    lambda x, r: x.sum(int(r.integers(x.ndim)), keepdims=True).broadcast_to(x.shape),
)


def program(seed):
    """A function that sums and multiplies views of copies of views."""

    def sums(x):
        r = np.random.default_rng(seed)
        values = [x]
        for _ in range(8):
            values.append(STEPS[r.integers(len(STEPS))](values[r.integers(len(values))], r))
        for v in values[-3:]:
            yield from (v.sum(), *(v.sum(a) for a in range(v.ndim)), v @ v.swapaxes(-1, -2))

    def with_gradient(x):
        g = nt.grad(lambda x: sum((s * s).mean() for s in sums(x)))(x)
        return *sums(x), g, g.sum(0)

    return with_gradient


@pytest.mark.parametrize("seed", range(30))
def test_random_layouts(seed):
    x = drawn(*[(8, 6, 40), (4, 1, 64), (1, 33, 50), (64, 1, 17), (12, 50)][seed % 5])
    function = program(seed)
    assert bits(nt.compile(function, exact=True)(x)) == bits(function(nt.Tensor(x)))


# ---- operations ---------------------------------------------------------------------------


def placed(array):
    """The array, and the same entries elsewhere in memory; the repeated ones are its first."""
    yield "dense", array
    if array.ndim:
        yield from layouts(array)
    if array.ndim and array.shape[-1] > 1:
        yield "backwards by two", np.repeat(array[..., ::-1], 2, -1)[..., ::-2]


def assert_equal_bits(function, arrays, note):
    """Eager results against compiled ones, of arrays as arguments and of captured tensors."""
    held = [nt.Tensor(a) for a in arrays]
    expected = bits(function(*held))
    assert bits(exactly(function)(*arrays)) == expected, note
    assert bits(exactly(lambda: function(*held))()) == expected, note


@each_example
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_operations_wherever_their_inputs_lie(op, example, dtype):
    arrays = arrays_of(example, dtype)
    function = value_and_gradients(op, example, arrays)
    for i, original in enumerate(arrays):
        for name, array in placed(original):
            assert_equal_bits(function, [*arrays[:i], array, *arrays[i + 1 :]], name)


SUMS = {
    "sum": lambda x: (x.sum(), x.sum(0), x.sum(1), x.mean(0), x.T.sum(0), x[:, ::2].sum()),
    "extremes": lambda x: (x.max(0), x.T.min(0), nt.argmax(x.T, 0)),
    "statistics": lambda x: (x.var(), x.T.std(0), nt.cumsum(x.T, 1), nt.prod(x, 0)),
    "softmax": lambda x: (softmax(x), softmax(x.T), log_softmax(x, 0)),
    "product": lambda x: (x @ x, x.T @ x, x @ x.T, x.T @ x.T, x[::2] @ x[:, ::-1]),
    "vectors": lambda x: (x @ x[:, :1], x[:1] @ x, x[0] @ x, x @ x[:, 0], x[:, 0] @ x[0]),
    "stack": lambda x: (x.reshape(5, 10, 50) @ x, x.reshape(5, 10, 50).swapaxes(0, 1) @ x),
    "stacks": lambda x: x.reshape(5, 10, 50) @ x.T.reshape(5, 50, 10),
    "equal factors": lambda x: (x * 2.0) @ (x * 2.0).T,
    "ones": lambda x: x.reshape(50, 1, 50)[:, :1] @ x + x[None, :1] @ x.T,
    "repeated": lambda x: x[:1].broadcast_to((50, 50)) @ x + x[:, :1].broadcast_to((50, 50)).sum(),
    "einsum": lambda x: (nt.einsum("ij,kj->ki", x, x), nt.einsum("ij,ij->j", x, x)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", SUMS.values(), ids=SUMS)
def test_sums_wherever_their_inputs_lie(function, dtype):
    def with_gradient(x):
        total = lambda x: sum((v * v).sum() for v in as_tuple(function(x)) if v.dtype.kind == "f")
        return *as_tuple(function(x)), nt.grad(total)(x)

    for name, array in placed(SQUARE.astype(dtype)):
        assert_equal_bits(with_gradient, [array], name)


GRADIENTS = {
    "of a sum": lambda out: out.sum(),
    "of a turned product": lambda out: (out.T @ out).sum(),
    "of a part": lambda out: (out[::2, ::-1] ** 2).mean(),
    "of a row": lambda out: out[0] @ out[1],
}


@pytest.mark.parametrize("loss", GRADIENTS.values(), ids=GRADIENTS)
def test_gradients_that_arrive_from_outside(loss):
    found = []
    for wrap in (lambda f: f, exactly):
        x, w = (nt.Tensor(SQUARE.T, requires_grad=True) for _ in range(2))
        out = wrap(lambda x, w=w: (x @ w + x.sum(0)).T)(x)
        loss(out).backward()
        found.append(bits((out, loss(out), x.grad, w.grad)))
    assert found[0] == found[1]


def test_an_assigned_view():
    def step(x):
        state.assign(x.T)
        return state.sum(0), state @ state[:, :1], state.sum()

    found = []
    for wrap in (lambda f: f, exactly):
        state = nt.Tensor(np.zeros_like(SQUARE))
        found.append((bits(wrap(step)(nt.Tensor(SQUARE))), state.numpy().tobytes()))
    assert found[0] == found[1]


def test_a_captured_array_is_read_where_it_is():
    array = np.repeat(SQUARE, 2, 1)[:, ::-2]
    function = lambda x: ((x + array).sum(0), x @ array, (x * array).sum())
    compiled = nt.compile(function, exact=True)
    for _ in range(2):
        assert bits(compiled(SQUARE)) == bits(function(nt.Tensor(SQUARE)))
        array *= 0.7


def test_what_lies_well_is_not_copied():
    """A product with a transpose costs no more than eager mode's view of it."""

    def step(x):
        return x @ weight.T + (x @ weight.T).sum(0)

    weight = nt.Tensor(drawn(20, 50))
    order = nt.compile(step, exact=True).tape(SQUARE).plan.order
    assert [v.op.name for v in order] == ["matmul", "sum", "add"]
    assert dense_array(SQUARE, True) is SQUARE and dense_array(SQUARE, False) is SQUARE
    assert dense_array(SQUARE.T, False).base is SQUARE


# ---- any program --------------------------------------------------------------------------


def rejoined(v):
    return nt.concatenate([v[:, ::2], v[:, 1::2]], 1)


# Square matrices to a square matrix of moderate size.
MOVES = (
    lambda v, w: v.T,
    lambda v, w: v[::-1],
    lambda v, w: nt.flip(v, 1),
    lambda v, w: rejoined(v),
    lambda v, w: v[:, :1].broadcast_to(v.shape),
    lambda v, w: v.reshape(4, -1, SIDE).swapaxes(0, 1).reshape(SIDE, SIDE),
    lambda v, w: (v + w.T) * 0.5,
    lambda v, w: nt.where(v > w, v, w[::-1]),
    lambda v, w: nt.tanh(v @ w),
    lambda v, w: nt.tanh(v @ v.T),
    lambda v, w: nt.tanh(v @ w[:, ::2]) @ w[::2] * 0.1,
    lambda v, w: nt.tanh(v.reshape(4, -1, SIDE) @ w).reshape(SIDE, SIDE),
    lambda v, w: nt.tanh(v.sum(0, keepdims=True)) * w,
    lambda v, w: softmax(v.T, 1),
    lambda v, w: v - v.mean(),
    lambda v, w: v @ w[:, :1] * 0.1 + w,
)
SIDE = 36


class AnyProgram:
    """From five to fifteen moves on an argument, a captured view and state that is assigned."""

    def __init__(self, seed, dtype):
        self.seed = seed
        drawn = np.random.default_rng(seed).normal(size=(3, SIDE, SIDE)).astype(dtype)
        layout = [dict(placed(a)) for a in drawn]
        names = np.random.default_rng(seed).choice(list(layout[0]), 3)
        self.argument, self.captured, self.state = (
            nt.Tensor(a[n].copy("K") if i == 2 else a[n], requires_grad=i < 2)
            for i, (a, n) in enumerate(zip(layout, names, strict=True))
        )

    def __call__(self, x):
        r = np.random.default_rng(self.seed)
        values = [x, self.captured, self.state]
        for _ in range(r.integers(5, 16)):
            v, w = (values[r.integers(len(values))] for _ in range(2))
            values.append(MOVES[r.integers(len(MOVES))](v, w))
        loss = sum(((v * v).mean() for v in values), (x * self.captured).sum())
        sums = [v.detach().sum(0) for v in values]
        loss.backward()
        self.state.assign(values[-1].detach())
        return loss, *sums, self.state.sum(1), self.state.T @ self.state

    def run(self, wrap):
        step = wrap(self.__call__)
        found = []
        for _ in range(2):
            found.append(bits(step(self.argument)))
            found.append(bits((self.argument.grad, self.captured.grad, self.state)))
            self.argument.grad = self.captured.grad = None
        return found


@pytest.mark.parametrize("seed", range(100))
def test_any_program(seed):
    dtype = (np.float32, np.float64)[seed % 2]
    assert AnyProgram(seed, dtype).run(exactly) == AnyProgram(seed, dtype).run(lambda f: f)


# ---- the labels ---------------------------------------------------------------------------


# Without these no graph can be run as eager mode would run it.
NEEDED = {"composites", "old_values", "dense_inputs"}


def test_exact_passes_are_those_of_the_pipeline():
    assert [p for p in EXACT if p.name != "dense_inputs"] == [p for p in PIPELINE if p.exact]
    assert all(p.exact for p in EXACT)
    records = nt.compile(lambda x: x.sum(), exact=True).tape(SQUARE).passes
    assert [r.name for r in records][: len(EXACT)] == [p.name for p in EXACT]


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("step", EXACT, ids=lambda p: p.name)
def test_a_pass_labelled_exact_is_exact_alone(step, monkeypatch):
    alone = tuple(p for p in EXACT if p is step or p.name in NEEDED)
    monkeypatch.setattr(numtape.compiler, "EXACT", alone)
    for function, arrays in PROGRAMS.values():
        expected = bits(function(*map(nt.Tensor, arrays)))
        assert bits(nt.compile(function, exact=True)(*arrays)) == expected, step.name
    for seed in range(0, 100, 10):
        found = AnyProgram(seed, np.float32).run(exactly)
        assert found == AnyProgram(seed, np.float32).run(lambda f: f), (step.name, seed)
