"""NumPy's names mean what they mean in NumPy: shapes, values, gradients, dtypes, edges."""

import numpy as np
import pytest
from helpers import check, drawn, same
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

import numtape as nt

RNG = np.random.default_rng(11)
quick = settings(max_examples=40, deadline=None, derandomize=True)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)


# ---- elementwise --------------------------------------------------------------------------


@quick
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
def test_operators_broadcast(shapes):
    x, y = (drawn(*s) + 3.0 for s in shapes.input_shapes)
    a, b = nt.Tensor(x), nt.Tensor(y)
    for found, expected in [
        (a + b, x + y),
        (a - b, x - y),
        (a * b, x * y),
        (a / b, x / y),
        (a**b, x**y),
        (a // b, x // y),
        (a % b, x % y),
        (a == b, x == y),
        (a < b, x < y),
        (a >= b, x >= y),
        (nt.maximum(a, b), np.maximum(x, y)),
        (nt.where(a > b, a, b), np.where(x > y, x, y)),
    ]:
        same(found, expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("shapes", [((3,), ()), ((2, 1), (1, 3)), ((4, 1, 2), (3, 1))])
def test_gradients_undo_broadcasting(shapes):
    x, y = (drawn(*s) for s in shapes)
    check(lambda a, b: a * b + a - b, lambda a, b: a * b + a - b, x, y)


def test_operators_with_numbers_and_arrays_on_either_side():
    x = drawn(2, 3) + 3
    t = nt.Tensor(x)
    for found, expected in [
        (2 - t, 2 - x),
        (2 / t, 2 / x),
        (2**t, 2**x),
        (7 // t, 7 // x),
        (7 % t, 7 % x),
        (x - t, x - x),
        (x @ t.T, x @ x.T),
        (t > 1, x > 1),
        (-abs(-t), -x),
        (+t, x),
    ]:
        same(found, expected)


def test_numpy_functions_on_tensors():
    x = drawn(2, 2) + 3
    t = nt.Tensor(x)
    same(np.exp(t), np.exp(x))
    same(np.add(x, t), x + x)
    same(np.matmul(t, x), x @ x)
    assert isinstance(np.exp(t), nt.Tensor)
    for refused in (np.sum, np.arctan, np.add.reduce):
        with pytest.raises(TypeError, match="numtape"):
            refused(t)


@pytest.mark.parametrize(
    "name",
    [
        *("abs", "cos", "exp", "expm1", "log", "log1p", "sign", "sin", "sqrt", "square", "tanh"),
        *("ceil", "floor", "round"),
    ],
)
def test_elementary_functions(name):
    x = drawn(2, 3) + 2.5
    same(getattr(nt, name)(x), getattr(np, name)(x))
    if hasattr(nt.Tensor, name):
        same(getattr(nt.Tensor(x), name)(), getattr(np, name)(x))


@pytest.mark.parametrize("decimals", [-1, 0, 1, 3])
def test_round(decimals):
    x = np.array([-12.5, -2.5, 0.25, 1.5, 15.0, 1234.56789])
    same(nt.round(x, decimals), np.round(x, decimals))
    same(nt.Tensor(x).round(decimals), np.round(x, decimals))


def test_what_is_not_a_number():
    x = np.array([1.0, np.nan, -np.inf])
    assert nt.isnan(x).tolist() == [False, True, False]
    assert nt.any(nt.isnan(x)).item()


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, 0.5, 2.0, -0.5])
def test_powers_by_numbers(exponent):
    check(lambda x: x**exponent, lambda x: x**exponent, np.array([0.5, 1.0, 2.5]))


def test_powers_of_zero_and_negative_numbers():
    x = np.array([0.0, -1.5, 2.0])
    for exponent in (0, 1, 2, 3, 4):
        found = nt.grad(lambda x, n=exponent: (x**n).sum())(x)
        same(found, exponent * x ** max(0, exponent - 1))


@pytest.mark.parametrize("low, high", [(-1.5, 2.5), (None, 1.0), (0.0, None)])
def test_clip(low, high):
    x = np.array([-3.0, -1.0, 0.5, 2.0, 5.0])
    check(lambda t: nt.clip(t, low, high), lambda a: np.clip(a, low, high), x)
    same(nt.grad(lambda t: t.clip(-2.0, 3.0).sum())(x), [0.0, 1.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize("function", [nt.maximum, nt.minimum])
def test_equal_entries_share_the_gradient(function):
    x, y = nt.grad(lambda x, y: function(x, y).sum(), (0, 1))(np.ones(2), np.ones(2))
    assert x.tolist() == y.tolist() == [0.5, 0.5]


def test_equal_maxima_share_the_gradient():
    assert nt.grad(lambda x: x.max())(np.array([1.0, 3.0, 3.0])).tolist() == [0.0, 0.5, 0.5]


def test_gradients_at_kinks():
    zero = np.zeros(1)
    assert nt.grad(lambda x: abs(x).sum())(zero).tolist() == [0.0]
    assert nt.grad(lambda x: x.relu().sum())(zero).tolist() == [0.0]


def test_where_guards_gradients():
    """The branch not taken adds 0 even where its own gradient is infinite."""
    safe = lambda x: nt.where(x > 0, nt.sqrt(nt.where(x > 0, x, 1.0)), 0.0).sum()
    same(nt.grad(safe)(np.array([-1.0, 0.0, 4.0])), [0.0, 0.0, 0.25])


# ---- dtypes -------------------------------------------------------------------------------

F32, F64, I32, I64, BOOL = (np.dtype(d) for d in ("f4", "f8", "i4", "i8", "?"))


@pytest.mark.parametrize(
    "left, right, expected",
    [
        (I64, F32, F32),
        (I32, F64, F64),
        (F32, F64, F64),
        (BOOL, F32, F32),
        (BOOL, I32, I32),
        (I32, I64, I64),
        (F32, 2.5, F32),
        (F64, 2.5, F64),
        (F32, 3, F32),
        (I32, 3, I32),
        (I64, 2.5, F32),
        (BOOL, 2, I64),
        (I32, True, I32),
    ],
    ids=str,
)
def test_promotion(left, right, expected):
    x = nt.Tensor(np.ones(2, left))
    y = nt.Tensor(np.ones(2, right)) if isinstance(right, np.dtype) else right
    assert (x + y).dtype == expected
    assert (y * x).dtype == expected
    assert nt.compile(lambda x: x + y)(x).dtype == expected


def test_division_and_elementary_functions_of_integers_are_floats():
    x = nt.Tensor(np.arange(1, 4))
    assert [f.dtype for f in (x / x, nt.exp(x), x.mean(), nt.sqrt(x))] == [F32] * 4


def test_sums_count():
    x = np.array([[True, False, True], [True, True, True]])
    assert nt.sum(x).item() == 5
    assert nt.sum(x).dtype == nt.cumsum(x, 0).dtype == I64
    assert nt.mean(x).item() == np.float32(5 / 6)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int16, np.int32, np.uint64])
def test_narrow_integers_add_up_in_64_bits(dtype):
    x = np.full((10, 100), min(200, np.iinfo(dtype).max) if dtype != np.bool_ else 1, dtype)
    for found, expected in [
        (nt.sum(x, 1), x.sum(1)),
        (nt.compile(lambda t: t.sum())(x), x.sum()),
        (nt.cumsum(x, 0), x.cumsum(0)),
    ]:
        same(found, expected)
        assert found.dtype == expected.dtype
    assert nt.mean(x).dtype == np.float32
    assert nt.mean(x).item() == x.mean()
    assert nt.var(x).item() == 0


@pytest.mark.parametrize("dtype", ["i8", "i4", "u1", "?", "f4"])
def test_extremes_of_every_dtype(dtype):
    x = np.array([[3, 0, 2], [1, 5, 0]]).astype(dtype)
    for axis in (None, 0, 1):
        for name in ("max", "min", "argmax", "argmin"):
            found = getattr(nt, name)(x, axis)
            assert np.array_equal(found.numpy(), getattr(np, name)(x, axis)), name


def test_magnitudes_of_integers_are_integers():
    found = nt.abs(np.array([-(2**40) - 1, 3]))
    assert (found.tolist(), found.dtype) == ([2**40 + 1, 3], I64)


def test_python_numbers_become_float32_and_arrays_keep_their_dtype():
    assert nt.tensor([1.0, 2.0]).dtype == nt.tensor(1.5).dtype == nt.zeros(2).dtype == F32
    assert nt.tensor([1, 2]).dtype == nt.arange(3).dtype == I64
    assert nt.tensor(np.ones(2)).dtype == nt.tensor(np.float64(1)).dtype == F64
    assert nt.tensor([True]).dtype == BOOL
    with pytest.raises(TypeError, match="complex"):
        nt.tensor([1j])


# ---- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nt.sum(np.ones(3), 1), "axis 1"),
        (lambda: nt.sum(np.ones((2, 3)), (0, -2)), "twice"),
        (lambda: nt.max(np.ones((0, 3)), 0), "no entries"),
        (lambda: nt.mean(np.ones((0, 3)), 0), "no entries"),
        (lambda: nt.var(np.ones(1), ddof=1), "ddof=1"),
        (lambda: nt.Tensor(np.ones((2, 3))) + np.ones(4), r"f64\[2,3\] and f64\[4\]"),
        (lambda: nt.reshape(np.ones(6), (4, -1)), "reshape"),
        (lambda: nt.squeeze(np.ones((1, 2)), 1), "length 2"),
        (lambda: nt.split(np.ones(5), 2), "2 equal parts"),
        (lambda: nt.concatenate([]), "nothing"),
        (lambda: nt.concatenate([np.ones((2, 3)), np.ones((2, 4))]), "axis 0"),
        (lambda: nt.stack([np.ones(2), np.ones(3)]), "differ"),
        (lambda: nt.matmul(np.ones((2, 3)), np.ones((4, 5))), "3 and 4"),
        (lambda: nt.matmul(1.0, np.ones(2)), r"\*"),
        (lambda: nt.transpose(np.ones((2, 3)), (0, 0)), "order"),
        (lambda: nt.tril(np.ones(3)), "two axes"),
    ],
)
def test_errors_say_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- shapes -------------------------------------------------------------------------------

