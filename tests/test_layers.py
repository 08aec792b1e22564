"""Layers against plain NumPy, gradients against differences."""

import math

import numpy as np
import pytest
from helpers import check_gradient, softmax

import numtape as nt
from numtape import nn
from numtape.ir.types import ShapeError
from numtape.nn import functional as F

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))


def normal_cdf(x):
    return np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(x)


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softplus(x):
    return np.log1p(np.exp(x))


ACTIVATIONS = {
    "ReLU": (nn.ReLU(), lambda x: np.maximum(x, 0)),
    "SiLU": (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
    "GELU": (nn.GELU(), lambda x: x * normal_cdf(x)),
    "GELU tanh": (nn.GELU(approximate="tanh"), tanh_gelu),
    "Mish": (nn.Mish(), lambda x: x * np.tanh(softplus(x))),
    "Sigmoid": (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    "Tanh": (nn.Tanh(), np.tanh),
    "Softmax": (nn.Softmax(), softmax),
    "Softmax axis 0": (nn.Softmax(0), lambda x: softmax(x.T).T),
    "softplus": (F.softplus, softplus),
    "log_softmax": (F.log_softmax, lambda x: np.log(softmax(x))),
    "Identity": (nn.Identity(), lambda x: x),
}


# ---- activations --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    layer, reference = ACTIVATIONS[name]
    np.testing.assert_allclose(layer(nt.tensor(X)).numpy(), reference(X), rtol=1e-12, atol=1e-14)
    single = layer(nt.tensor(X.astype(np.float32)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.numpy(), reference(X), rtol=1e-5, atol=1e-6)
    check_gradient(layer, X)


def test_functions_take_arrays():
    np.testing.assert_allclose(F.softmax(X).numpy(), softmax(X))
    np.testing.assert_allclose(F.tanh(X).numpy(), np.tanh(X))


@pytest.mark.parametrize("make", [nn.GELU, lambda approximate: F.gelu(X, approximate)])
def test_gelu_names_its_choices(make):
    with pytest.raises(ValueError, match="'none' or 'tanh', not 'erf'"):
        make(approximate="erf")


# ---- layers with parameters ---------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias):
    layer = nn.Linear(4, 5, bias=bias).double()
    weight = layer.weight.numpy()
    added = layer.bias.numpy() if bias else 0
    x = RNG.normal(size=(2, 3, 4))
    np.testing.assert_allclose(layer(nt.tensor(x)).numpy(), x @ weight.T + added, rtol=1e-12)
    assert weight.shape == (5, 4) and (layer.bias is None) == (not bias)
    check_gradient(F.linear, x, weight, np.ones(5))


def test_layers_take_lists():
    layer = nn.Linear(2, 3)
    rows = [[1.0, 2.0], [3.0, 4.0]]
    assert layer(rows).tolist() == layer(nt.tensor(rows)).tolist()


def test_linear_names_sizes_that_differ():
    with pytest.raises(ShapeError, match="inner sizes differ"):
        nn.Linear(4, 5)(np.ones((2, 3), np.float32))


def test_embedding():
    layer = nn.Embedding(6, 3)
    index = np.array([[0, 5], [5, 2]])
    np.testing.assert_array_equal(layer(index).numpy(), layer.weight.numpy()[index])
    layer(index).sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [1, 0, 1, 0, 0, 2])


def test_one_hot():
    found = F.one_hot(np.array([[2, 0]]), 3)
    np.testing.assert_array_equal(found.numpy(), [[[0, 0, 1], [1, 0, 0]]])
    assert found.dtype == np.float32


@pytest.mark.parametrize("padding", [2, -4])
def test_the_padding_row_starts_at_zero_and_is_not_learnt(padding):
    layer = nn.Embedding(6, 3, padding_idx=padding)
    np.testing.assert_array_equal(layer.weight.numpy()[2], 0)
    layer.weight.numpy()[2] = 7.0
    out = layer(np.array([2, 1, 2]))
    np.testing.assert_array_equal(out.numpy()[0], 7)
    out.sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [0, 1, 0, 0, 0, 0])


def test_embedding_names_an_index_out_of_range():
    with pytest.raises(IndexError, match=r"index 6 at position \(1,\)"):
        nn.Embedding(6, 3)(np.array([0, 6]))


def test_layer_norm():
    gain, bias = RNG.normal(size=4), RNG.normal(size=4)
    layer = nn.LayerNorm(4, eps=1e-3).double()
    layer.load_state_dict({"weight": gain, "bias": bias})
    z = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(layer(nt.tensor(X)).numpy(), z * gain + bias, rtol=1e-12)
    np.testing.assert_allclose(F.layer_norm(X, 4, eps=1e-3).numpy(), z, rtol=1e-12)
    assert nn.LayerNorm(4, bias=False).bias is None
    check_gradient(lambda x, g, b: F.layer_norm(x, 4, g, b), X, gain, bias)


def test_rms_norm():
    gain = RNG.normal(size=4)
    layer = nn.RMSNorm(4, eps=1e-3).double()
    layer.load_state_dict({"weight": gain})
    z = X / np.sqrt((X * X).mean(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(layer(nt.tensor(X)).numpy(), z * gain, rtol=1e-12)
    np.testing.assert_allclose(F.rms_norm(X, [4], eps=1e-3).numpy(), z, rtol=1e-12)
    check_gradient(lambda x, g: F.rms_norm(x, 4, g), X, gain)


@pytest.mark.parametrize("layer", [nn.LayerNorm(5), nn.RMSNorm(5)])
def test_norms_name_a_wrong_last_axis(layer):
    with pytest.raises(ShapeError, match=r"last axis of f64\[3,4\].*\(5,\)"):
        layer(nt.tensor(X))


# ---- dropout ------------------------------------------------------------------------------


def test_dropout_keeps_the_expectation_and_scales_what_it_keeps():
    nt.random.seed(3)
    out = nn.Dropout(0.25)(nt.ones((100, 100))).numpy()
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    assert out.dtype == np.float32


def test_dropout_is_the_identity_in_eval_mode_and_at_zero():
    x = nt.tensor(X)
    assert nn.Dropout(0.5).eval()(x) is x
    assert nn.Dropout(0.0)(x) is x
    assert F.dropout(x, 0.5, training=False) is x


def test_dropout_of_everything_is_zero():
    np.testing.assert_array_equal(nn.Dropout(1.0)(nt.tensor(X)).numpy(), 0)


def test_dropout_drops_the_same_in_both_dtypes_and_anew_each_time():
    nt.random.seed(5)
    single = F.dropout(nt.ones((8, 8)))
    again = F.dropout(nt.ones((8, 8)))
    nt.random.seed(5)
    double = F.dropout(nt.ones((8, 8), np.float64))
    np.testing.assert_array_equal(single.numpy(), double.numpy())
    assert (single.numpy() != again.numpy()).any() and double.dtype == np.float64


def test_the_gradient_of_dropout_is_dropped_alike():
    x = nt.tensor(X, requires_grad=True)
    out = F.dropout(x, 0.5)
    out.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), out.numpy() / X)


@pytest.mark.parametrize("make", [nn.Dropout, lambda p: F.dropout(X, p)])
def test_dropout_refuses_what_is_no_probability(make):
    with pytest.raises(ValueError, match=r"lies in \[0, 1\], got 1.5"):
        make(1.5)


# ---- attention ----------------------------------------------------------------------------

Q, K, V = (RNG.normal(size=(2, 3, 4)) for _ in range(3))
MASK = np.array([[[True, True, False]], [[True, False, True]]])


@pytest.mark.parametrize(("mask", "causal"), [(None, False), (MASK, False), (MASK, True)])
def test_attention(mask, causal):
    allowed = np.ones((2, 3, 3), bool) if mask is None else np.broadcast_to(mask, (2, 3, 3))
    if causal:
        allowed = allowed & np.tri(3, dtype=bool)
    scores = np.where(allowed, Q @ K.swapaxes(-1, -2) / 2.0, -np.inf)
    out = F.scaled_dot_product_attention(Q, K, V, mask, is_causal=causal)
    np.testing.assert_allclose(out.numpy(), softmax(scores) @ V, rtol=1e-12)
    check_gradient(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal), Q, K, V
    )


def test_attention_drops_weights():
    nt.random.seed(2)
    out = F.scaled_dot_product_attention(Q, K, V, dropout_p=0.5)
    nt.random.seed(2)
    kept = F.dropout(nt.ones((2, 3, 3), np.float64)).numpy()
    weights = softmax(Q @ K.swapaxes(-1, -2) / 2.0) * kept
    np.testing.assert_allclose(out.numpy(), weights @ V, rtol=1e-12)
