"""Where naive formulas fail: huge logits, rows with everything masked, tails of erf and gelu."""

import math

import numpy as np
import pytest
from helpers import differences

import numtape as nt
from numtape.ir.ops.elementwise import copysign
from numtape.nn import functional as F

INF = np.inf
RNG = np.random.default_rng(3)


def both(function):
    """Eager and compiled."""
    return pytest.mark.parametrize("transform", [lambda f: f, nt.compile], ids=["eager", "tape"])(
        function
    )


# ---- softmax ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_huge_logits(transform, dtype):
    x = np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4], [3e38, 3e38, 0.0]], dtype)
    expected = [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]
    np.testing.assert_allclose(transform(F.softmax)(nt.Tensor(x)).numpy(), expected, rtol=1e-6)
    log = transform(F.log_softmax)(nt.Tensor(x[:2])).numpy()
    np.testing.assert_allclose(log, [[0, -1e4, -2e4], [-math.log(3)] * 3], rtol=1e-6)


@both
def test_softmax_of_masked_rows(transform):
    x = nt.Tensor(np.array([[-INF, 1.0, 1.0], [-INF, -INF, -INF]]), requires_grad=True)
    weights = nt.Tensor(RNG.normal(size=(2, 3)))
    out = transform(F.softmax)(x)
    assert out.tolist() == [[0, 0.5, 0.5], [0, 0, 0]]
    (out * weights).sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    assert not x.grad.numpy()[1].any()
    assert x.grad.numpy()[0, 0] == 0


@both
def test_log_softmax_of_masked_rows(transform):
    x = nt.Tensor(np.array([[-INF, 0.0, 0.0], [-INF, -INF, -INF]]), requires_grad=True)
    out = transform(F.log_softmax)(x)
    assert out.numpy()[0, 1] == -math.log(2)
    assert (out.numpy()[1] == -INF).all()
    nt.where(out > -INF, out, 0.0).sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    assert not x.grad.numpy()[1].any()


@both
def test_second_gradient_of_masked_softmax(transform):
    x = np.array([[-INF, 0.3, -0.4], [-INF, -INF, -INF]])
    function = lambda t: (nt.grad(lambda u: (F.softmax(u) ** 2).sum())(t) ** 2).sum()
    assert np.isfinite(transform(nt.grad(function))(x).numpy()).all()


# ---- attention ----------------------------------------------------------------------------


@both
def test_attention_with_everything_masked(transform):
    q, k, v = (nt.Tensor(RNG.normal(size=(2, 3, 4)), requires_grad=True) for _ in range(3))
    mask = np.ones((2, 3, 3), bool)
    mask[0, 1] = False
    mask[1] = False
    attend = lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m)
    out = transform(attend)(q, k, v, nt.Tensor(mask))
    assert not out.numpy()[0, 1].any()
    assert not out.numpy()[1].any()
    assert out.numpy()[0, 0].any()
    (out * out).sum().backward()
    for t in (q, k, v):
        assert np.isfinite(t.grad.numpy()).all()
    assert not q.grad.numpy()[0, 1].any()
    assert not v.grad.numpy()[1].any()


def test_masked_keys_do_not_matter():
    q, k, v = (RNG.normal(size=(1, 3, 4)) for _ in range(3))
    mask = np.array([True, True, False])
    out = F.scaled_dot_product_attention(*map(nt.Tensor, (q, k, v)), mask)
    k[:, 2], v[:, 2] = 1e6, -1e6
    again = F.scaled_dot_product_attention(*map(nt.Tensor, (q, k, v)), mask)
    assert np.array_equal(out.numpy(), again.numpy())


def test_causal_attention_sees_no_future():
    q, k, v = (RNG.normal(size=(1, 4, 4)) for _ in range(3))
    attend = lambda k, v: F.scaled_dot_product_attention(
        nt.Tensor(q), nt.Tensor(k), nt.Tensor(v), is_causal=True
    ).numpy()
    before = attend(k, v)
    k[:, 2:], v[:, 2:] = 5.0, 7.0
    after = attend(k, v)
    assert np.array_equal(before[:, :2], after[:, :2])
    assert not np.array_equal(before[:, 2:], after[:, 2:])


