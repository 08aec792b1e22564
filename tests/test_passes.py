"""Passes one by one: a small graph before and after each, as text."""

import numpy as np
import pytest
from helpers import written

import numtape as nt
from numtape.ir.verify import verify
from numtape.nn import functional as F
from numtape.passes import PIPELINE, optimise

PASSES = {p.name: p for p in PIPELINE}
NAMES = list(PASSES)
X = np.arange(12.0).reshape(3, 4) / 7
V = np.array([0.5, -1.0, 2.0, 0.25])
H = np.arange(24.0).reshape(3, 4, 2) / 7


def traced(function, *arguments):
    return nt.trace(function, *arguments).graph


def shown(name, function, *arguments):
    """A function's graph before and after a pass alone."""
    graph = traced(function, *arguments)
    return written(graph), written(verify(PASSES[name].apply(graph)))


def test_dead_nodes():
    def unused(x):
        x.exp().sum()
        return x * 2.0

    before, after = shown("dead_nodes", unused, X)
    assert before == [
        "%1: f64[3,4] = exp(%0)",
        "%2: f64[] = sum(%1, axis=(0, 1))",
        "%3: f64[3,4] = mul(%0, 2.0)",
        "return %3",
    ]
    assert after == ["%1: f64[3,4] = mul(%0, 2.0)", "return %1"]


def test_dead_nodes_keeps_updates():
    count = nt.Tensor(np.zeros(4))
    _, after = shown("dead_nodes", lambda x: count.assign(count + x), V)
    assert after == ["%2: f64[4] = add(%1, %0)", "return", "update %1 <- %2"]


def test_composites():
    before, after = shown("composites", lambda x: F.softmax(x), X)
    assert before == ["%1: f64[3,4] = softmax(%0, axis=1)", "return %1"]
    assert after == [
        "%1: f64[3] = max(%0, axis=(1,))",
        "%2: f64[3,1] = reshape(%1, shape=(3, 1))",
        "%3: f64[3,1] = maximum(%2, -1.7976931348623157e+308)",
        "%4: f64[3,4] = sub(%0, %3)",
        "%5: f64[3,4] = exp(%4)",
        "%6: f64[3] = sum(%5, axis=(1,))",
        "%7: f64[3,1] = reshape(%6, shape=(3, 1))",
        "%8: f64[3,1] = maximum(%7, 0.5)",
        "%9: f64[3,4] = div(%5, %8)",
        "return %9",
    ]


def test_common_subexpressions():
    before, after = shown("common_subexpressions", lambda x: x.exp() * x.exp() + x.sum(0), X)
    assert before == [
        "%1: f64[3,4] = exp(%0)",
        "%2: f64[3,4] = exp(%0)",
        "%3: f64[3,4] = mul(%1, %2)",
        "%4: f64[4] = sum(%0, axis=(0,))",
        "%5: f64[3,4] = add(%3, %4)",
        "return %5",
    ]
    assert after == [
        "%1: f64[3,4] = exp(%0)",
        "%2: f64[3,4] = mul(%1, %1)",
        "%3: f64[4] = sum(%0, axis=(0,))",
        "%4: f64[3,4] = add(%2, %3)",
        "return %4",
    ]


def test_zeros_of_either_sign_are_not_shared():
    framed = lambda x: (nt.pad(x, 1, 0.0), nt.pad(x, 1, -0.0), nt.pad(x, 1, 0.0))
    before, after = shown("common_subexpressions", framed, X)
    assert after == [*before[:2], "return %1, %2, %1"]


def test_broadcasts():
    repeated = lambda x, v: (v.broadcast_to((3, 4)) * x, v.broadcast_to((3, 4)).exp())
    before, after = shown("broadcasts", repeated, X, V)
    assert before == [
        "%2: f64[3,4] = broadcast_to(%1, shape=(3, 4))",
        "%3: f64[3,4] = mul(%2, %0)",
        "%4: f64[3,4] = broadcast_to(%1, shape=(3, 4))",
        "%5: f64[3,4] = exp(%4)",
        "return %3, %5",
    ]
    assert after == [
        "%2: f64[3,4] = mul(%1, %0)",
        "%3: f64[4] = exp(%1)",
        "%4: f64[3,4] = broadcast_to(%3, shape=(3, 4))",
        "return %2, %4",
    ]


