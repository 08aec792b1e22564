"""Profiles of tapes: parts that sum to the whole, every line covered, and nothing disturbed."""

import ast
import re

import numpy as np
import pytest
from programs import each_step, gpt_step

import numtape as nt
from numtape import nn, optim
from numtape.runtime.causes import CAUSES
from numtape.tracer.random import default


def made(function, *arguments, **options):
    return nt.compile(function, **options).tape(*arguments)


def chain(x):
    """Large enough to run tile by tile."""
    return ((x * 2.0).exp() - x.sum(-1, keepdims=True)).tanh()


LARGE = np.ones((512, 1024), np.float32)


def kernel_lines(tape):
    """The lines of the tapes that are calls."""
    (bind,) = ast.parse(tape.source).body[-1:]
    tapes = [node for node in bind.body if isinstance(node, ast.FunctionDef)]
    calls = (n for t in tapes for n in ast.walk(t) if isinstance(n, ast.Expr))
    return sorted(ast.unparse(call) for call in calls)


@each_step
def test_every_line_of_a_tape_is_a_kernel_of_the_profile(make):
    step, arguments = make()
    tape = made(step, *arguments)
    found = tape.profile(*arguments, rounds=1)
    assert sorted(ast.unparse(ast.parse(k.name)) for k in found.kernels) == kernel_lines(tape)


@pytest.mark.parametrize("table", ["causes", "modules", "regions"])
def test_the_parts_sum_to_the_whole(table):
    step, arguments = gpt_step()
    found = made(step, *arguments).profile(*arguments, rounds=2)
    parts = getattr(found, table)
    assert found.seconds > 0
    assert sum(p.seconds for p in parts) == pytest.approx(found.seconds, rel=1e-9)
    assert sum(p.nbytes for p in parts) == sum(k.nbytes for k in found.kernels)
    assert sum(p.flops for p in parts) == sum(k.flops for k in found.kernels)


def test_work_is_counted_as_in_the_cost_of_the_tape():
    tape = made(chain, LARGE)
    found = tape.profile(LARGE, rounds=1)
    assert sum(k.nbytes for k in found.kernels) == tape.cost.nbytes
    assert sum(k.flops for k in found.kernels) == tape.cost.flops


def test_lines_in_loops_are_timed_for_every_tile():
    tape = made(chain, LARGE)
    count = tape.plan.tilings[0].count
    assert count > 1
    found = tape.profile(LARGE, rounds=1)
    assert {k.calls for k in found.kernels if k.region} == {count}
    assert {r.name for r in found.regions} >= {"tiles_1"}
    assert all(k.seconds > 0 for k in found.kernels)


def test_the_state_is_left_as_it_was():
    nt.random.seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    optimizer = optim.AdamW(model.parameters(), lr=0.1)

    @nt.compile
    def step(x, y):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    x, y = np.ones((4, 6), np.float32), np.zeros(4, np.int64)
    step(x, y)
    before = {**model.state_dict(), **optimizer.state_dict()}
    versions = [p.version for p in model.parameters()]
    chance = default.state.numpy().copy()
    step.tapes[0].profile(x, y, rounds=3)
    after = {**model.state_dict(), **optimizer.state_dict()}
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert [p.version for p in model.parameters()] == versions
    assert np.array_equal(default.state.numpy(), chance)
    assert (x == 1).all()
    assert (y == 0).all()


def test_an_argument_that_the_function_assigns_is_left_as_it_was():
    x = nt.tensor([1.0, 2.0])

    def double(x):
        x.assign(x * 2.0)
        return x.sum()

    made(double, x).profile(x)
    assert x.tolist() == [1.0, 2.0]


def test_a_tape_of_two_parts_is_timed_in_both():
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3))
    x = np.ones((4, 6), np.float32)
    tape = made(model, x)
    found = tape.profile(x)
    assert len(found.kernels) == len(tape.plan.order)
    modules = {m.name for m in found.modules}
    assert {"0", "0 grad", "2", "2 grad"} <= modules
    assert all(p.grad is None for p in model.parameters())


def test_causes_of_the_gap():
    indices = np.array([2, 0, 1])

    def work(x, w, i):
        return nt.take((x @ w).exp(), i).max(axis=1), nn.functional.dropout(x, 0.5)

    square = np.ones((3, 3), np.float32)
    found = made(work, square, square, indices).profile(square, square, indices)
    by_function = {re.match(r"[\w.]+", k.name)[0]: k.cause for k in found.kernels}
    assert by_function["np.matmul"] == "matrix products"
    assert by_function["np.exp"] == "elementwise"
    assert by_function["np.maximum.reduce"] == "reductions"
    assert {"indexing", "random numbers"} <= set(by_function.values())
    assert [c.name for c in found.causes] == [
        c for c in CAUSES if c in {*by_function.values(), CAUSES[-1]}
    ]


def test_what_is_printed():
    step, arguments = gpt_step()
    text = str(made(step, *arguments).profile(*arguments, rounds=1))
    heads = re.findall(r"^(\w+) +ms +% +calls +GB/s +GFLOP/s$", text, re.MULTILINE)
    assert heads == ["cause", "module", "region", "kernel"]
    assert re.search(r"^matrix products +[\d.]+", text, re.MULTILINE)
    assert re.search(r"^optimizer +[\d.]+", text, re.MULTILINE)


def test_other_arguments_than_those_of_the_tape():
    tape = made(chain, LARGE)
    with pytest.raises(ValueError, match=r"made for arguments f32\[512,1024\], not f32\[2\]"):
        tape.profile(np.ones(2, np.float32))
    with pytest.raises(ValueError, match="1 round or more, not 0"):
        tape.profile(LARGE, rounds=0)


def test_an_index_out_of_range_names_the_line():
    tape = made(lambda x, i: nt.take(x, i), np.ones(3), np.array([0]))
    with pytest.raises(IndexError) as caught:
        tape.profile(np.ones(3), np.array([7]))
    assert any("wrap" in note for note in caught.value.__notes__)
