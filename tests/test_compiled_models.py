"""Every module and whole model, eager against compiled: values, gradients, training steps.

Dropout is on throughout. A module without an example here fails.
"""

import copy
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import numtape as nt
from numtape import nn, optim, transformer
from numtape.transformer import GPT, Transformer
from numtape.transformer.mixture import ExpertLinear

IDS = np.array([[3, 1, 4, 1], [5, 2, 6, 0]])
ALLOWED = np.array([[[[True, True, False]]], [[[True, False, True]]]])
BLOCK = {"d_model": 8, "heads": 2, "d_ff": 12, "dropout": 0.25}
TOLERANCES = {np.float32: 2e-5, np.float64: 1e-11}


@dataclass(frozen=True)
class Example:
    """A module, the shapes of its float inputs, and how it is called on them."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = ((2, 3, 8),)
    call: Callable[..., Any] = lambda module, *xs: module(*xs)

    def inputs(self, dtype, gradients=True):
        rng = np.random.default_rng(3)
        arrays = [rng.normal(size=shape).astype(dtype) for shape in self.shapes]
        return [nt.Tensor(a, requires_grad=gradients) for a in arrays]

    def module(self, dtype):
        nt.random.seed(1)
        made = self.make().to(dtype)
        rng = np.random.default_rng(4)
        for parameter in made.parameters():  # none of them 0 or 1, where mistakes hide
            parameter.assign(parameter.numpy() + rng.normal(0, 0.1, parameter.shape).astype(dtype))
        return made


def encoder_layers():
    return [transformer.EncoderLayer(**BLOCK, pre_norm=bool(i), experts=2 * i) for i in range(2)]


def decoder_layers():
    return [transformer.DecoderLayer(**BLOCK, pre_norm=bool(i), experts=2 * i) for i in range(2)]


def attend(module, x):
    return module(x, mask=ALLOWED, causal=True)


def cross(module, x, memory):
    return module(x, memory, ALLOWED)


TWO = ((2, 4, 8), (2, 3, 8))
EXAMPLES = {
    nn.Linear: [Example(lambda: nn.Linear(8, 5)), Example(lambda: nn.Linear(8, 5, bias=False))],
    nn.Embedding: [
        Example(lambda: nn.Embedding(7, 5), (), lambda m: m(IDS)),
        Example(lambda: nn.Embedding(7, 5, padding_idx=1), (), lambda m: m(IDS)),
    ],
    nn.LayerNorm: [Example(lambda: nn.LayerNorm(8)), Example(lambda: nn.LayerNorm(8, bias=False))],
    nn.RMSNorm: [Example(lambda: nn.RMSNorm(8))],
    nn.Dropout: [Example(lambda: nn.Dropout(0.25)), Example(lambda: nn.Dropout(1.0))],
    nn.Identity: [Example(nn.Identity)],
    nn.ReLU: [Example(nn.ReLU)],
    nn.SiLU: [Example(nn.SiLU)],
    nn.GELU: [Example(nn.GELU), Example(lambda: nn.GELU("tanh"))],
    nn.Mish: [Example(nn.Mish)],
    nn.Sigmoid: [Example(nn.Sigmoid)],
    nn.Tanh: [Example(nn.Tanh)],
    nn.Softmax: [Example(nn.Softmax), Example(lambda: nn.Softmax(1))],
    nn.Sequential: [
        Example(lambda: nn.Sequential(nn.Linear(8, 5), nn.Dropout(0.25), nn.Tanh(), nn.RMSNorm(5)))
    ],
    nn.CrossEntropyLoss: [
        Example(nn.CrossEntropyLoss, ((2, 4, 7),), lambda m, x: m(x, IDS)),
        Example(
            lambda: nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.1, reduction="none"),
            ((2, 4, 7),),
            lambda m, x: m(x, IDS),
        ),
    ],
    nn.MSELoss: [
        Example(nn.MSELoss, ((3, 4), (3, 4))),
        Example(lambda: nn.MSELoss(reduction="none"), ((3, 4), (3, 4))),
    ],
    transformer.MultiHeadAttention: [
        Example(lambda: transformer.MultiHeadAttention(8, 2, 0.25), call=attend),
        Example(lambda: transformer.MultiHeadAttention(8, 2), call=attend),
        Example(lambda: transformer.MultiHeadAttention(8, 2, 0.25, cross=True), TWO, cross),
    ],
    transformer.FeedForward: [
        Example(lambda a=a: transformer.FeedForward(8, 12, 0.25, a))
        for a in ("relu", "gelu", "gelu_tanh", "silu", "mish")
    ],
    transformer.MixtureOfExperts: [Example(lambda: transformer.MixtureOfExperts(8, 12, 3, 0.25))],
    ExpertLinear: [Example(lambda: ExpertLinear(3, 8, 5), ((6, 8),))],
    transformer.Residual: [
        Example(lambda p=p: transformer.Residual(8, 0.25, p), call=lambda m, x: m(x, nt.tanh))
        for p in (False, True)
    ],
    transformer.SinusoidalPositions: [
        Example(lambda: transformer.SinusoidalPositions(6, 8), (), lambda m: m(4)),
    ],
    transformer.LearnedPositions: [
        Example(lambda: transformer.LearnedPositions(6, 8), (), lambda m: m(4)),
        Example(lambda: transformer.LearnedPositions(6, 8), (), lambda m: m(2, np.array([3]))),
    ],
    transformer.EncoderLayer: [
        Example(lambda layer=layer: layer, call=attend) for layer in encoder_layers()
    ],
    transformer.DecoderLayer: [
        Example(lambda layer=layer: layer, TWO, cross) for layer in decoder_layers()
    ],
    transformer.Encoder: [
        Example(
            lambda: transformer.Encoder(encoder_layers(), nn.LayerNorm(8)),
            call=lambda m, x: m(x, ALLOWED),
        )
    ],
    transformer.Decoder: [
        Example(lambda: transformer.Decoder(decoder_layers(), nn.LayerNorm(8)), TWO, cross)
    ],
}

SIZES = {"d_model": 8, "heads": 2, "layers": 1, "dropout": 0.25}


def translation(**options):
    return Example(
        lambda: Transformer(7, 7, **SIZES | options, d_ff=12, max_length=6),
        (),
        lambda model: model(IDS, IDS[:, :3]),
    )


def language(**options):
    return Example(lambda: GPT(7, 6, **SIZES | options), (), lambda model: model(IDS))


MODELS = {
    "post-norm": translation(layers=2),
    "pre-norm": translation(layers=2, pre_norm=True, activation="gelu"),
    "tied": translation(tie_embeddings=True, activation="silu"),
    "all tied": translation(tie_embeddings="all", pre_norm=True, activation="mish"),
    "translation by experts": translation(experts=2, activation="gelu_tanh"),
    "GPT": language(layers=2),
    "GPT with biases": language(bias=True, activation="gelu_tanh"),
    "GPT by experts": language(experts=3),
}
EXAMPLES |= {Transformer: [MODELS["post-norm"]], GPT: [MODELS["GPT"]]}
CASES = MODELS | {
    f"{kind.__name__}{i}": example
    for kind, examples in EXAMPLES.items()
    for i, example in enumerate(examples)
    if kind not in (Transformer, GPT)
}
each_case = pytest.mark.parametrize("example", CASES.values(), ids=CASES)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=["float32", "float64"])


def modules_of(package):
    """The public modules that are defined anywhere in a package."""
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        for value in vars(importlib.import_module(found.name)).values():
            is_module = isinstance(value, type) and issubclass(value, nn.Module)
            if is_module and not value.__name__.startswith("_"):
                yield value


def test_every_module_has_an_example():
    found = {*modules_of(nn), *modules_of(transformer)}
    complete = {kind for kind in found if kind.forward is not nn.Module.forward}
    assert len(complete) >= 27
    assert complete <= EXAMPLES.keys()


# ---- one call and its gradients ----------------------------------------------------------------


def answers(example, module, wrap, dtype):
    """What a call gives, then the gradients of the inputs and of all parameters, by name."""
    xs = example.inputs(dtype)
    nt.random.seed(2)
    out = wrap(lambda *xs: example.call(module, *xs))(*xs)
    found = {"result": out.numpy()}
    if out.requires_grad:
        weights = np.random.default_rng(5).normal(size=out.shape)
        (out * nt.Tensor(weights.astype(dtype))).sum().backward()
    named = [*((f"input {i}", x) for i, x in enumerate(xs)), *module.named_parameters()]
    return found | {name: t.grad.numpy() for name, t in named if t.grad is not None}


def compare(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        if tolerance is None:
            np.testing.assert_array_equal(found[name], array, err_msg=name)
        else:
            np.testing.assert_allclose(found[name], array, tolerance, tolerance, err_msg=name)


@each_dtype
@each_case
def test_values_and_gradients(example, dtype):
    module = example.module(dtype)
    expected = answers(example, copy.deepcopy(module), lambda f: f, dtype)
    assert expected["result"].dtype == dtype
    assert len(expected) == 1 + len(example.shapes) + len(list(module.parameters()))
    exact = answers(example, copy.deepcopy(module), lambda f: nt.compile(f, exact=True), dtype)
    compare(exact, expected, None)
    free = answers(example, copy.deepcopy(module), nt.compile, dtype)
    compare(free, expected, TOLERANCES[dtype])


# ---- whole training steps ----------------------------------------------------------------------


def trained(example, module, wrap, dtype):
    """Losses, the input gradients of each step, then parameters and optimizer state."""
    # With a large eps: without, what is 0 but for rounding would move by whole steps.
    optimizer = optim.AdamW(module.parameters(), lr=1e-2, eps=1e-2)
    xs = example.inputs(dtype)

    @wrap
    def step(*xs):
        loss = example.call(module, *xs).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss, [x.grad for x in xs]

    nt.random.seed(2)
    found = {}
    for i in range(3):
        loss, gradients = step(*xs)
        arrays = [loss, *gradients]
        found |= {f"step {i}: {j}": a.numpy().copy() for j, a in enumerate(arrays)}
        for x in xs:
            x.grad = None
    return found | module.state_dict() | {f"of {k}": a for k, a in optimizer.state_dict().items()}


@each_dtype
@each_case
def test_training_steps(example, dtype):
    module = example.module(dtype)
    if not list(module.parameters()):
        return
    expected = trained(example, copy.deepcopy(module), lambda f: f, dtype)
    exact = trained(example, copy.deepcopy(module), lambda f: nt.compile(f, exact=True), dtype)
    compare(exact, expected, None)
    free = trained(example, copy.deepcopy(module), nt.compile, dtype)
    compare(free, expected, TOLERANCES[dtype])


# ---- finite differences ------------------------------------------------------------------------


@pytest.mark.parametrize("example", MODELS.values(), ids=MODELS)
def test_slopes_of_whole_models_along_random_directions(example):
    model = example.module(np.float64)
    parameters = list(model.parameters())
    target = np.roll(IDS, -1, 1)

    def loss():
        nt.random.seed(6)  # the same entries are dropped
        logits = example.call(model)
        return nn.functional.cross_entropy(
            logits, target[:, : logits.shape[1]], ignore_index=0, label_smoothing=0.1
        )

    loss().backward()
    rng = np.random.default_rng(7)
    start = [p.numpy().copy() for p in parameters]

    def at(distance, direction):
        for p, here, d in zip(parameters, start, direction, strict=True):
            p.assign(here + distance * d)
        with nt.no_grad():
            return loss().item()

    for _ in range(5):
        direction = [rng.normal(size=p.shape) for p in parameters]
        slope = (at(1e-6, direction) - at(-1e-6, direction)) / 2e-6
        pairs = zip(parameters, direction, strict=True)
        found = sum((p.grad.numpy() * d).sum() for p, d in pairs)
        assert found == pytest.approx(slope, rel=1e-6, abs=1e-8)
