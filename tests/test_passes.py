"""Passes one by one: a small graph before and after each, as text."""

import numpy as np
import pytest
from helpers import written

import numtape as nt
from numtape.ir.verify import verify
from numtape.nn import functional as F
from numtape.passes import PIPELINE

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
    "where(true, x, y) = x": (lambda x: nt.where(True, -x, x), ["%1: f64[3,4] = neg(%0)"]),
    "detach(x) = x": (lambda x: x.detach(), []),
}


def cut_and_joined(*cuts):
    """A vector in parts, some of them in other shapes for a while, and joined again."""

    def function(x):
        whole = (x * 2.0).reshape(12)
        parts = [whole[a:b] for a, b in cuts]
        return nt.concatenate([parts[0].reshape(2, -1).reshape(-1), *parts[1:]])

    return function


def test_the_parts_of_a_vector_joined_are_the_vector():
    _, after = shown("identities", cut_and_joined((0, 6), (6, 7), (7, 12)), X)
    assert after == [
        "%1: f64[3,4] = mul(%0, 2.0)",
        "%2: f64[12] = reshape(%1, shape=(12,))",
        "return %2",
    ]


@pytest.mark.parametrize(
    "cuts", [((0, 6), (6, 11)), ((6, 12), (0, 6)), ((0, 6), (5, 12))], ids=str
)
def test_other_parts_joined_are_not(cuts):
    _, after = shown("identities", cut_and_joined(*cuts), X)
    assert any("concatenate" in line for line in after)


def test_parts_joined_as_rows_are_not_the_vector():
    def function(x):
        return nt.concatenate([x[:6].reshape(2, 3), x[6:].reshape(2, 3)])

    flat = nt.tensor(np.arange(12.0))
    found, expected = nt.compile(function)(flat).numpy(), function(flat).numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("function, expected", IDENTITIES.values(), ids=IDENTITIES)
def test_identities(function, expected):
    before, after = shown("identities", function, X)
    assert len(before) > len(after) or before != after
    assert after[:-1] == expected
    assert after[-1] == f"return %{len(expected)}"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 0.0,
        lambda x: x * 0.0,
        lambda x: x - x,
        lambda x: x - -0.0,
        lambda x: x.T * 1.0,
    ],
)
def test_what_is_no_identity(function):
    """-0 + 0 is 0, as is -0 - -0, and 0 times NaN is NaN: these change bits. So may sums of a
    copy that lies otherwise."""
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


def test_a_product_that_is_read_both_ways_is_computed_once():
    weight = nt.Tensor(np.ones((4, 2)))
    before, after = shown("products", lambda x: (y := x @ weight) + (y.T * 2.0).T, X)
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
