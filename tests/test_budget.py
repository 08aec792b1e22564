"""Which plan a budget of memory chooses: the cheapest of those that keep to it."""

import numpy as np
import pytest
from programs import training_step

import numtape as nt
from numtape import nn, optim
from numtape.transformer import GPT

X = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)


def perceptron():
    """Layers that are all alike: many wishes for memory are granted by the same plan."""
    nt.random.seed(0)
    parts = [part for _ in range(6) for part in (nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU())]
    model = nn.Sequential(*parts)
    return model, (X, np.arange(256) % 64)


def language_model():
    nt.random.seed(0)
    return GPT(30, 64, 32, heads=4, layers=3), (np.zeros((8, 64), int),) * 2


def a_step(model):
    return training_step(model, optim.AdamW(model.parameters(), lr=3e-3))


@pytest.mark.parametrize("make", [perceptron, language_model], ids=lambda f: f.__name__)
def test_a_smaller_budget_costs_more_and_little_less_costs_little(make):
    model, arguments = make()
    step = a_step(model)
    whole = nt.compile(step).tape(*arguments).memory.arena
    budget, shares = whole, []
    for part in (1.0, 0.97, 0.94, 0.9, 0.8):
        budget = min(budget - 1, int(part * whole))
        tape = nt.compile(step, memory=budget).tape(*arguments)
        assert tape.memory.arena <= budget
        shares.append(tape.recomputed.share)
        budget = tape.memory.arena
    assert shares == sorted(shares)
    assert shares[0] < 0.04
    assert shares[-1] < 0.15


def test_what_a_budget_costs_is_counted_by_kernel():
    model, arguments = language_model()
    step = a_step(model)
    whole = nt.compile(step).tape(*arguments)
    assert str(whole.recomputed) == "nothing is recomputed"
    for part in (0.97, 0.9):
        cost = nt.compile(step, memory=int(part * whole.memory.arena)).tape(*arguments).recomputed
        assert cost.nodes > 0
        assert cost.flops > 0
        assert str(cost).startswith(f"{cost.nodes} kernels recomputed: ")
