"""Whole models beside PyTorch's with the same weights: logits, all gradients, training."""

import numpy as np
import pytest
from torch_models import EncoderDecoder, LanguageModel, load
from torch_peer import close, each_dtype, each_mode, run, torch

import numtape as nt
from fuzz.peers import as_torch
from numtape import nn, optim
from numtape.transformer import GPT, Transformer

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")

RNG = np.random.default_rng(0)
SRC = np.array([[5, 3, 9, 2, 4, 0, 0], [1, 2, 3, 4, 5, 6, 7], [8, 0, 0, 0, 0, 0, 0]])
TGT = np.array([[1, 4, 6, 2, 0], [1, 9, 8, 7, 2], [1, 2, 0, 0, 0]])
NEXT = np.array([[4, 6, 2, 0, 0], [9, 8, 7, 2, 3], [2, 0, 0, 0, 0]])
TEXT = RNG.integers(0, 11, (3, 41))  # longer than one block of causal attention
TRANSLATIONS = {
    "post-norm": {},
    "pre-norm": {"pre_norm": True},
    "gelu and one embedding": {"activation": "gelu", "tie_embeddings": "all"},
}
STEPS = 20


def translation(name, dtype):
    nt.random.seed(1)
    model = Transformer(10, 10, 16, 4, 2, 24, 0.0, **TRANSLATIONS[name]).to(dtype)
    return model, EncoderDecoder(model), (SRC, TGT), NEXT, {"label_smoothing": 0.1}


def language_model(bias, dtype):
    nt.random.seed(2)
    model = GPT(11, 40, 16, 4, 2, bias=bias).to(dtype)
    return model, LanguageModel(model), (TEXT[:, :-1],), TEXT[:, 1:], {}


MODELS = {
    **{name: lambda d, n=name: translation(n, d) for name in TRANSLATIONS},
    "GPT": lambda d: language_model(False, d),
    "GPT with biases": lambda d: language_model(True, d),
}


@pytest.fixture(params=MODELS)
def models(request, dtype):
    """Both models with the same weights, none of them 0 or 1; inputs, targets and the losses."""
    mine, theirs, inputs, target, settings = MODELS[request.param](dtype)
    rng = np.random.default_rng(3)
    for p in mine.parameters():
        p.assign((p.numpy() + rng.normal(0.0, 0.1, p.shape)).astype(dtype))
    load(theirs, mine)
    own = nn.CrossEntropyLoss(ignore_index=0, **settings)
    other = torch.nn.CrossEntropyLoss(ignore_index=0, **settings)
    loss = lambda: own(mine(*inputs), target)
    held = tuple(map(as_torch, inputs))
    their_loss = lambda: other(theirs(*held).flatten(0, 1), as_torch(target).flatten())
    return mine, theirs, inputs, loss, their_loss


@each_mode
@each_dtype
def test_logits(models, dtype, mode):
    mine, theirs, inputs, *_ = models
    expected = theirs(*map(as_torch, inputs))
    close(run(mine, mode)(*inputs), expected, "logits of a model", dtype)


@each_mode
@each_dtype
def test_gradients_of_all_parameters(models, dtype, mode):
    mine, theirs, _, loss, their_loss = models
    found, expected = run(loss, mode)(), their_loss()
    close(found, expected, "loss of a model", dtype)
    found.backward()
    expected.backward()
    for p, held in theirs.pairs(mine):
        gradient = np.concatenate([h.grad.numpy() for h in held])
        close(gradient, p.grad, "gradient of a model", dtype)


@each_mode
@each_dtype
def test_losses_of_twenty_steps(models, dtype, mode):
    mine, theirs, _, loss, their_loss = models
    settings = {"lr": 3e-3, "weight_decay": 0.1}
    optimizer = optim.AdamW(mine.parameters(), **settings)
    their_optimizer = torch.optim.AdamW(theirs.parameters(), **settings)

    def step():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value

    def their_step():
        their_optimizer.zero_grad()
        value = their_loss()
        value.backward()
        their_optimizer.step()
        return value.item()

    replay = run(step, mode)
    found = [replay().item() for _ in range(STEPS)]
    expected = [their_step() for _ in range(STEPS)]
    assert found[-1] < found[0]
    close(found, expected, "losses of twenty steps", dtype)
