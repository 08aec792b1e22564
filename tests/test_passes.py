"""Passes: each shown before and after, and each held to the values of the graph it was given."""

from itertools import pairwise

import numpy as np
import pytest
from helpers import run_graph
from programs import RandomProgram, gpt_step, mlp_step

import numtape as nt
from numtape.ir.op import REGISTRY
from numtape.ir.verify import verify
from numtape.nn import functional as F
from numtape.passes import PIPELINE, optimise

PASSES = {p.name: p for p in PIPELINE}
X = np.arange(12.0).reshape(3, 4) / 7
V = np.array([0.5, -1.0, 2.0, 0.25])


def written(graph):
    """The text of a graph without the notes at its ends."""
    lines = [line.split("   #")[0].strip() for line in str(graph).splitlines()]
    return [line for line in lines if " = input " not in line][1:]


def traced(function, *arguments):
    return nt.trace(function, *arguments).graph


def shown(name, function, *arguments):
    """A function's graph before and after a pass alone."""
    graph = traced(function, *arguments)
    return written(graph), written(verify(PASSES[name].apply(graph)))


# ---- one by one, before and after ---------------------------------------------------------


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
        "%3: bool[3,1] = isfinite(%2)",
        "%4: f64[3,1] = where(%3, %2, 0.0)",
        "%5: f64[3,4] = sub(%0, %4)",
        "%6: f64[3,4] = exp(%5)",
        "%7: f64[3] = sum(%6, axis=(1,))",
        "%8: f64[3,1] = reshape(%7, shape=(3, 1))",
        "%9: bool[3,1] = gt(%8, 0.0)",
        "%10: f64[3,1] = where(%9, %8, 1.0)",
        "%11: f64[3,4] = div(%6, %10)",
        "return %11",
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


# ---- all of them on real graphs -----------------------------------------------------------


def value_and_gradient_of_examples(op, example):
    arrays = example.inputs(np.random.default_rng(3))
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]

    def both(*xs):
        out = op(*xs, **example.attrs)
        if out.dtype.kind != "f" or not floats:
            return (out,)
        return out, *nt.grad(lambda *ys: op(*ys, **example.attrs).sum(), floats)(*xs)

    return traced(both, *arrays), arrays


def graph_and_inputs(function, arguments):
    """A traced step with the arrays that its inputs take."""
    found = nt.trace(function, *arguments)
    outside = [c.numpy() if isinstance(c, nt.Tensor) else c for c in found.captured]
    return found.graph, [*map(np.asarray, arguments), *outside]


CASES = {
    f"{name} {i}": (lambda op=op, e=example: value_and_gradient_of_examples(op, e))
    for name, op in REGISTRY.items()
    for i, example in enumerate(op.examples)
}
for seed in range(8):
    for kind in ({}, {"update": True}, {"learn": True}):
        p = RandomProgram(seed, **kind)
        CASES[f"program {seed} {kind}"] = lambda p=p: graph_and_inputs(p.__call__, p.arguments)
for step in (mlp_step, gpt_step):
    CASES[step.__name__] = lambda step=step: graph_and_inputs(*step())


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_passes_keep_values(make):
    """Each pass alone, then all in order; exact ones to the bit."""
    graph, inputs = make()
    before = run_graph(verify(graph), inputs)
    for step in PIPELINE:
        alone = verify(step.apply(graph))
        assert_same(step, run_graph(alone, inputs), before)
    for step in PIPELINE:
        after = verify(step.apply(graph))
        found = run_graph(after, inputs)
        assert_same(step, found, before)
        graph, before = after, found


def assert_same(step, found, expected):
    for x, y in zip(found, expected, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), step.name
        if step.exact or x.dtype.kind != "f":
            assert np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), step.name
        else:
            tolerance = 1e-5 if x.dtype == np.float32 else 1e-11
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=step.name)


@pytest.mark.parametrize("step", PIPELINE, ids=PASSES)
def test_passes_leave_their_graph_alone_and_settle(step):
    graph, _ = graph_and_inputs(*gpt_step(layers=1))
    text = str(graph)
    once = step.apply(graph)
    assert str(graph) == text
    assert step.apply(once).operations <= once.operations


# ---- the pipeline -------------------------------------------------------------------------


def test_pipeline():
    names = [p.name for p in PIPELINE]
    assert len(set(names)) == len(names)
    assert names[0] == "dead_nodes"
    assert names.index("composites") < names.index("common_subexpressions")
    assert names.index("identities") < names.index("old_values")  # which adds what looks like one
    assert [p.name for p in PIPELINE if not p.exact] == [
        "broadcasts",
        "sums",
        "views",
        "products",
    ]


def test_records_of_a_training_step():
    step, arguments = gpt_step()
    tape = nt.compile(step).tape(*arguments)
    records = tape.passes
    assert [r.name for r in records] == [p.name for p in PIPELINE]
    assert [r.exact for r in records] == [p.exact for p in PIPELINE]
    assert records[0].nodes_before == tape.graph("joint").operations
    assert records[-1].nodes_after == tape.graph("optimized").operations
    assert records[-1].bytes_after == tape.graph("optimized").nbytes
    for one, other in pairwise(records):
        assert (one.nodes_after, one.bytes_after) == (other.nodes_before, other.bytes_before)
    assert all(r.milliseconds >= 0 for r in records)
    shrinking = {r.name: r.nodes_after - r.nodes_before for r in records}
    assert shrinking["common_subexpressions"] < -20
    assert shrinking["composites"] > 0
    assert records[-1].nodes_after < max(r.nodes_after for r in records)


def test_exact_leaves_out_what_is_not():
    step, arguments = mlp_step()
    names = [r.name for r in nt.compile(step, exact=True).tape(*arguments).passes]
    assert names == [p.name for p in PIPELINE if p.exact]


def test_verifier_runs_where_asked():
    graph, _ = graph_and_inputs(*mlp_step())
    checked, _ = optimise(graph, check=True)
    assert str(checked) == str(optimise(graph)[0])


def test_notes_survive():
    graph = nt.compile(gpt_step(layers=1)[0]).tape(*gpt_step(layers=1)[1]).graph("optimized")
    worked = [v for v in graph.nodes if v.op.name == "matmul"]
    assert worked
    assert all(v.origin.file for v in worked)
    inside = [v for v in worked if v.origin.module.startswith("layers.0.attention")]
    assert {v.origin.reverse for v in inside} == {False, True}
