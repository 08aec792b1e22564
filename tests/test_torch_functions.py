"""Functions made of several operations, beside PyTorch's: values and first gradients."""

from inspect import isfunction

import numpy as np
import pytest
from torch_peer import close, each_dtype, each_mode, run, torch

import numtape as nt
from fuzz.peers import as_torch, pulled
from numtape import functions
from numtape.ir.op import REGISTRY

F = torch.nn.functional
ONE_ZERO = np.array([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 1, 1]], np.float32)
INDEX = np.array([2, 0, 2, 1])
FUNCTIONS = {
    "clip": (lambda x: nt.clip(x, -0.5, 0.7), lambda x: x.clamp(-0.5, 0.7)),
    "dot": (lambda x: nt.dot(x, x.T), lambda x: x @ x.T),
    "expand_dims": (lambda x: nt.expand_dims(x, 1), lambda x: x.unsqueeze(1)),
    "flip": (lambda x: nt.flip(x, 1), lambda x: x.flip(1)),
    "index_add": (
        lambda x: nt.index_add(x, INDEX, x[INDEX] * 2.0),
        lambda x: x.index_add(0, as_torch(INDEX), x[INDEX] * 2.0),
    ),
    "mean": (lambda x: nt.mean(x, 1), lambda x: x.mean(1)),
    "moveaxis": (lambda x: nt.moveaxis(x, 0, 1), lambda x: x.movedim(0, 1)),
    "outer": (lambda x: nt.outer(x[0], x[1]), lambda x: torch.outer(x[0], x[1])),
    "pad": (lambda x: nt.pad(x, ((1, 0), (2, 1)), 3.0), lambda x: F.pad(x, (2, 1, 1, 0), value=3)),
    "prod": (lambda x: nt.prod(x, 1), lambda x: x.prod(1)),
    "prod of a 0": (
        lambda x: nt.prod(x * ONE_ZERO, 1),
        lambda x: (x * as_torch(ONE_ZERO)).prod(1),
    ),
    "ravel": (nt.ravel, torch.ravel),
    "repeat": (lambda x: nt.repeat(x, 2, 1), lambda x: x.repeat_interleave(2, 1)),
    "round": (lambda x: nt.round(x, 1), lambda x: x.round(decimals=1)),
    "split": (lambda x: nt.split(x, 2, 1)[1], lambda x: x.tensor_split(2, 1)[1]),
    "squeeze": (lambda x: nt.squeeze(x[:1]), lambda x: x[:1].squeeze()),
    "stack": (lambda x: nt.stack([x, x.sin()], 1), lambda x: torch.stack([x, x.sin()], 1)),
    "std": (lambda x: nt.std(x, 0, ddof=1), lambda x: x.std(0)),
    "swapaxes": (lambda x: nt.swapaxes(x, 0, 1), lambda x: x.swapaxes(0, 1)),
    "tile": (lambda x: nt.tile(x, (2, 3)), lambda x: x.tile(2, 3)),
    "tril": (lambda x: nt.tril(x, 1), lambda x: x.tril(1)),
    "triu": (lambda x: nt.triu(x, -1), lambda x: x.triu(-1)),
    "var": (lambda x: nt.var(x, 0), lambda x: x.var(0, correction=0)),
}
# Operations under another name, and what makes tensors or gives no gradient.
OTHERWISE = {
    *(
        "abs",
        "concatenate",
        "power",
        "asarray",
        "full",
        "zeros",
        "zeros_like",
        "ones",
        "ones_like",
    ),
    *("any", "all"),
}


def test_every_function_has_a_peer():
    own = {name for name, f in vars(functions).items() if isfunction(f) and name in nt.__all__}
    unknown = own - REGISTRY.keys() - FUNCTIONS.keys() - OTHERWISE
    assert not unknown, f"add {sorted(unknown)} to FUNCTIONS"


@each_mode
@each_dtype
@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_and_gradient(name, dtype, mode):
    mine, theirs = FUNCTIONS[name]
    x = np.random.default_rng(5).uniform(-1.5, 1.5, (3, 4)).astype(dtype)
    held = as_torch(x, wanted=True)
    value = run(mine, mode)(nt.Tensor(x))
    close(value, theirs(held), "value of an op", dtype)
    weights = np.random.default_rng(6).uniform(0.5, 1.5, value.shape).astype(dtype)
    gradient = nt.grad(lambda x: (mine(x) * nt.Tensor(weights)).sum())
    (expected,) = pulled(lambda x: (theirs(x) * as_torch(weights)).sum(), [held])
    close(run(gradient, mode)(nt.Tensor(x)), expected, "gradient of an op", dtype)


def test_a_bound_that_is_met_shares_the_gradient():
    """As equal entries do under maximum and minimum; PyTorch's clamp passes all of it."""
    x = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    found = nt.grad(lambda x: nt.clip(x, 0.0, 1.0).sum())(nt.Tensor(x))
    (expected,) = pulled(lambda x: x.clamp(0.0, 1.0).sum(), [as_torch(x, wanted=True)])
    assert found.numpy().tolist() == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert expected.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
