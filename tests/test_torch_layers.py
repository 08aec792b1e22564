"""Layers and losses with PyTorch's weights: forward and gradients, eager and compiled."""

import numpy as np
import pytest
from torch_peer import close, each_dtype, each_mode, run, torch

import numtape as nt
from fuzz.peers import as_torch, torch_dtype
from numtape import nn
from numtape.nn import functional
from numtape.transformer import MultiHeadAttention

F = torch.nn.functional
WIDTH = 6
LAYERS = {
    "Linear": (nn.Linear(WIDTH, 4), torch.nn.Linear(WIDTH, 4)),
    "Linear without bias": (
        nn.Linear(WIDTH, 4, bias=False),
        torch.nn.Linear(WIDTH, 4, bias=False),
    ),
    "LayerNorm": (nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)),
    "LayerNorm without bias": (
        nn.LayerNorm(WIDTH, bias=False),
        torch.nn.LayerNorm(WIDTH, bias=False),
    ),
    "RMSNorm": (nn.RMSNorm(WIDTH), torch.nn.RMSNorm(WIDTH, eps=1e-6)),
    "Dropout in eval mode": (nn.Dropout(0.5).eval(), torch.nn.Dropout(0.5).eval()),
    "Identity": (nn.Identity(), torch.nn.Identity()),
    "ReLU": (nn.ReLU(), torch.nn.ReLU()),
    "SiLU": (nn.SiLU(), torch.nn.SiLU()),
    "GELU": (nn.GELU(), torch.nn.GELU()),
    "GELU by tanh": (nn.GELU("tanh"), torch.nn.GELU("tanh")),
    "Mish": (nn.Mish(), torch.nn.Mish()),
    "Sigmoid": (nn.Sigmoid(), torch.nn.Sigmoid()),
    "Tanh": (nn.Tanh(), torch.nn.Tanh()),
    "Softmax": (nn.Softmax(), torch.nn.Softmax(-1)),
    "Softmax along another axis": (nn.Softmax(1), torch.nn.Softmax(1)),
    "Sequential": (
        nn.Sequential(nn.Linear(WIDTH, 5), nn.GELU(), nn.Linear(5, 3)),
        torch.nn.Sequential(torch.nn.Linear(WIDTH, 5), torch.nn.GELU(), torch.nn.Linear(5, 3)),
    ),
}
# Containers and bases, and what has tests of its own below.
ELSEWHERE = {"Module", "ModuleList", "Parameter", "Embedding", "Dropout"}


def test_every_layer_has_a_peer():
    classes = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    tested = {type(mine).__name__ for mine, _ in LAYERS.values()}
    assert classes - tested - ELSEWHERE == {"CrossEntropyLoss", "MSELoss"}


def drawn(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def shared(mine, theirs, dtype):
    """The two modules in one dtype with the same random weights."""
    mine, theirs = mine.to(dtype), theirs.to(torch_dtype(dtype))
    state = {
        name: drawn(*p.shape, dtype=dtype, seed=i)
        for i, (name, p) in enumerate(mine.state_dict().items())
    }
    mine.load_state_dict(state)
    theirs.load_state_dict({name: torch.from_numpy(p) for name, p in state.items()})
    return mine, theirs


def check(mode, dtype, mine, theirs, inputs, parameters=()):
    """The results of two functions, and the gradients of their inputs and of pairs of leaves."""
    xs = [nt.Tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    ys = [as_torch(x, wanted=True) for x in inputs]
    for p, q in parameters:
        p.grad = q.grad = None
    found, expected = run(mine, mode)(*xs), theirs(*ys)
    close(found, expected, "layer or loss", dtype)
    weights = drawn(*found.shape, dtype=dtype, seed=9)
    found.backward(weights)
    expected.backward(torch.from_numpy(np.array(weights)))
    for x, y in (*zip(xs, ys, strict=True), *parameters):
        if x.requires_grad:
            close(x.grad, y.grad, "gradient of a layer or loss", dtype)


def pairs(mine, theirs):
    other = dict(theirs.named_parameters())
    return [(p, other[name]) for name, p in mine.named_parameters()]


@each_mode
@each_dtype
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, dtype, mode):
    mine, theirs = shared(*LAYERS[name], dtype)
    check(mode, dtype, mine, theirs, [drawn(2, 5, WIDTH, dtype=dtype)], pairs(mine, theirs))


@each_mode
@each_dtype
@pytest.mark.parametrize("padding", [None, 2, -1])
def test_embedding(padding, dtype, mode):
    mine, theirs = shared(
        nn.Embedding(7, WIDTH, padding), torch.nn.Embedding(7, WIDTH, padding), dtype
    )
    ids = np.array([[0, 2, 2], [6, 5, 0]])
    check(mode, dtype, mine, theirs, [ids], pairs(mine, theirs))


@each_mode
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_as_many_and_keeps_the_mean(p, mode):
    count = 200_000
    x = np.ones(count, np.float32)
    mine = as_drawn(run(nn.Dropout(p), mode)(nt.Tensor(x)).numpy())
    theirs = as_drawn(torch.nn.Dropout(p)(torch.from_numpy(x)).numpy())
    five_sigma = 5.0 * np.sqrt(p * (1.0 - p) / count)
    for kept, values in (mine, theirs):
        assert abs(kept - (1.0 - p)) < five_sigma
        np.testing.assert_allclose(values, [0.0, 1.0 / (1.0 - p)], rtol=1e-6)


def as_drawn(x):
    """The share of entries kept, and the values there are."""
    return (x != 0).mean(), np.unique(x)


# ---- attention ----------------------------------------------------------------------------

PADDING = np.array([[True, True, True, False, False], [True] * 5])
MASKS = {
    "none": (None, False),
    "causal": (None, True),
    "padding": (PADDING[:, None, None, :], False),
    "one for all": (np.tri(5, dtype=bool), False),
    "a row that sees nothing": (np.arange(5)[:, None] > np.zeros(5), False),
}


@each_mode
@each_dtype
@pytest.mark.parametrize("name", MASKS)
def test_attention_with_masks(name, dtype, mode):
    mask, causal = MASKS[name]
    held = None if mask is None else torch.from_numpy(mask)

    def mine(q, k, v):
        return functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)

    def theirs(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, held, is_causal=causal)

    inputs = [drawn(2, 3, 5, 4, dtype=dtype, seed=i) for i in range(3)]
    check(mode, dtype, mine, theirs, inputs)


