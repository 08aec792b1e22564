"""Attention, masks, caches and positions against their definitions in plain NumPy."""

import math

import numpy as np
import pytest

import numtape as nt
from numtape.ir.types import DtypeError, ShapeError
from numtape.transformer import (
    KeyValueCache,
    LearnedPositions,
    MultiHeadAttention,
    SinusoidalPositions,
    padding_mask,
    sinusoidal_positions,
)
from numtape.transformer.cache import visible

B, T, S, C, H = 2, 5, 4, 8, 2


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(layer, x):
    return x @ layer.weight.numpy().T + layer.bias.numpy()


def reference(q, k, v, allowed):
    """Attention head by head, on (B, T, C)."""
    width = C // H
    parts = []
    for h in range(H):
        columns = slice(h * width, (h + 1) * width)
        scores = q[..., columns] @ k[..., columns].swapaxes(1, 2) / math.sqrt(width)
        parts.append(softmax(np.where(allowed, scores, -1e30)) @ v[..., columns])
    return np.concatenate(parts, -1)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_its_definition(rng, causal):
    attention = MultiHeadAttention(C, H).double()
    x = rng.normal(size=(B, T, C))
    allowed = np.tri(T, dtype=bool) if causal else np.ones((T, T), bool)
    q, k, v = np.split(linear(attention.qkv, x), 3, -1)
    expected = linear(attention.out, reference(q, k, v, allowed))
    np.testing.assert_allclose(attention(x, causal=causal).numpy(), expected, atol=1e-12)


def test_cross_attention_is_its_definition(rng):
    attention = MultiHeadAttention(C, H, cross=True).double()
    x, memory = rng.normal(size=(B, T, C)), rng.normal(size=(B, S, C))
    ids = np.array([[3, 4, 5, 6], [3, 4, 0, 0]])
    k, v = np.split(linear(attention.kv, memory), 2, -1)
    expected = reference(linear(attention.q, x), k, v, (ids != 0)[:, None])
    got = attention(x, memory, padding_mask(ids))
    np.testing.assert_allclose(got.numpy(), linear(attention.out, expected), atol=1e-12)
    known = attention.keys_values(nt.tensor(memory))
    assert np.array_equal(attention(x, known, padding_mask(ids)).numpy(), got.numpy())


def test_the_projections_are_fused():
    names = [name for name, _ in MultiHeadAttention(C, H).named_parameters()]
    assert names == ["qkv.weight", "qkv.bias", "out.weight", "out.bias"]
    assert MultiHeadAttention(C, H).qkv.weight.shape == (3 * C, C)
    assert MultiHeadAttention(C, H, cross=True).kv.weight.shape == (2 * C, C)
    names = [name for name, _ in MultiHeadAttention(C, H, bias=False).named_parameters()]
    assert names == ["qkv.weight", "out.weight"]


def test_padding_mask_marks_what_is_read():
    mask = padding_mask(np.array([[5, 6, 9], [5, 9, 9]]), pad=9)
    assert mask.shape == (2, 1, 1, 3)
    assert mask.numpy()[:, 0, 0].tolist() == [[True, True, False], [True, False, False]]


def test_masked_positions_have_no_influence(rng):
    attention = MultiHeadAttention(C, H)
    x = rng.normal(size=(1, T, C)).astype(np.float32)
    mask = padding_mask(np.array([[1, 1, 1, 0, 0]]))
    changed = x.copy()
    changed[:, 3:] += 100.0
    before, after = attention(x, mask=mask).numpy(), attention(changed, mask=mask).numpy()
    assert np.array_equal(before[:, :3], after[:, :3])


