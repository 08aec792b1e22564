"""Faults in and around compiled calls: an error names its cause, and nothing is half-written."""

import threading
from functools import partial

import numpy as np
import pytest
from helpers import parameter, training_step

import numtape as nt
from numtape import nn, optim
from numtape.tracer.trace import tracing

ONES = np.ones(3)


# ---- errors leave nothing behind ----------------------------------------------------------


def test_exception_while_tracing_leaves_no_trace():
    weight = parameter(1.0, 2.0, 3.0)
    loss = (weight * weight).sum()
    broken = True

    def step(x):
        (x * weight).sum().backward()
        weight.assign(weight * 0)
        if broken:
            raise ValueError("broken on purpose")
        return x * 2

    compiled = nt.compile(step)
    with pytest.raises(ValueError, match="on purpose"):
        compiled(ONES)
    assert tracing() is None
    assert weight.grad is None
    assert weight.tolist() == [1.0, 2.0, 3.0]
    assert len(compiled.tapes) == 0
    loss.backward()  # nothing was changed in place
    assert weight.grad.tolist() == [2.0, 4.0, 6.0]
    weight.grad = None
    broken = False
    assert compiled(ONES).tolist() == [2.0, 2.0, 2.0]
    assert weight.tolist() == [0.0, 0.0, 0.0]


def test_compiling_without_running_changes_nothing():
    weight = parameter(1.0, 2.0, 3.0)
    loss = (weight * weight).sum()
    step = nt.compile(training_step(weight, optim.SGD([weight], lr=0.1), clear=True))
    step.tape(ONES)
    assert weight.grad is None
    loss.backward()
    assert weight.tolist() == [1.0, 2.0, 3.0]


def test_error_at_replay_leaves_the_function_usable():
    pick = nt.compile(lambda x, i: nt.take(x, i))
    assert pick(ONES, np.array([0, 2])).tolist() == [1.0, 1.0]
    with pytest.raises(IndexError, match="index 3"):
        pick(ONES, np.array([0, 3]))
    assert pick(2 * ONES, np.array([1, 1])).tolist() == [2.0, 2.0]


def test_tracing_on_one_thread_leaves_others_eager():
    inside, go_on = threading.Event(), threading.Event()

    def slow(x):
        inside.set()
        assert go_on.wait(10)
        return x * 2

    thread = threading.Thread(target=nt.compile(slow), args=(ONES,))
    thread.start()
    assert inside.wait(10)
    assert tracing() is None
    assert (nt.Tensor(ONES) + 1).tolist() == [2.0, 2.0, 2.0]
    go_on.set()
    thread.join(10)


def test_shapes_share_one_block_of_the_largest_size():
    weight = nt.tensor(np.arange(12.0).reshape(4, 3), requires_grad=True)
    compiled = nt.compile(lambda x: ((x @ weight).tanh() * 2.0).sum())
    expected = {}
    with nt.no_grad():
        for rows in (2, 50, 7, 50, 2, 30):
            x = np.linspace(-1, 1, 4 * rows).reshape(rows, 4)
            expected.setdefault(rows, ((nt.tensor(x) @ weight).tanh() * 2.0).sum().item())
            assert compiled(x).item() == pytest.approx(expected[rows], rel=1e-12)
    blocks = {id(tape._tape._blocks) for tape in compiled.tapes}
    assert len(compiled.tapes) == 4
    assert len(blocks) == 1
    assert compiled.tapes[0]._tape.arenas == 1
    block = compiled.tapes[0]._tape.acquire().block
    assert block.memory.nbytes == max(tape.memory.arena for tape in compiled.tapes)


# ---- errors in mid-step -------------------------------------------------------------------


class Classifier(nn.Module):
    def __init__(self):
        self.table = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, ids):
        return self.out(nn.functional.dropout(self.table(ids), 0.5))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("id", "target"), [(5, 0), (-6, 0), (0, 3), (0, -1)])
def test_index_out_of_range_in_a_step_changes_nothing(id, target, exact):
    model = Classifier()
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    seen = nt.tensor(0.0)

    @partial(nt.compile, exact=exact)
    def step(ids, targets):
        seen.assign(seen + 1.0)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(ids), targets)
        loss.backward()
        optimizer.step()
        return loss

    step(np.array([1, 2]), np.array([1, 2]))
    before = {**model.state_dict(), **optimizer.state_dict()}
    with pytest.raises(IndexError, match="out of range"):
        step(np.array([1, id]), np.array([1, target]))
    after = {**model.state_dict(), **optimizer.state_dict()}
    assert seen.item() == 1.0
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_check_of_an_index_that_depends_on_an_update_changes_nothing():
    state, table = parameter(1.0, 2.0), nt.tensor([1.0, 2.0])

    @nt.compile
    def step(x):
        state.assign(state * 2.0)
        return table[nt.floor(x * state[:1]).astype(np.int64)]

    loss = (state * state).sum()
    with pytest.raises(IndexError):
        step(np.array([7.0]))
    assert state.tolist() == [1.0, 2.0]
    loss.backward()  # nothing was changed in place
    assert state.grad.tolist() == [2.0, 4.0]


# ---- backward twice through one call ------------------------------------------------------


def test_second_backward_names_the_way_out():
    left, right = parameter(1.0, 2.0), parameter(3.0)
    both = nt.compile(lambda: ((left * 3).sum(), (right * 5).sum()))
    first, second = both()
    first.backward()
    with pytest.raises(RuntimeError, match=r"combine the outputs, as in \(a \+ b\)"):
        second.backward()
    left.grad = right.grad = None
    first, second = both()
    (first + second).backward()
    assert (left.grad.tolist(), right.grad.tolist()) == ([3.0, 3.0], [5.0])
