"""Exact mode trains as eager mode does: every module, model and optimizer, to the bit."""

import numpy as np
import pytest
from helpers import is_float
from test_exact import NEEDED, SQUARE, bits, drawn, exactly, placed

import numtape as nt
import numtape.compiler
from numtape import nn, optim
from numtape.nn.functional import cross_entropy
from numtape.passes import EXACT
from numtape.transformer import GPT, Transformer

NUMBERS = drawn(6, 5, 8)
INDICES = np.random.default_rng(0).integers(0, 8, (6, 5))
MODULES = {
    **{name: (getattr(nn, name), NUMBERS) for name in ("GELU", "Identity", "Mish", "ReLU")},
    **{name: (getattr(nn, name), NUMBERS) for name in ("SiLU", "Sigmoid", "Softmax", "Tanh")},
    "Dropout": (lambda: nn.Dropout(0.3), NUMBERS),
    "Embedding": (lambda: nn.Embedding(8, 4), INDICES),
    "LayerNorm": (lambda: nn.LayerNorm(8), NUMBERS),
    "RMSNorm": (lambda: nn.RMSNorm(8), NUMBERS),
    "Linear": (lambda: nn.Linear(8, 3), NUMBERS),
    "Sequential": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)), NUMBERS),
    "CrossEntropyLoss": (
        lambda: nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1),
        NUMBERS,
        INDICES,
    ),
    "MSELoss": (nn.MSELoss, NUMBERS, NUMBERS * 2),
}


def test_modules_are_all_tried():
    kinds = [n for n in nn.__all__ if isinstance(getattr(nn, n), type)]
    assert set(kinds) - {"Module", "ModuleList", "Parameter"} == set(MODULES)


@pytest.mark.parametrize("make, arrays", [(m, a) for m, *a in MODULES.values()], ids=MODULES)
def test_modules(make, arrays):
    for name, first in placed(arrays[0]):
        found = []
        for wrap in (lambda f: f, exactly):
            nt.random.seed(1)
            module = make()
            x = nt.Tensor(first, requires_grad=is_float(first))
            out = wrap(module)(x, *map(nt.Tensor, arrays[1:]))
            if out.requires_grad:
                (out * out).sum().backward()
            slopes = (p.grad for p in (x, *module.parameters()) if p.requires_grad)
            found.append(bits((out, *slopes)))
        assert found[0] == found[1], name


def trained(model, optimizer, loss, wrap):
    """Losses of three steps, and the parameters after them."""

    def step():
        value = loss(model)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value

    nt.random.seed(2)
    step = wrap(step)
    losses = [step().item() for _ in range(3)]
    return losses, [(n, p.numpy().tobytes()) for n, p in model.named_parameters()]


def predicted(model):
    return cross_entropy(model(INDICES[:, :-1]), INDICES[:, 1:])


def translated(model):
    return cross_entropy(model(INDICES, INDICES[:, :-1]), INDICES[:, 1:], ignore_index=0)


MODELS = {
    "GPT": (lambda **more: GPT(8, 8, 16, 2, 2, 0.2, **more), predicted),
    "Transformer": (
        lambda **more: Transformer(8, 8, d_model=16, heads=2, layers=2, d_ff=32, **more),
        translated,
    ),
}


@pytest.mark.parametrize("experts", [0, 3])
@pytest.mark.parametrize("make, loss", MODELS.values(), ids=MODELS)
def test_models_trained_with_dropout(make, loss, experts):
    runs = []
    for wrap in (lambda f: f, exactly):
        nt.random.seed(1)
        model = make(experts=experts)
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)
        runs.append(trained(model, optimizer, loss, wrap))
    assert runs[0] == runs[1]


OPTIMIZERS = [
    (optim.SGD, {}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.Adam, {"weight_decay": 0.1}),
    (optim.AdamW, {}),
]


def test_optimizers_are_all_tried():
    kinds = {k for k in map(optim.__dict__.get, optim.__all__) if isinstance(k, type)}
    assert kinds - {optim.Optimizer} == {kind for kind, _ in OPTIMIZERS}


@pytest.mark.parametrize("kind, settings", OPTIMIZERS)
def test_optimizers_of_parameters_that_are_views(kind, settings):
    loss = lambda model: (nn.functional.gelu(model(nt.Tensor(SQUARE.T))) ** 2).mean()
    runs = []
    for wrap in (lambda f: f, exactly):
        nt.random.seed(1)
        model = nn.Linear(50, 50)
        model.weight = nn.Parameter(SQUARE.T * 0.1)
        clipped = kind(model.parameters(), lr=0.05, **settings)
        runs.append(trained(model, clipped, loss, wrap))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("step", EXACT, ids=lambda p: p.name)
def test_a_pass_labelled_exact_is_exact_alone(step, monkeypatch):
    alone = tuple(p for p in EXACT if p is step or p.name in NEEDED)
    monkeypatch.setattr(numtape.compiler, "EXACT", alone)
    test_models_trained_with_dropout(*MODELS["Transformer"], experts=3)