# ---- cross entropy ------------------------------------------------------------------------


@both
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_targets_do_not_count(transform, smoothing):
    logits, target = RNG.normal(size=(4, 5)), np.array([1, -100, 3, -100])
    loss = lambda x, t: F.cross_entropy(x, t, ignore_index=-100, label_smoothing=smoothing)
    x = nt.Tensor(logits, requires_grad=True)
    found = transform(loss)(x, nt.Tensor(target))
    kept = F.cross_entropy(nt.Tensor(logits[::2]), target[::2], label_smoothing=smoothing)
    np.testing.assert_allclose(found.item(), kept.item(), rtol=1e-13)
    found.backward()
    assert not x.grad.numpy()[1::2].any()
    value = lambda a: loss(nt.Tensor(a), nt.Tensor(target)).item()
    np.testing.assert_allclose(
        x.grad.numpy(), differences(value, [logits], 0), rtol=1e-6, atol=1e-9
    )


@both
def test_all_targets_ignored(transform):
    x = nt.Tensor(RNG.normal(size=(2, 3, 5)), requires_grad=True)
    loss = lambda x, t: F.cross_entropy(x, t, ignore_index=0)
    found = transform(loss)(x, nt.Tensor(np.zeros((2, 3), int)))
    assert found.item() == 0.0
    found.backward()
    assert not x.grad.numpy().any()
    assert np.isfinite(x.grad.numpy()).all()


@both
def test_cross_entropy_of_huge_and_masked_logits(transform):
    x = nt.Tensor(np.array([[1e4, -1e4, 0.0], [0.0, -INF, 0.0]]), requires_grad=True)
    found = transform(F.cross_entropy)(x, nt.Tensor(np.array([0, 2])))
    np.testing.assert_allclose(found.item(), math.log(2) / 2, rtol=1e-13)
    found.backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0, 0], [0.25, 0, -0.25]], atol=1e-15)


@pytest.mark.parametrize("target", [[0, 5], [-1, 0]])
def test_targets_out_of_range_are_errors(target):
    with pytest.raises(IndexError, match="out of range"):
        F.cross_entropy(nt.Tensor(np.zeros((2, 5))), np.array(target))


@both
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
def test_targets_of_every_integer_kind(transform, dtype):
    logits, target = RNG.normal(size=(3, 100, 2)).astype(np.float32), np.array([[0, 1, 1]] * 100).T
    loss = transform(lambda x, t: F.cross_entropy(x, t, ignore_index=-100))
    expected = loss(nt.Tensor(logits), target).item()
    assert loss(nt.Tensor(logits), target.astype(dtype)).item() == expected


# ---- functions of the normal distribution -------------------------------------------------

GRID = np.concatenate([np.linspace(-9, 9, 20_001), [0.0, -0.0, 1e-30, -1e-30, 40.0, -40.0]])


def exact(function, grid):
    return np.array([function(float(v)) for v in grid])


@both
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 3e-7), (np.float64, 1e-15)])
def test_erf(transform, dtype, tolerance):
    grid = GRID.astype(dtype)
    found = transform(nt.erf)(nt.Tensor(grid)).numpy().astype(np.float64)
    assert np.abs(found - exact(math.erf, grid)).max() <= tolerance