def test_a_row_with_everything_masked_is_finite(rng):
    attention = MultiHeadAttention(C, H, bias=False)
    x = nt.tensor(rng.normal(size=(1, T, C)).astype(np.float32), requires_grad=True)
    out = attention(x, mask=np.zeros((1, 1, 1, T), bool))
    assert np.array_equal(out.numpy(), np.zeros((1, T, C), np.float32))
    out.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_dropout_falls_on_the_weights_in_training_only(rng):
    attention = MultiHeadAttention(C, H, dropout=0.5)
    x = rng.normal(size=(B, T, C)).astype(np.float32)
    nt.random.seed(1)
    first, second = attention(x).numpy(), attention(x).numpy()
    assert not np.array_equal(first, second)
    nt.random.seed(1)
    assert np.array_equal(attention(x).numpy(), first)
    attention.eval()
    assert np.array_equal(attention(x).numpy(), attention(x).numpy())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_compiled_equals_eager(rng, dropout):
    attention = MultiHeadAttention(C, H, dropout)
    x = rng.normal(size=(B, T, C)).astype(np.float32)
    nt.random.seed(3)
    eager = attention(x, causal=True).numpy()
    nt.random.seed(3)
    compiled = nt.compile(lambda x: attention(x, causal=True))(x).numpy()
    np.testing.assert_allclose(compiled, eager, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: MultiHeadAttention(8, 3), ValueError, "heads=3 does not divide d_model=8"),
        (lambda: MultiHeadAttention(C, H)(np.zeros((T, C))), ShapeError, r"\(B, T, 8\)"),
        (lambda: MultiHeadAttention(C, H)(np.zeros((B, T, 6))), ShapeError, r"\(B, T, 8\)"),
        (
            lambda: MultiHeadAttention(C, H, cross=True)(np.zeros((B, T, C))),
            ShapeError,
            "as key_value",
        ),
        (
            lambda: MultiHeadAttention(C, H)(np.zeros((B, T, C)), np.zeros((B, S, C))),
            ShapeError,
            "cross=True",
        ),
        (
            lambda: MultiHeadAttention(C, H)(np.zeros((B, T, C)), mask=np.ones((1, 1, 1, T))),
            DtypeError,
            "boolean",
        ),
        (
            lambda: MultiHeadAttention(C, H)(np.zeros((B, T, C)), mask=np.ones((B, T, T), bool)),
            ShapeError,
            r"\(B, 1, T, S\)",
        ),
        (lambda: padding_mask(np.zeros(3, int)), ShapeError, r"\(B, T\)"),
    ],
)
def test_errors_say_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- caches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, T])
def test_attention_through_a_cache_is_causal_attention(rng, chunk):
    attention = MultiHeadAttention(C, H)
    x = rng.normal(size=(B, T, C)).astype(np.float32)
    cache = KeyValueCache.empty(B, H, T, C // H, np.float32)
    got = []
    with nt.no_grad():
        for start in range(0, T, chunk):
            position = np.array([start])
            mask = visible(position, chunk, T)
            part = x[:, start : start + chunk]
            got.append(attention(part, mask=mask, cache=cache.at(position)).numpy())
    expected = attention(x, causal=True).numpy()
    np.testing.assert_allclose(np.concatenate(got, 1), expected, atol=1e-6)


def test_a_cache_follows_the_order_of_its_rows():
    cache = KeyValueCache.empty(2, 1, 3, 1, np.float32)
    first = np.array([1.0, 2.0], np.float32).reshape(2, 1, 1, 1)
    cache.at(np.array([0])).extend(nt.tensor(first), nt.tensor(first))
    cache.at(np.array([1]), np.array([1, 1])).extend(nt.tensor(first * 10), nt.tensor(first))
    assert cache.keys.numpy()[:, 0, :, 0].tolist() == [[2, 10, 0], [2, 20, 0]]
    with pytest.raises(ShapeError, match="takes 1 or all"):
        two = nt.zeros((2, 1, 2, 1))
        cache.at(np.array([0])).extend(two, two)


# ---- positions ---------------------------------------------------------------------------------


def test_sinusoidal_positions_are_the_published_ones():
    table = sinusoidal_positions(7, 6, np.float64)
    for position in range(7):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert table[position, 2 * i] == pytest.approx(math.sin(angle), abs=1e-15)
            assert table[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-15)


@pytest.mark.parametrize("kind", [SinusoidalPositions, LearnedPositions])
def test_positions_from_a_start_are_rows_of_the_table(kind):
    positions = kind(10, 4)
    assert np.array_equal(positions(2, np.array([5])).numpy(), positions(7).numpy()[5:])
    with pytest.raises(ShapeError, match="11 positions is longer than the 10"):
        positions(11)


def test_only_learned_positions_are_parameters():
    assert not list(SinusoidalPositions(10, 4).parameters())
    assert not SinusoidalPositions(10, 4).state_dict()
    assert [n for n, _ in LearnedPositions(10, 4).named_parameters()] == ["weight"]