REARRANGED = {
    "reshape": (lambda m, x: m.reshape(x, (4, -1)), (2, 3, 4)),
    "ravel": (lambda m, x: m.ravel(x), (2, 3)),
    "tile": (lambda m, x: m.tile(x, 2), (2, 3)),
    "tile axes": (lambda m, x: m.tile(x, (2, 1, 3)), (2, 3)),
    "tile last": (lambda m, x: m.tile(x, (4,)), (2, 3)),
    "repeat": (lambda m, x: m.repeat(x, 2), (2, 3)),
    "repeat axis": (lambda m, x: m.repeat(x, 3, axis=-1), (2, 3)),
    "repeat counts": (lambda m, x: m.repeat(x, [2, 0], axis=0), (2, 3)),
    "transpose": (lambda m, x: m.transpose(x), (2, 3, 4)),
    "transpose axes": (lambda m, x: m.transpose(x, (1, -1, 0)), (2, 3, 4)),
    "swapaxes": (lambda m, x: m.swapaxes(x, 0, -1), (2, 3, 4)),
    "moveaxis": (lambda m, x: m.moveaxis(x, 0, -1), (2, 3, 4)),
    "expand_dims": (lambda m, x: m.expand_dims(x, (0, -1)), (2, 3)),
    "squeeze": (lambda m, x: m.squeeze(x), (1, 2, 1)),
    "squeeze axis": (lambda m, x: m.squeeze(x, -1), (1, 2, 1)),
    "broadcast_to": (lambda m, x: m.broadcast_to(x, (4, 2, 3)), (2, 1)),
    "flip": (lambda m, x: m.flip(x), (2, 3)),
    "flip axes": (lambda m, x: m.flip(x, (0, -1)), (2, 3, 4)),
    "concatenate": (lambda m, x: m.concatenate([x, x * 2, x[:1]], 0), (2, 3)),
    "concatenate last": (lambda m, x: m.concatenate([x, x], axis=-1), (2, 3)),
    "stack": (lambda m, x: m.stack([x, x * x], axis=1), (2, 3)),
    "stack last": (lambda m, x: m.stack([x, x], axis=-1), (2, 3)),
    "split": (lambda m, x: m.split(x, 3, 1)[1], (2, 6)),
    "split at": (lambda m, x: m.split(x, [1, 4], axis=-1)[2], (2, 6)),
    "pad": (lambda m, x: m.pad(x, 2), (2, 3)),
    "pad sides": (lambda m, x: m.pad(x, ((1, 0), (0, 2))), (2, 3)),
    "tril": (lambda m, x: m.tril(x), (2, 3, 3)),
    "tril above": (lambda m, x: m.tril(x, 1), (3, 4)),
    "triu": (lambda m, x: m.triu(x, -1), (4, 3)),
    "take": (lambda m, x: m.take(x, np.array([[2, -1], [0, 2]]), axis=1), (2, 3)),
    "take many": (lambda m, x: m.take(x, np.array([1, 1, 1]), axis=0), (2, 3)),
    "outer": (lambda m, x: m.outer(x, x * 2), (3,)),
}


