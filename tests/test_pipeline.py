"""The passes together: on real graphs, held to their values, and what a tape tells of them."""

from itertools import pairwise

import numpy as np
import pytest
from helpers import run_graph
from programs import RandomProgram, gpt_step, mlp_step

import numtape as nt
from numtape.ir.op import REGISTRY
from numtape.ir.verify import verify
from numtape.passes import PIPELINE, optimise

PLANNING = ["view_binding", "hoisting", "in_place", "tiling", "buffer_reuse"]

# ---- all of them on real graphs -----------------------------------------------------------


def value_and_gradient_of_examples(op, example):
    arrays = example.inputs(np.random.default_rng(3))
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]

    def both(*xs):
        out = op(*xs, **example.attrs)
        if out.dtype.kind != "f" or not floats:
            return (out,)
        return out, *nt.grad(lambda *ys: op(*ys, **example.attrs).sum(), floats)(*xs)

    return nt.trace(both, *arrays).graph, arrays


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


@pytest.mark.parametrize("step", PIPELINE, ids=lambda p: p.name)
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
        "gains",
        "sums",
        "copies",
        "views",
        "products",
    ]


def test_records_of_a_training_step():
    step, arguments = gpt_step()
    tape = nt.compile(step).tape(*arguments)
    records = tape.passes
    rewrites, planning = records[: len(PIPELINE)], records[len(PIPELINE) :]
    assert [r.name for r in rewrites] == [p.name for p in PIPELINE]
    assert [r.name for r in planning] == PLANNING
    assert [r.exact for r in records] == [p.exact for p in PIPELINE] + [True] * len(PLANNING)
    assert rewrites[0].nodes_before == tape.graph("joint").operations
    assert rewrites[-1].nodes_after == tape.graph("optimized").operations
    assert rewrites[-1].bytes_after == tape.graph("optimized").nbytes
    for one, other in pairwise(records):
        assert one.nodes_after == other.nodes_before
        # From here on what lies in the arena counts: arguments too, in whole lines of cache.
        if other.name != "in_place":
            assert one.bytes_after == other.bytes_before
    assert all(r.milliseconds > 0 for r in records)
    shrinking = {r.name: r.nodes_after - r.nodes_before for r in records}
    assert shrinking["common_subexpressions"] < -20
    assert shrinking["composites"] > 0
    assert rewrites[-1].nodes_after < max(r.nodes_after for r in rewrites)


def test_records_of_planning_a_training_step():
    step, arguments = gpt_step()
    tape = nt.compile(step).tape(*arguments)
    binding, hoisting, in_place, tiling, reuse = tape.passes[len(PIPELINE) :]
    nodes = [v for v in tape.graph("optimized").nodes if not v.is_constant]
    assert binding.nodes_before - binding.nodes_after > 40
    assert binding.nodes_after >= sum(v.op.view is None for v in nodes) - len(tape.plan.joins)
    assert hoisting.nodes_before - hoisting.nodes_after == len(tape.plan.fixed) > 0
    assert hoisting.nodes_after == len(tape.plan.order) == kernels(tape.source)
    assert in_place.bytes_before == tape.memory.unshared
    assert in_place.bytes_after < 0.8 * in_place.bytes_before
    assert tiling.bytes_after == sum(slot.nbytes for slot in tape.plan.slots)
    assert tiling.bytes_after == tiling.bytes_before  # too small for tiles
    assert reuse.bytes_after == tape.memory.arena < 0.6 * reuse.bytes_before


def kernels(source):
    """How many nodes a step computes: its lines that name one; others copy updates to storage."""
    lines = source.split("def step():\n")[1].split("arguments =")[0].splitlines()
    return sum("  # %" in line for line in lines)


def test_exact_leaves_out_what_is_not():
    step, arguments = mlp_step()
    records = nt.compile(step, exact=True).tape(*arguments).passes
    assert all(r.exact for r in records)
    assert {p.name for p in PIPELINE if p.exact}.issubset(r.name for r in records)
    assert [r.name for r in records[-len(PLANNING) :]] == PLANNING


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
