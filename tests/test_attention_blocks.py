"""Attention a block of queries at a time: the same results, and memory for what is seen."""

import numpy as np
import pytest

import numtape as nt
from numtape.ir.ops import attention
from numtape.nn.functional import scaled_dot_product_attention


def drawn(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape)


def reference(q, k, v, mask, causal):
    """By definition, in plain NumPy; rows with everything masked are 0."""
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    allowed = np.ones(scores.shape, bool) if mask is None else np.broadcast_to(mask, scores.shape)
    if causal:
        allowed = allowed & np.tri(*scores.shape[-2:], dtype=bool)
    e = np.where(allowed, np.exp(np.where(allowed, scores, 0.0)), 0.0)
    total = e.sum(-1, keepdims=True)
    return e / np.where(total > 0, total, 1.0) @ v


@pytest.fixture(params=["kept", "computed anew"])
def blocks(request, monkeypatch):
    """Blocks of four queries, whose scores are kept for the reverse part or not."""
    monkeypatch.setattr(attention, "SMALLEST", 4)
    monkeypatch.setattr(attention, "LARGEST", 4)
    if request.param == "computed anew":
        monkeypatch.setattr(attention, "LONG", 1)


def test_number_of_blocks():
    """Eight at most, of 32 queries or multiples; of 128 where memory is to grow linearly."""
    assert [len(attention._blocks(n, n, True)) for n in (1, 32, 33, 64, 256, 257, 512)] == [
        *(1, 1, 2, 2, 8, 5, 8)
    ]
    assert {b.stop - b.start for b in attention._blocks(4096, 4096, False)} == {128}
    assert attention._blocks(512, 512, False) == [(0, 512, 512)]


SHAPES = {
    "square": ((2, 3, 10, 4), (2, 3, 10, 4), (2, 3, 10, 5)),
    "one block": ((3, 2, 4), (3, 2, 4), (3, 2, 4)),
    "more keys": ((2, 9, 4), (2, 13, 4), (2, 13, 4)),
    "fewer keys": ((2, 13, 4), (2, 6, 4), (2, 6, 4)),
    "keys for all heads": ((2, 3, 9, 4), (2, 1, 9, 4), (9, 4)),
    "no stack": ((9, 4), (9, 4), (9, 4)),
}
each_shape = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
each_kind = pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
MASKS = {
    "none": lambda t, s: None,
    "keys": lambda t, s: np.arange(s) % 3 != 1,
    "one row": lambda t, s: (np.arange(s) % 3 != 1)[None],
    "pairs": lambda t, s: np.arange(t)[:, None] * 5 % 7 > np.arange(s) % 4,
    "queries": lambda t, s: (np.arange(t) % 2 == 0)[:, None],
}
each_mask = pytest.mark.parametrize("masked", MASKS.values(), ids=MASKS)


@each_shape
@each_kind
@each_mask
def test_values(shapes, causal, masked, blocks):
    q, k, v = (drawn(*shape) for shape in shapes)
    mask = masked(q.shape[-2], k.shape[-2])
    found = scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    np.testing.assert_allclose(found.numpy(), reference(q, k, v, mask, causal), atol=1e-12)


@each_shape
@each_kind
@each_mask
def test_gradients(shapes, causal, masked, blocks):
    arrays = [drawn(*s) for s in shapes]
    mask = masked(arrays[0].shape[-2], arrays[1].shape[-2])
    weight = drawn(*reference(*arrays, mask, causal).shape, seed=1)

    def loss(q, k, v):
        return (scaled_dot_product_attention(q, k, v, mask, is_causal=causal) * weight).sum()

    slopes = nt.grad(loss, argnums=(0, 1, 2))(*arrays)
    for position, slope in enumerate(slopes):
        direction = drawn(*arrays[position].shape, seed=2)
        step = [a.copy() for a in arrays]
        step[position] = arrays[position] + 1e-5 * direction
        back = [a.copy() for a in arrays]
        back[position] = arrays[position] - 1e-5 * direction
        ends = [(reference(*xs, mask, causal) * weight).sum() for xs in (step, back)]
        found = (slope.numpy() * direction).sum()
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-8)


@each_kind
def test_second_gradients(causal, blocks):
    q, k, v = (drawn(2, 6, 3, seed=s) for s in range(3))

    def slope(q):
        def loss(q):
            return (scaled_dot_product_attention(q, k, v, is_causal=causal) ** 2).sum()

        return (nt.grad(loss)(q) ** 2).sum()

    direction = drawn(2, 6, 3, seed=3)
    ends = [slope(nt.Tensor(q + h * direction)).item() for h in (1e-5, -1e-5)]
    found = (nt.grad(slope)(q).numpy() * direction).sum()
    assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


@each_kind
def test_exact(causal, blocks):
    arrays = [drawn(2, 3, 10, 4, seed=s).astype(np.float32) for s in range(3)]

    def slopes(q, k, v):
        def loss(q, k, v):
            return (scaled_dot_product_attention(q, k, v, is_causal=causal) ** 2).sum()

        return nt.grad(loss, argnums=(0, 1, 2))(q, k, v)

    compiled = nt.compile(slopes, exact=True)(*arrays)
    eager = slopes(*map(nt.Tensor, arrays))
    assert [c.numpy().tobytes() for c in compiled] == [e.numpy().tobytes() for e in eager]


def arena(length):
    x = np.zeros((1, 2, length, 16), np.float32)

    def slopes(q, k, v):
        def loss(q, k, v):
            return (scaled_dot_product_attention(q, k, v, is_causal=True) ** 2).sum()

        return nt.grad(loss, argnums=(0, 1, 2))(q, k, v)

    return nt.compile(slopes).tape(x, x + 1.0, x + 2.0).memory.arena


@pytest.mark.parametrize("causal", [False, True])
def test_no_queries(causal):
    """Nothing asks: nothing comes back, and no key has a gradient."""
    q = nt.Tensor(np.zeros((2, 0, 4)), requires_grad=True)
    k, v = (nt.Tensor(np.ones((2, 3, 4)), requires_grad=True) for _ in range(2))
    out = scaled_dot_product_attention(q, k, v, is_causal=causal)
    assert out.shape == (2, 0, 4)
    out.sum().backward()
    assert not k.grad.numpy().any() and not v.grad.numpy().any()


def test_memory_grows_with_the_length_of_the_context():
    short, long = map(arena, (2048, 4096))
    assert long < 2.2 * short
    assert long < 2 * 4096 * 4096 * 4 / 6  # a sixth of the scores alone


def test_what_a_causal_mask_hides_is_not_computed():
    x = np.zeros((2, 256, 16), np.float32)

    def products(causal):
        compiled = nt.compile(lambda q: scaled_dot_product_attention(q, q, q, is_causal=causal))
        return compiled.tape(x).cost.products

    assert products(True) == products(False) * 36 / 64


def test_queries_keys_and_values_meet_in_one_dtype():
    q, k, v = (nt.Tensor(np.ones((2, 3, 4), dtype)) for dtype in ("f4", "f8", "f4"))
    for run in (scaled_dot_product_attention, nt.compile(scaled_dot_product_attention)):
        assert run(q, k, v).dtype == np.float64
