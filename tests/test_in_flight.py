"""Calls in flight: each holds its own memory until nobody can need it any more."""

import gc

import numpy as np
import pytest
from programs import forward_and_reverse

import numtape as nt


def test_results_are_kept_across_calls():
    compiled = nt.compile(lambda x: (x * 2, x.T, x[0], x))
    kept = [(x, compiled(x)) for x in np.random.default_rng(0).normal(size=(4, 3, 3))]
    for x, results in kept:
        for found, expected in zip(results, (x * 2, x.T, x[0], x), strict=True):
            assert np.array_equal(found.numpy(), expected)
            assert not np.shares_memory(found.numpy(), x)


def test_results_of_training_calls_are_kept():
    function, arguments = forward_and_reverse()
    compiled = nt.compile(function)
    first = compiled(*arguments)
    value = first.item()
    first.backward()
    compiled(2 * arguments[0]).backward()
    assert first.item() == value


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_backwards_in_any_order(order):
    weight = nt.Tensor(np.linspace(0.5, 1.5, 4), requires_grad=True)
    loss = lambda x: (nt.exp(x * weight) * weight).sum()
    compiled = nt.compile(loss, exact=True)
    inputs = np.random.default_rng(1).normal(size=(3, 4))
    losses = [compiled(x) for x in inputs]
    for i in order:
        weight.grad = None
        loss(nt.Tensor(inputs[i])).backward()
        expected = weight.grad.numpy()
        weight.grad = None
        losses[i].backward()
        assert np.array_equal(weight.grad.numpy(), expected)


def test_calls_of_several_shapes_in_flight():
    weight = nt.Tensor(np.linspace(0.5, 1.5, 4), requires_grad=True)
    loss = lambda x: (nt.exp(x * weight).sum(0) * weight).sum()
    compiled = nt.compile(loss, exact=True)
    inputs = [np.random.default_rng(n).normal(size=(n, 4)) for n in (3, 50, 7, 3)]
    for _ in range(2):
        losses = [compiled(x) for x in inputs]
        for i in (1, 3, 0, 2):
            weight.grad = None
            loss(nt.Tensor(inputs[i])).backward()
            expected = weight.grad.numpy()
            weight.grad = None
            losses[i].backward()
            assert np.array_equal(weight.grad.numpy(), expected)


def test_second_backward_of_a_call_is_an_error():
    function, arguments = forward_and_reverse()
    loss = nt.compile(function)(*arguments)
    loss.backward()
    with pytest.raises(RuntimeError, match=r"arena.*retain_graph=True"):
        loss.backward()


def test_arenas_come_back():
    function, arguments = forward_and_reverse()
    compiled = nt.compile(function)
    losses = [compiled(*arguments) for _ in range(3)]
    tape = compiled.tapes[0]._tape
    assert tape.arenas == 0
    losses[0].backward()
    gc.collect()
    assert tape.arenas == 1
    del losses
    gc.collect()
    assert tape.arenas == 3
    compiled(*arguments)
    gc.collect()
    assert tape.arenas == 3  # no fourth was made


def test_arena_comes_back_after_an_error():
    pick = nt.compile(lambda x, i: nt.take(x, i))
    for _ in range(2):
        with pytest.raises(IndexError):
            pick(np.ones(3), np.array([7]))
    gc.collect()
    assert pick.tapes[0]._tape.arenas == 1


def test_reverse_tape_runs_late_where_state_takes_the_value_of_other_state():
    state, other = nt.Tensor(np.ones(3)), nt.Tensor(np.full(3, 2.0))

    def remember(x):
        loss = (x * x).sum()
        state.assign(other)
        other.assign(other * 1.0)
        return loss

    x = nt.Tensor(np.array([1.0, -2.0, 3.0]), requires_grad=True)
    loss = nt.compile(remember)(x)
    (5.0 * loss).backward()
    assert x.grad.tolist() == [10.0, -20.0, 30.0]