def test_broadcasts_stay_where_ops_add_up():
    repeated = lambda x, v: (
        np.vecdot(v.broadcast_to((3, 4)), x) + (x @ v.broadcast_to((4, 4)))[:, 0]
    )
    before, after = shown("broadcasts", repeated, X, V)
    assert after == before


def test_folding():
    arithmetic = lambda x: x * (nt.full((), 2.0, np.float64) * 3.0 + 0.5)
    before, after = shown("folding", arithmetic, X)
    assert before == [
        "%1: f64[] = mul(2.0, 3.0)",
        "%2: f64[] = add(%1, 0.5)",
        "%3: f64[3,4] = mul(%0, %2)",
        "return %3",
    ]
    assert after == ["%1: f64[3,4] = mul(%0, 6.5)", "return %1"]


IDENTITIES = {
    "x * 1 = x": (lambda x: x * 1.0, []),
    "1 * x = x": (lambda x: 1.0 * x, []),
    "x * -1 = -x": (lambda x: x * -1.0, ["%1: f64[3,4] = neg(%0)"]),
    "x / 1 = x": (lambda x: x / 1.0, []),
    "x - 0 = x": (lambda x: x - 0.0, []),
    "x + -y = x - y": (
        lambda x: x + -(x * x),
        [
            "%1: f64[3,4] = mul(%0, %0)",
            "%2: f64[3,4] = sub(%0, %1)",
        ],
    ),
    "--x = x": (lambda x: x.__neg__().__neg__(), []),
    "where(c, x, x) = x": (lambda x: nt.where(x > 0.0, x, x), []),
    "detach(x) = x": (lambda x: x.detach(), []),
}


@pytest.mark.parametrize("function, expected", IDENTITIES.values(), ids=IDENTITIES)
def test_identities(function, expected):
    before, after = shown("identities", function, X)
    assert len(before) > len(after) or before != after
    assert after[:-1] == expected
    assert after[-1] == f"return %{len(expected)}"


@pytest.mark.parametrize(
    "function", [lambda x: x + 0.0, lambda x: x * 0.0, lambda x: x - x, lambda x: x - -0.0]
)
def test_what_is_no_identity(function):
    """-0 + 0 is 0, as is -0 - -0, and 0 times NaN is NaN: these change bits."""
    before, after = shown("identities", function, X)
    assert before == after


VIEWS = {
    "reshape": (lambda x: x.reshape(4, 3).reshape(2, 6), ["reshape(%0, shape=(2, 6))"]),
    "there and back": (lambda x: x.reshape(12).reshape(3, 4), []),
    "transpose": (lambda x: x.T.T, []),
    "reorder": (
        lambda x: x.reshape(3, 2, 2).transpose(2, 0, 1).transpose(2, 0, 1),
        ["reshape(%0, shape=(3, 2, 2))", "transpose(%1, axes=(1, 2, 0))"],
    ),
    "axis of one": (lambda x: x.reshape(3, 1, 4).swapaxes(0, 1), ["reshape(%0, shape=(1, 3, 4))"]),
    "whole slice": (lambda x: x[:, :], []),
    "broadcast": (
        lambda x: x.reshape(1, 3, 4).broadcast_to((2, 3, 4)).broadcast_to((5, 2, 3, 4)),
        ["reshape(%0, shape=(1, 3, 4))", "broadcast_to(%1, shape=(5, 2, 3, 4))"],
    ),
    "placed and taken": (lambda x: nt.pad(x, 1)[1:4, 1:5], []),
    "part of a join": (
        lambda x: nt.concatenate([x, x * 2.0], 0)[:3],
        [],
    ),
}


@pytest.mark.parametrize("function, expected", VIEWS.values(), ids=VIEWS)
def test_views(function, expected):
    _, after = shown("views", function, X)
    assert [line.split(" = ")[1] for line in after[:-1]] == expected


def test_gradients_of_parts_become_one_join():
    def joined(x):
        left, right = nt.split(x, 2, axis=1)
        return (left * 2.0 + right).sum()

    graph = traced(nt.grad(joined), X)
    assert sum(v.op.name == "place" for v in graph.nodes) == 2
    for name in ("dead_nodes", "common_subexpressions", "broadcasts", "identities", "views"):
        graph = verify(PASSES[name].apply(graph))
    names = [v.op.name for v in graph.nodes]
    assert names.count("concatenate") == 1
    assert "place" not in names
    assert "add" not in names


