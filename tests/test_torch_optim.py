"""Optimizers, clipping and schedules step by step beside PyTorch's, eager and compiled."""

import math
from inspect import isfunction

import numpy as np
import pytest
from torch_peer import close, each_dtype, each_mode, run, torch

import numtape as nt
from fuzz.peers import as_torch
from numtape import nn, optim
from numtape.optim import schedules

STEPS = 100
SGD = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.1},
    {"lr": 0.05, "momentum": 0.9},
    {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
]
ADAM = [
    {"lr": 0.01},
    {"lr": 0.1, "betas": (0.8, 0.98), "eps": 1e-3},
    {"lr": 0.01, "weight_decay": 0.2},
]
CASES = [
    *(("SGD", settings) for settings in SGD),
    *((kind, settings) for kind in ("Adam", "AdamW") for settings in ADAM),
]
IDS = [f"{kind}-{'-'.join(settings)}" for kind, settings in CASES]
# A regression whose inputs differ at every step, so that the gradients do.
RNG = np.random.default_rng(0)
INPUTS, ANSWERS = RNG.normal(size=(STEPS, 8, 3)), RNG.normal(size=(STEPS, 8, 2))
STARTS = (RNG.normal(size=(2, 3)), RNG.normal(size=2))


def trained(kind, settings, dtype, mode, clip=None):
    """numtape's parameters after every step, and the norms that clipping has found."""
    weight, bias = leaves = [nn.Parameter(p.astype(dtype)) for p in STARTS]
    optimizer = getattr(optim, kind)(leaves, **settings)

    def step(x, y):
        optimizer.zero_grad()
        loss = ((x @ weight.T + bias).tanh() - y).square().mean()
        loss.backward()
        norm = loss if clip is None else optim.clip_grad_norm_(leaves, clip)
        optimizer.step()
        return norm

    replay = run(step, mode)
    for x, y in zip(INPUTS.astype(dtype), ANSWERS.astype(dtype), strict=True):
        norm = replay(nt.Tensor(x), nt.Tensor(y)).item()
        yield norm, [p.numpy().copy() for p in leaves]


def trained_by_torch(kind, settings, dtype, clip=None, schedule=None):
    """The same of PyTorch's."""
    weight, bias = leaves = [as_torch(p.astype(dtype), wanted=True) for p in STARTS]
    optimizer = getattr(torch.optim, kind)(leaves, **settings)
    scheduler = schedule and torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for x, y in zip(INPUTS.astype(dtype), ANSWERS.astype(dtype), strict=True):
        optimizer.zero_grad()
        loss = ((as_torch(x) @ weight.T + bias).tanh() - as_torch(y)).square().mean()
        loss.backward()
        norm = loss if clip is None else torch.nn.utils.clip_grad_norm_(leaves, clip)
        optimizer.step()
        if scheduler:
            scheduler.step()
        yield norm.item(), [p.detach().numpy().copy() for p in leaves]


def compare(mine, theirs, dtype):
    for step, (found, expected) in enumerate(zip(mine, theirs, strict=True), start=1):
        close(found[0], expected[0], "training step", dtype, f"step {step}")
        for p, q in zip(found[1], expected[1], strict=True):
            close(p, q, "training step", dtype, f"step {step}")


def test_every_optimizer_is_compared():
    kinds = {k for k in optim.__all__ if isinstance(getattr(optim, k), type)} - {"Optimizer"}
    assert kinds == {kind for kind, _ in CASES}


@each_mode
@each_dtype
@pytest.mark.parametrize(("kind", "settings"), CASES, ids=IDS)
def test_a_hundred_steps(kind, settings, dtype, mode):
    mine = trained(kind, settings, dtype, mode)
    compare(mine, trained_by_torch(kind, settings, dtype), dtype)


@each_mode
@each_dtype
@pytest.mark.parametrize("largest", [0.05, 0.4, 100.0])
def test_a_hundred_clipped_steps(largest, dtype, mode):
    settings = {"lr": 0.05, "momentum": 0.9}
    theirs = list(trained_by_torch("SGD", settings, dtype, largest))
    clipped = sum(norm > largest for norm, _ in theirs)
    assert {0.05: clipped == STEPS, 0.4: 0 < clipped < STEPS, 100.0: clipped == 0}[largest]
    compare(trained("SGD", settings, dtype, mode, largest), theirs, dtype)


# ---- schedules ----------------------------------------------------------------------------


def _cosine_rates(lr, warmup, total, minimum):
    """PyTorch's linear warm-up from 0, then its cosine: the rate of each step from 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, minimum)
    rates = [lr * step / warmup for step in range(1, warmup)]
    for _ in range(total - warmup + 1):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates + [minimum] * (STEPS - len(rates))


def _lambda_rates(scale, rule):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=scale)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rule)
    rates = []
    for _ in range(STEPS):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


# PyTorch counts steps from 0, numtape and the papers from 1.
SCHEDULES = {
    "constant": (schedules.constant(0.3), lambda: _lambda_rates(0.3, lambda i: 1.0)),
    "warm-up of Vaswani et al.": (
        schedules.inverse_square_root(512, warmup=30, factor=2.0),
        lambda: _lambda_rates(2.0 * 512**-0.5, lambda i: min((i + 1) ** -0.5, (i + 1) * 30**-1.5)),
    ),
    "warm-up and cosine": (
        schedules.warmup_cosine(0.5, 10, 80, minimum=0.1),
        lambda: _cosine_rates(0.5, 10, 80, 0.1),
    ),
}


def test_every_schedule_is_compared():
    own = {n for n, f in vars(schedules).items() if isfunction(f) and not n.startswith("_")}
    assert own == {schedule.__qualname__.split(".")[0] for schedule, _ in SCHEDULES.values()}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_of_a_hundred_steps(name):
    schedule, theirs = SCHEDULES[name]
    for step, rate in enumerate(theirs(), start=1):
        assert math.isclose(schedule(step), rate, rel_tol=1e-12), step
        on_a_tape = schedule(nt.tensor(float(step), np.float64))
        close(on_a_tape, rate, "learning rate", np.float64, f"step {step}")


@each_mode
@each_dtype
def test_a_hundred_steps_along_a_schedule(dtype, mode):
    rule = lambda i: min((i + 1) ** -0.5, (i + 1) * 30**-1.5)
    scale = 64**-0.5
    mine = trained("AdamW", {"lr": schedules.inverse_square_root(64, warmup=30)}, dtype, mode)
    compare(mine, trained_by_torch("AdamW", {"lr": scale}, dtype, schedule=rule), dtype)
