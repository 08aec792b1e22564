"""Replays leave no memory behind, in small; `make leak` watches a million of them."""

import tracemalloc

import numpy as np
import pytest

import numtape as nt
from benchmarks import leak
from benchmarks.contestants.numtape_compiled import Contestant
from benchmarks.models import MODELS

REPLAYS = 2_000


def test_resident_memory_stays_within_a_megabyte():
    step = Contestant(MODELS["tiny"], True).step
    grown = [nbytes for _, nbytes in leak.growth(step, REPLAYS)]
    assert len(grown) == leak.PARTS
    assert max(grown) <= leak.MEGABYTE


def test_growth_counts_from_the_warm_up(monkeypatch):
    """By a stand-in for resident memory: what a real one does in a large process is not sure."""
    kept = []
    monkeypatch.setattr(leak, "resident", lambda: 8000 * len(kept))
    grown = list(leak.growth(lambda: kept.append(0), REPLAYS))
    assert grown == [(n, 8000 * n) for n in range(100, REPLAYS + 1, 100)]


def forward_and_backward(run, x, weight):
    weight.grad = None
    run(x, weight).backward()


def one_of_two(run, x, weight):
    weight.grad = None
    run(x, weight)[1].backward()


CALLS = {
    "training step": (None, None),
    "forward and backward": (lambda x, w: nt.tanh(x @ w).sum(), forward_and_backward),
    "one of two results": (lambda x, w: (nt.exp(x @ w).sum(), (x @ w).sum()), one_of_two),
    "results dropped": (lambda x, w: nt.exp(x @ w), lambda run, x, w: run(x, w)),
}


@pytest.mark.parametrize("function, call", CALLS.values(), ids=CALLS)
def test_no_object_stays_behind(function, call):
    """What Python allocates in hundreds of calls is what a few leave: the cache of a warning."""
    if function is None:
        step = Contestant(MODELS["mlp"], True).step
    else:
        x, weight = nt.full((3, 4), 0.1), nt.tensor(np.ones((4, 2)), requires_grad=True)
        run = nt.compile(function)
        step = lambda: call(run, x, weight)
    for _ in range(20):
        step()
    tracemalloc.start()
    for _ in range(20):
        step()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(300):
        step()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 300 * 28  # bytes: not the smallest object in a call