def test_joined_heads_are_copied_once():
    """Into their places, not to be reshaped before that as well."""

    def joined(x, y):
        heads = [v.transpose(1, 0, 2).reshape(4, 6) for v in (x, y)]
        return nt.concatenate(heads, axis=1)

    _, after = shown("views", joined, H, H)
    assert after == [
        "%2: f64[4,3,2] = transpose(%0, axes=(1, 0, 2))",
        "%3: f64[4,3,2] = transpose(%1, axes=(1, 0, 2))",
        "%4: f64[4,6,2] = concatenate(%2, %3, axis=1)",
        "%5: f64[4,12] = reshape(%4, shape=(4, 12))",
        "return %5",
    ]


def test_nothing_is_joined_along_an_axis_that_it_lacks():
    """Without entries a reshape may add the axis, and still have the same others before."""
    join = lambda x, y: nt.concatenate([x.T.reshape(0, 5), y.reshape(0, 1)], axis=1)
    before, after = shown("views", join, np.zeros((7, 0)), np.zeros(0))
    assert after == before


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


@pytest.mark.parametrize(
    "function",
    [
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


def test_sums():
    ones = np.ones((16, 32))
    column = lambda x: x.sum(0)
    assert shown("sums", column, ones)[1] == [
        "%1: f64[1,16] = filled(shape=(1, 16), value=1.0, dtype=float64)",
        "%2: f64[1,32] = matmul(%1, %0)",
        "%3: f64[32] = reshape(%2, shape=(32,))",
        "return %3",
    ]
    products = lambda x: (x * x.exp()).sum(1)
    assert shown("sums", products, ones)[1] == [
        "%1: f64[16,32] = exp(%0)",
        "%2: f64[16] = vecdot(%0, %1)",
        "return %2",
    ]
    repeated = lambda x: x.broadcast_to((5, 16, 32)).sum(0)
    assert shown("sums", repeated, ones)[1] == [
        "%1: f64[16,32] = mul(%0, 5)",
        "%2: f64[1,16,32] = broadcast_to(%1, shape=(1, 16, 32))",
        "%3: f64[16,32] = reshape(%2, shape=(16, 32))",
        "return %3",
    ]
    short = lambda x: x.sum(1)
    assert shown("sums", short, np.ones((4, 3)))[1] == shown("sums", short, np.ones((4, 3)))[0]


def test_products():
    weight = nt.Tensor(np.ones((4, 2)))
    before, after = shown("products", lambda x: (x @ weight).T + 1.0, X)
    assert before == [
        "%2: f64[3,2] = matmul(%0, %1)",
        "%3: f64[2,3] = transpose(%2, axes=(1, 0))",
        "%4: f64[2,3] = add(%3, 1.0)",
        "return %4",
    ]
    assert after == [
        "%2: f64[2,4] = transpose(%1, axes=(1, 0))",
        "%3: f64[4,3] = transpose(%0, axes=(1, 0))",
        "%4: f64[2,3] = matmul(%2, %3)",
        "%5: f64[2,3] = add(%4, 1.0)",
        "return %5",
    ]


def test_products_that_others_read_stay():
    weight = nt.Tensor(np.ones((4, 2)))

    def both(x):
        y = x @ weight
        return y, y.T

    before, after = shown("products", both, X)
    assert before == after


def test_old_values():
    count = nt.Tensor(np.zeros(4))

    def advance():
        old = count.reshape(2, 2)
        result = old * 1.0
        count.assign(count + 1.0)
        return result

    graph = PASSES["identities"].apply(traced(advance))
    assert written(graph) == [
        "%1: f64[2,2] = reshape(%0, shape=(2, 2))",
        "%2: f64[4] = add(%0, 1.0)",
        "return %1",
        "update %0 <- %2",
    ]
    assert written(verify(PASSES["old_values"].apply(graph)))[2:] == [
        "%3: f64[2,2] = cast(%1, dtype=float64)",
        "return %3",
        "update %0 <- %2",
    ]