@both
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 3e-7), (np.float64, 1e-15)])
def test_gelu(transform, dtype, tolerance):
    grid = GRID.astype(dtype)
    found = transform(F.gelu)(nt.Tensor(grid)).numpy().astype(np.float64)
    expected = exact(lambda v: v * 0.5 * math.erfc(-v / math.sqrt(2)), grid)
    assert (np.abs(found - expected) / np.maximum(1, np.abs(expected))).max() <= tolerance


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 3e-6), (np.float64, 1e-13)])
def test_gradient_of_gelu(dtype, tolerance):
    grid = GRID.astype(dtype)
    found = nt.grad(lambda x: F.gelu(x).sum())(grid).numpy()
    density = lambda v: math.exp(-v * v / 2) / math.sqrt(2 * math.pi)
    expected = exact(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)) + v * density(v), grid)
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["sigmoid", "softplus", "silu", "mish", "gelu", "relu", "tanh"])
def test_activations_far_out(transform, name, dtype):
    """Neither the value nor the gradient overflows, and pytest turns warnings into errors."""
    activation = getattr(F, name)
    x = nt.Tensor(
        np.array([-1e4, -200.0, -90.0, 0.0, 90.0, 200.0, 1e4], dtype), requires_grad=True
    )
    out = transform(activation)(x)
    out.sum().backward()
    assert np.isfinite(out.numpy()).all()
    assert np.isfinite(x.grad.numpy()).all()
    limit = 0.0 if name in ("sigmoid", "tanh") else 1.0
    assert x.grad.numpy()[-1] == limit
    assert abs(x.grad.numpy()[0]) < 1e-30


# ---- integers -----------------------------------------------------------------------------

OF_INTEGERS = {
    "sign": (nt.sign, np.sign),
    "square": (nt.square, np.square),
    "abs": (nt.abs, np.abs),
    "negative": (lambda x: -x, lambda x: -x),
    "floor": (nt.floor, np.floor),
    "ceil": (nt.ceil, np.ceil),
    "round": (nt.round, np.round),
    "round to tens": (lambda x: nt.round(x, -1), lambda x: np.round(x, -1)),
    "maximum": (lambda x: nt.maximum(x, 3), lambda x: np.maximum(x, 3)),
    "clip": (lambda x: nt.clip(x, 2, 20), lambda x: np.clip(x, 2, 20)),
    "power 0": (lambda x: x**0, lambda x: x**0),
    "power 1": (lambda x: x**1, lambda x: x**1),
    "power 2": (lambda x: x**2, lambda x: x**2),
    "power 3": (lambda x: x**3, lambda x: x**3),
    "power of 2": (lambda x: nt.power(2, x), lambda x: 2**x),
    "remainder": (lambda x: x % 4, lambda x: x % 4),
    "quotient": (lambda x: x // 4, lambda x: x // 4),
    "power 2.0": (lambda x: x**2.0, lambda x: x**2.0),
    "power 1.0": (lambda x: x**1.0, lambda x: x**1.0),
    "power 0.5": (lambda x: x**0.5, lambda x: x**0.5),
    "root": (nt.sqrt, lambda x: np.sqrt(x.astype(np.float64))),
    "clip by floats": (lambda x: nt.clip(x, 2.5, 20), lambda x: np.clip(x, 2.5, 20)),
}


@both
@pytest.mark.parametrize("function, reference", OF_INTEGERS.values(), ids=OF_INTEGERS)
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8])
def test_integers_stay_integers_as_in_numpy(transform, function, reference, dtype):
    x = np.array([0, 1, 2, 5], dtype)
    found, expected = transform(function)(nt.Tensor(x)), reference(x)
    assert found.dtype == (expected.dtype if expected.dtype.kind != "f" else np.float32)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "function", [nt.sign, nt.square, lambda x: -x], ids=["sign", "square", "-"]
)
def test_booleans_have_no_sign_or_square(function):
    with pytest.raises(TypeError, match=r"numbers, not bool\[2\]"):
        function(nt.Tensor(np.array([True, False])))


# ---- layer norms --------------------------------------------------------------------------


@both
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_layer_norm_far_from_zero(transform, offset):
    x = (RNG.normal(size=(3, 16)) + offset).astype(np.float32)
    gain, bias = np.ones(16, np.float32), np.zeros(16, np.float32)
    found = transform(lambda x: F.layer_norm(x, 16, nt.Tensor(gain), nt.Tensor(bias)))
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        found(nt.Tensor(x)).numpy(), expected, atol=2e-3 if offset else 1e-6
    )