@each_mode
@each_dtype
def test_causal_attention_of_several_blocks(dtype, mode):
    mine = lambda *xs: functional.scaled_dot_product_attention(*xs, is_causal=True)
    theirs = lambda *xs: F.scaled_dot_product_attention(*xs, is_causal=True)
    inputs = [drawn(2, 70, 4, dtype=dtype, seed=i) for i in range(3)]
    check(mode, dtype, mine, theirs, inputs)


def heads(cross, dtype):
    """Multi-head attention of both, with the same weights, and the parameters that are alike."""
    mine = MultiHeadAttention(WIDTH, 2, cross=cross).to(dtype)
    theirs = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True, dtype=torch_dtype(dtype))
    sources = (mine.q, mine.kv) if cross else (mine.qkv,)
    with torch.no_grad():
        for kind in ("weight", "bias"):
            held = [getattr(source, kind).numpy() for source in sources]
            getattr(theirs, f"in_proj_{kind}").copy_(as_torch(np.concatenate(held)))
            getattr(theirs.out_proj, kind).copy_(as_torch(getattr(mine.out, kind).numpy()))
    leaves = [(mine.out.weight, theirs.out_proj.weight), (mine.out.bias, theirs.out_proj.bias)]
    if not cross:
        leaves += [(mine.qkv.weight, theirs.in_proj_weight), (mine.qkv.bias, theirs.in_proj_bias)]
    return mine, theirs, leaves


@each_mode
@each_dtype
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_multi_head_attention(cross, causal, dtype, mode):
    mine, theirs, leaves = heads(cross, dtype)
    unseen = torch.from_numpy(~PADDING)
    later = torch.ones(5, 5).triu(1).bool() if causal else None

    def own(x, memory=None):
        return mine(x, memory, PADDING[:, None, None, :], causal)

    def other(x, memory=None):
        source = x if memory is None else memory
        return theirs(x, source, source, key_padding_mask=unseen, attn_mask=later)[0]

    inputs = [drawn(2, 5, WIDTH, dtype=dtype, seed=i) for i in range(1 + cross)]
    check(mode, dtype, own, other, inputs, leaves)


# ---- losses -------------------------------------------------------------------------------

LOGITS, TARGET = (2, 3, 5), np.array([[0, 4, 1], [1, 2, 0]])


@each_mode
@each_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [None, 0, 1])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing, ignored, reduction, dtype, mode):
    settings = {"label_smoothing": smoothing, "reduction": reduction}
    mine = nn.CrossEntropyLoss(ignore_index=ignored, **settings)
    theirs = torch.nn.CrossEntropyLoss(
        ignore_index=-100 if ignored is None else ignored, **settings
    )
    target = as_torch(TARGET)
    check(
        mode,
        dtype,
        lambda x: mine(x, TARGET),
        lambda x: theirs(x.movedim(-1, 1), target),  # PyTorch has the classes second
        [3.0 * drawn(*LOGITS, dtype=dtype)],
    )


@each_mode
@each_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse(reduction, dtype, mode):
    mine, theirs = nn.MSELoss(reduction=reduction), torch.nn.MSELoss(reduction=reduction)
    inputs = [drawn(4, 3, dtype=dtype, seed=i) for i in range(2)]
    check(mode, dtype, mine, theirs, inputs)


# ---- where numtape means to differ ----------------------------------------------------------


def test_no_target_that_counts_is_a_loss_of_zero():
    x, target = drawn(3, 4), np.zeros(3, int)
    settings = {"ignore_index": 0}
    assert functional.cross_entropy(nt.Tensor(x), target, **settings).item() == 0.0
    assert F.cross_entropy(as_torch(x), as_torch(target), **settings).isnan()


def test_softmax_of_what_is_masked_throughout_is_zero():
    x = np.full((2, 3), -np.inf)
    assert not functional.softmax(nt.Tensor(x)).numpy().any()
    assert torch.softmax(as_torch(x), -1).isnan().all()
