"""Every operation that PyTorch has too: its value and its first and second gradient."""

import math

import numpy as np
import pytest
from helpers import is_float
from torch_peer import as_array, close, each_dtype

import numtape as nt
from fuzz.peers import NO_PEER, PEERS, as_torch, pulled
from numtape.ir.op import REGISTRY

OPERATIONS = set(REGISTRY)  # before tests add their own
CASES = [
    pytest.param(name, example, id=f"{name}{i}")
    for name in PEERS
    for i, example in enumerate(REGISTRY[name].examples)
]


def test_every_operation_has_a_peer_or_a_reason():
    assert not PEERS.keys() & NO_PEER.keys()
    unknown = OPERATIONS - PEERS.keys() - NO_PEER.keys()
    assert not unknown, f"add {sorted(unknown)} to PEERS, or to NO_PEER with the reason"


@each_dtype
@pytest.mark.parametrize("name, example", CASES)
def test_value_and_two_gradients(name, example, dtype):
    drawn = example.inputs(np.random.default_rng(3))
    arrays = [a.astype(dtype) if is_float(a) else a for a in drawn]
    op, peer = REGISTRY[name], PEERS[name]
    value = op(*map(nt.Tensor, arrays), **example.attrs)
    close(value, peer(*map(as_torch, arrays), **example.attrs), "value of an op", dtype)
    places = [i for i, a in enumerate(arrays) if is_float(a)]
    if not places or not is_float(value.numpy()):
        return
    rng = np.random.default_rng(4)
    weights = rng.uniform(0.5, 1.5, value.shape).astype(value.dtype)
    slopes = [rng.uniform(0.5, 1.5, arrays[i].shape).astype(dtype) for i in places]
    mine = _gradients_of_numtape(op, example.attrs, arrays, places, weights, slopes)
    other = _gradients_of_torch(peer, example.attrs, arrays, weights, slopes)
    for kind in mine:
        for found, expected in zip(mine[kind], other[kind], strict=True):
            close(found, expected, kind, dtype)


def _gradients_of_numtape(op, attrs, arrays, places, weights, slopes):
    loss = lambda *xs: (op(*xs, **attrs) * nt.Tensor(weights)).sum()
    first = nt.grad(loss, places)

    def slope(*xs):
        return sum((g * nt.Tensor(s)).sum() for g, s in zip(first(*xs), slopes, strict=True))

    xs = [nt.Tensor(a) for a in arrays]
    second = nt.grad(slope, places)(*xs)
    return {"gradient of an op": first(*xs), "second gradient of an op": second}


def _gradients_of_torch(peer, attrs, arrays, weights, slopes):
    loss = lambda *xs: (peer(*xs, **attrs) * as_torch(weights)).sum()

    def slope(*xs):
        pairs = zip(pulled(loss, xs), slopes, strict=True)
        return sum((g * as_torch(s)).sum() for g, s in pairs)

    xs = [as_torch(a, wanted=True) for a in arrays]
    return {"gradient of an op": pulled(loss, xs), "second gradient of an op": pulled(slope, xs)}


# ---- where it is easy to be wrong ---------------------------------------------------------

INF, NAN = math.inf, math.nan
ENTRIES = [0.0, -0.0, 1e-30, 0.5, -0.5, 12.0, -12.0, 100.0, -100.0, 1e3, -1e3, INF, -INF, NAN]
PAIRS = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, INF, -INF, NAN]
_infinite_below = lambda x: x == -INF
# Where numtape's answer is another than PyTorch's, and why that is meant.
CONVENTIONS = {
    "abs": (np.isnan, "the slope at NaN is NaN, not 0"),
    "copysign": (lambda x, y: np.isinf(x) | np.isnan(y), "the slope at infinity is not NaN"),
    "gelu_tanh": (_infinite_below, "-inf, where PyTorch has NaN; the limit is 0"),
    "mish": (_infinite_below, "the slope is -inf, where PyTorch has NaN; the limit is 0"),
    "power": (
        lambda x, y: ((y == 0) & np.isnan(x)) | ((x == 0) & (y < 0)),
        "NaN for nan ** 0, where PyTorch has 0, and for 0 ** y with y < 0, where it has infinity",
    ),
    "sign": (np.isnan, "as in NumPy the sign of NaN is NaN, not 0"),
    "silu": (_infinite_below, "-inf, where PyTorch has NaN; the limit is 0"),
}
ENTRYWISE = [
    name
    for name in PEERS
    for example in REGISTRY[name].examples[:1]
    if not example.attrs and all(map(is_float, example.inputs(np.random.default_rng(0))))
    if len(example.inputs(np.random.default_rng(0))) == 1 or REGISTRY[name].entrywise
]


def _special(name, dtype):
    if len(REGISTRY[name].examples[0].inputs(np.random.default_rng(0))) == 1:
        return [np.array(ENTRIES, dtype)]
    return [side.ravel().astype(dtype) for side in np.meshgrid(PAIRS, PAIRS)]


@each_dtype
@pytest.mark.parametrize("name", ENTRYWISE)
def test_zeros_ties_infinities_and_nan(name, dtype):
    op, peer, arrays = REGISTRY[name], PEERS[name], _special(name, dtype)
    meant, _ = CONVENTIONS.get(name, (lambda x, *_: np.zeros(x.shape, bool), ""))
    usual = ~meant(*arrays)
    with np.errstate(all="ignore"):
        mine = [op(*map(nt.Tensor, arrays))]
        if is_float(mine[0].numpy()):
            total = lambda *xs: op(*xs).sum()
            mine += nt.grad(total, range(len(arrays)))(*map(nt.Tensor, arrays))
    xs = [as_torch(a, wanted=True) for a in arrays]
    other = [peer(*xs), *(pulled(lambda *xs: peer(*xs).sum(), xs) if len(mine) > 1 else ())]
    kinds = ["value of an op", *(["gradient of an op"] * (len(mine) - 1))]
    agree = True
    for kind, *pair in zip(kinds, mine, other, strict=True):
        found, expected = map(as_array, pair)
        close(found[usual], expected[usual], kind, dtype, str(arrays))
        agree &= np.array_equal(found[~usual], expected[~usual], equal_nan=True)
    assert agree == (name not in CONVENTIONS), "a convention says where the two differ"