@pytest.mark.parametrize("function, shape", REARRANGED.values(), ids=REARRANGED)
def test_rearrangements(function, shape):
    check(lambda t: function(nt, t), lambda a: function(np, a), drawn(*shape))


def test_pad_by_a_value():
    same(nt.pad(np.ones((1, 2)), 1, 7.0), np.pad(np.ones((1, 2)), 1, constant_values=7.0))


def test_index_add_accumulates():
    x, index, values = drawn(4, 3), np.array([1, -1, 1]), drawn(3, 3)
    expected = x.copy()
    np.add.at(expected, index, values)
    check(lambda a, b: nt.index_add(a, index, b), lambda a, b: expected, x, values)


def test_constructors():
    for name in ("zeros", "ones"):
        same(getattr(nt, name)((2, 3)), getattr(np, name)((2, 3)))
        same(getattr(nt, name)(4), getattr(np, name)(4))
    same(nt.full((2,), 1.5, np.float64), np.full(2, 1.5))
    same(nt.arange(2, 11, 3), np.arange(2, 11, 3))
    with pytest.raises(TypeError, match="counts in integers"):
        nt.arange(0, 1, 0.25)
    shared = np.arange(3.0)
    assert nt.asarray(shared).data is shared
    assert nt.asarray([1.0, 2.0]).dtype == nt.asarray(shared, nt.float32).dtype == F32
    tensor = nt.Tensor(shared)
    assert nt.asarray(tensor) is tensor
    for like in (nt.zeros_like, nt.ones_like):
        made = like(np.arange(3))
        assert made.dtype == I64
        made.assign(np.array([4, 5, 6]))  # it has memory of its own
        assert made.tolist() == [4, 5, 6]


