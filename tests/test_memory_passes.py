"""Passes that save memory, one by one: copies, scheduling, renewals."""

import numpy as np
import pytest
from test_passes import NAMES, PASSES, H, V, X, shown, traced

import numtape as nt
from numtape.ir.verify import verify
from numtape.nn import functional as F
from numtape.passes import PIPELINE, optimise


def merged(x):
    """Rows of heads side by side, as attention joins them, and whoever looks at the heads."""
    heads = nt.exp(x) * 2.0
    return heads.transpose(1, 0, 2).reshape(4, 6), heads.sum(0)


def test_copies():
    before, after = shown("copies", merged, H)
    assert before[1:] == [
        "%2: f64[3,4,2] = mul(%1, 2.0)",
        "%3: f64[4,3,2] = transpose(%2, axes=(1, 0, 2))",
        "%4: f64[4,6] = reshape(%3, shape=(4, 6))",
        "%5: f64[4,2] = sum(%2, axis=(0,))",
        "return %4, %5",
    ]
    assert after[1:] == [
        "%2: f64[4,3,2] = transpose(%1, axes=(1, 0, 2))",
        "%3: f64[4,3,2] = mul(%2, 2.0)",
        "%4: f64[3,4,2] = transpose(%3, axes=(1, 0, 2))",
        "%5: f64[4,3,2] = transpose(%4, axes=(1, 0, 2))",
        "%6: f64[4,6] = reshape(%5, shape=(4, 6))",
        "%7: f64[4,2] = sum(%4, axis=(0,))",
        "return %6, %7",
    ]


def test_joins_are_made_in_the_order_of_their_copies():
    def blocks(x):
        return nt.concatenate([x.exp(), x.tanh()], axis=1).transpose(1, 0, 2).reshape(8, 6)

    _, after = shown("copies", blocks, H)
    assert [line.split(" = ")[1] for line in after[:-1] if "concatenate" in line] == [
        "concatenate(%3, %4, axis=0)"
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x.exp() @ x.swapaxes(1, 2)).transpose(1, 0, 2).reshape(4, 12),
        lambda x: x.exp().transpose(2, 1, 0).reshape(2, 12),  # rows would not stay rows
        lambda x: x.exp().transpose(0, 1, 2).reshape(12, 2),  # no copy
        lambda x: x.transpose(1, 0, 2).reshape(4, 6),  # given from outside
    ],
)
def test_what_is_copied_all_the_same(function):
    before, after = shown("copies", function, H)
    assert after == before


def test_results_keep_their_order():
    def both(x):
        y = x.exp()
        return y, y.transpose(1, 0, 2).reshape(4, 6)

    before, after = shown("copies", both, H)
    assert after == before


def test_scheduling():
    """The gradient of a weight, the last to read an activation, makes room for what follows."""
    weights = [nt.Tensor(np.eye(4), requires_grad=True) for _ in range(2)]

    def loss(x):
        hidden = nt.sin(x @ weights[0])
        (hidden @ weights[1]).sum().backward()
        return weights[0].grad, weights[1].grad

    graph = traced(loss, np.ones((64, 4)))
    products = [v.shape for v in graph.nodes if v.op.name == "matmul" and v.origin.reverse]
    assert products == [(64, 4), (4, 4), (4, 4)]
    graph = verify(PASSES["scheduling"].apply(graph))
    products = [v.shape for v in graph.nodes if v.op.name == "matmul" and v.origin.reverse]
    assert products == [(4, 4), (64, 4), (4, 4)]


def slopes(x, w):
    return nt.grad(lambda x, w: (x @ w).sum(), (0, 1))(x, w)


def slopes_and_what_they_read(x, w):
    hidden = nt.exp(x)
    return slopes(hidden, w), hidden


@pytest.mark.parametrize("function", [slopes, slopes_and_what_they_read])
def test_scheduling_makes_no_room_of_what_stays(function):
    """What is given from outside, and results, are there to the end."""
    graph = traced(function, np.ones((64, 4)), np.eye(4))
    after = PASSES["scheduling"].apply(graph)
    assert [v.shape for v in after.nodes if v.op.name == "matmul"][-2:] == [(64, 4), (4, 4)]


def test_scheduling_waits_for_no_reader_that_need_not_come_first():
    """The gradient of a weight goes before that of its input, though both read theirs."""
    w = nt.Tensor(np.eye(4), requires_grad=True)
    v = nt.Tensor(np.eye(4), requires_grad=True)

    def loss(x):
        nt.sin(nt.sin(x @ v) @ w).sum().backward()
        return v.grad, w.grad

    graph = PASSES["scheduling"].apply(traced(loss, np.ones((64, 4))))
    shapes = [n.shape for n in graph.nodes if n.op.name == "matmul" and n.origin.reverse]
    assert shapes == [(4, 4), (64, 4), (4, 4)]


def renewed(x, w, gain, bias):
    """A norm's result is read by a product, and late by its gradient."""

    def loss(w, gain, bias):
        return (F.layer_norm(x, (64,), gain, bias) @ w).sin().sum()

    return nt.grad(loss, argnums=(0, 1, 2))(w, gain, bias)


def test_renewals():
    rng = np.random.default_rng(1)
    arguments = [rng.normal(size=shape) for shape in ((256, 64), (64, 64), 64, 64)]
    graph, *_ = optimise(traced(renewed, *arguments), PIPELINE[: NAMES.index("renewals")])
    after = verify(PASSES["renewals"].apply(graph))
    assert after.operations == graph.operations + 2
    added = [v for v in after.nodes if v.op.name == "add" and v.shape == (256, 64)]
    forward, late = added
    assert not forward.origin.reverse
    assert late.origin.reverse
    assert forward.inputs[0] is not late.inputs[0]  # the product with the gain is new as well
    tensors = list(map(nt.tensor, arguments))
    found = nt.compile(renewed, exact=True)(*tensors)
    for a, b in zip(found, renewed(*tensors), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


GAIN, BIAS = nt.Tensor(np.ones(64), requires_grad=True), nt.Tensor(np.zeros(64))
WEIGHT = nt.Tensor(np.eye(64), requires_grad=True)


def returned(x):
    y = F.layer_norm(x, (64,), GAIN, BIAS)
    (y @ WEIGHT).sin().sum().backward()
    return y


@pytest.mark.parametrize(
    "function",
    [
        returned,  # held to the end
        lambda x: nt.grad(lambda x: (nt.exp(x.sin()) ** 2.0).sum())(x),  # exp costs more
        lambda x: nt.grad(lambda x: (x.tanh() * 3.0).sum())(x),  # nothing is held but tanh
        lambda x: (x * 2.0 + 1.0).sum(),  # no reverse part
    ],
)
def test_what_is_held(function):
    arguments = np.ones((256, 64))
    graph, *_ = optimise(traced(function, arguments), PIPELINE[: NAMES.index("renewals")])
    assert PASSES["renewals"].apply(graph) is graph


def test_scheduling_moves_derivatives_into_the_forward_part_but_not_what_comes_late():
    weight = nt.Tensor(V, requires_grad=True)
    compiled = nt.compile(lambda x: F.gelu(x * weight))
    plan = compiled.tape(X).plan
    early, late = plan.order[: plan.first], plan.order[plan.first :]
    assert any(v.origin.reverse for v in early)
    assert all(v.origin.reverse for v in late)
    x = nt.tensor(X)
    compiled(x).sum().backward()
    found, weight.grad = weight.grad.numpy(), None
    F.gelu(x * weight).sum().backward()
    np.testing.assert_allclose(found, weight.grad.numpy(), rtol=1e-12)