@both
def test_norms_of_constant_rows(transform):
    x = nt.Tensor(np.full((2, 8), 3.0), requires_grad=True)
    gain, bias = nt.Tensor(np.ones(8)), nt.Tensor(np.zeros(8))
    out = transform(lambda x: F.layer_norm(x, 8, gain, bias))(x)
    out.sum().backward()
    assert not out.numpy().any()
    assert np.isfinite(x.grad.numpy()).all()


def bits(array):
    return array.view(f"i{array.itemsize}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_where_with_zero_gives_zero_for_what_is_not_finite(dtype, zero):
    x = np.array([[INF, -INF, np.nan, -0.0, 0.0, 1e-310, -3.5]] * 2, dtype)
    chosen = np.array([[True], [False]])
    expected = np.where(chosen, x, dtype(zero))
    for run in (nt.where, nt.compile(lambda c, x, z: nt.where(c, x, zero))):
        found = run(nt.tensor(chosen), nt.tensor(x), zero).numpy()
        np.testing.assert_array_equal(bits(found), bits(expected))


def test_a_logit_that_is_not_a_number_spoils_the_loss():
    logits = np.array([[1.0, np.nan, 2.0]], np.float32)
    for run in (F.cross_entropy, nt.compile(F.cross_entropy)):
        assert np.isnan(run(nt.tensor(logits), nt.tensor(np.array([0]))).item())


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("index", [(0, 3, 2), (0, 4, 2), (0, -1, 2)])
def test_a_class_out_of_range_is_an_error_in_every_dtype(dtype, index):
    target = np.array(index).astype(dtype)
    logits = nt.tensor(np.zeros((3, 4), np.float32))
    for run in (F.cross_entropy, nt.compile(F.cross_entropy)):
        if index[1] == 3:
            assert run(logits, nt.tensor(target)).item() == pytest.approx(np.log(4.0))
        else:
            with pytest.raises(IndexError, match=rf"index {target[1]} at position \(1,\)"):
                run(logits, nt.tensor(target))


# ---- gradients at the edges ---------------------------------------------------------------

NAN = np.nan
BASES = np.array([-2.0, 0.0, 2.0])
EDGES = {
    "relu": (F.relu, [NAN, 0.0, -0.0], [1.0, 0.0, 0.0]),
    "maximum": (lambda x: nt.maximum(x, 0.0), [NAN, 0.0, -1.0], [1.0, 0.5, 0.0]),
    "minimum": (lambda x: nt.minimum(0.0, x), [NAN, 0.0, -1.0], [1.0, 0.5, 1.0]),
    "who loses": (lambda x: nt.sqrt(nt.maximum(x, 0.0)), [-1.0, 4.0], [0.0, 0.25]),
    "exponent": (lambda y: nt.power(BASES, y), [2.0, 2.0, 2.0], [NAN, 0.0, 4.0 * math.log(2.0)]),
    "copysign": (lambda x: copysign(x, np.array([0.0, -0.0, 1.0])), [2.0] * 3, [1, -1, 1]),
}


@both
@pytest.mark.parametrize("name", EDGES)
def test_gradients_at_the_edges(transform, name):
    function, x, expected = EDGES[name]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = transform(nt.grad(lambda x: function(x).sum()))(nt.tensor(x, np.float64))
    np.testing.assert_allclose(found.numpy(), expected)


@both
def test_the_slope_of_a_slope_of_a_power_at_exponent_0(transform):
    """x ** y has the slope y x ** (y - 1), and that for y, at 0, 1 / x."""
    slope = nt.grad(lambda x, y: (x**y).sum())
    x, y = nt.tensor([4.0, 0.5], np.float64), nt.tensor([0.0, 0.0], np.float64)
    found = transform(nt.grad(lambda x, y: slope(x, y).sum(), 1))(x, y)
    np.testing.assert_allclose(found.numpy(), [0.25, 2.0])
