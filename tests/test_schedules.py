"""Schedules on numbers and on tensors, against the formulas."""

import math

import numpy as np
import pytest

import numtape as nt
from numtape.optim import schedules

STEPS = range(1, 41)


def cosine(step):
    if step < 10:
        return 0.5 * step / 10
    share = min((step - 10) / 20, 1)
    return 0.1 + 0.4 * (1 + math.cos(math.pi * share)) / 2


CASES = {
    "constant": (schedules.constant(0.3), lambda step: 0.3),
    "inverse square root": (
        schedules.inverse_square_root(512, warmup=10, factor=2.0),
        lambda step: 2 * 512**-0.5 * min(step**-0.5, step * 10**-1.5),
    ),
    "cosine": (schedules.warmup_cosine(0.5, 10, 30, minimum=0.1), cosine),
}


@pytest.mark.parametrize("name", CASES)
def test_numbers_give_numbers(name):
    schedule, reference = CASES[name]
    for step in STEPS:
        assert isinstance(schedule(step), float)
        assert schedule(step) == pytest.approx(reference(step), rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_tensors_give_the_same(name):
    schedule, reference = CASES[name]
    for step in STEPS:
        found = schedule(nt.tensor(np.float64(step)))
        assert float(found) == pytest.approx(reference(step), rel=1e-12)


@pytest.mark.parametrize("name", ["inverse square root", "cosine"])
def test_schedules_can_be_traced(name):
    graph = nt.trace(CASES[name][0], nt.tensor(np.float64(3))).graph
    assert [v.dtype for v in graph.outputs] == [np.float64]


def test_the_peak_is_where_the_warm_up_ends():
    schedule = CASES["inverse square root"][0]
    assert max(STEPS, key=schedule) == 10
    assert max(STEPS, key=CASES["cosine"][0]) == 10
    assert CASES["cosine"][0](10) == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.inverse_square_root(0), "d_model is at least 1, got 0"),
        (lambda: schedules.warmup_cosine(1.0, 0, 5), "warmup is at least 1, got 0"),
        (lambda: schedules.warmup_cosine(1.0, 5, 5), "5 is not above 5"),
    ],
)
def test_impossible_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