def test_lengths_and_axes_may_be_numpy_integers():
    two, x = np.int64(2), nt.Tensor(drawn(2, 3))
    assert nt.zeros(two).shape == (2,)
    assert nt.ones(np.array([2, 3])).shape == (2, 3)
    assert x.reshape(np.array([3, 2])).shape == x.reshape(two + 1, two).shape == (3, 2)
    assert x.transpose(np.array([1, 0])).shape == (3, 2)
    assert nt.expand_dims(x, np.int64(0)).shape == (1, 2, 3)
    assert [part.shape for part in nt.split(x, two)] == [(1, 3), (1, 3)]
    assert x.ravel().shape == x.flatten().shape == (6,)


# ---- truth, products and ranges ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_logical_functions_of_booleans_and_numbers(name):
    ours, theirs = getattr(nt, name), getattr(np, name)
    pairs = [
        (np.array([True, True, False, False]), np.array([True, False, True, False])),
        (np.array([1.5, np.nan, 0.0, -0.0]), np.array([2, 0, 3, 0])),
        (np.array([[True], [False]]), np.array([0.0, 1.0])),
    ]
    for x, y in pairs:
        found = ours(x, y)
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found.numpy(), theirs(x, y))
        np.testing.assert_array_equal(nt.compile(ours)(x, y).numpy(), theirs(x, y))


def test_questions_about_entries():
    x = np.array([0.0, -1.5, np.inf, -np.inf, np.nan])
    for name in ("isinf", "isnan", "isfinite", "logical_not"):
        np.testing.assert_array_equal(getattr(nt, name)(x).numpy(), getattr(np, name)(x))


def test_operators_on_booleans_with_an_array_on_either_side():
    x, y = np.array([True, True, False, False]), np.array([True, False, True, False])
    t = nt.Tensor(y)
    for found, expected in [
        (x & t, x & y),
        (t | x, x | y),
        (x ^ t, x ^ y),
        (t ^ x, x ^ y),
        (True & t, y),
        (True ^ t, ~y),
        (False | t, y),
        (np.invert(t), ~y),
    ]:
        np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize(
    "shapes",
    [((), (3,)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((3,), (2, 3, 4)), ((5, 2, 3), (2, 3, 4))],
)
def test_dot(shapes):
    x, y = (RNG.normal(size=s) for s in shapes)
    check(nt.dot, np.dot, x, y)
    check(lambda x, y: x.dot(y), np.dot, x, y)


@pytest.mark.parametrize("num, endpoint", [(50, True), (7, False), (1, True), (0, True)])
def test_linspace(num, endpoint):
    expected = np.linspace(-1, 2, num, endpoint)
    same(nt.linspace(-1, 2, num, endpoint, np.float64), expected)
    space = nt.compile(lambda: nt.linspace(-1, 2, num, endpoint))()
    assert space.dtype == np.float32
    np.testing.assert_array_equal(space.numpy(), expected.astype(np.float32))
