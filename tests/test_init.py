"""Initial values: their bounds and deviations, and seeds."""

import math

import numpy as np
import pytest

import numtape as nt
from numtape import nn
from numtape.ir.types import ShapeError

BOUNDS = {  # of a weight (200, 100)
    "xavier_uniform_": (nn.init.xavier_uniform_, math.sqrt(6 / 300)),
    "kaiming_uniform_": (nn.init.kaiming_uniform_, math.sqrt(6 / 100)),
    "kaiming fan_out": (lambda t: nn.init.kaiming_uniform_(t, mode="fan_out"), math.sqrt(6 / 200)),
    "kaiming tanh": (
        lambda t: nn.init.kaiming_uniform_(t, nonlinearity="tanh"),
        5 / 3 * math.sqrt(3 / 100),
    ),
    "uniform_": (lambda t: nn.init.uniform_(t, -2, 2), 2.0),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_uniform_initialisers_fill_their_bounds(name):
    initialise, bound = BOUNDS[name]
    nt.random.seed(0)
    weight = nn.Parameter(np.empty((200, 100), np.float32))
    assert initialise(weight) is weight
    values = weight.numpy()
    assert bound * 0.99 < np.abs(values).max() <= np.float32(bound)
    assert abs(values.std() / (bound / math.sqrt(3)) - 1) < 0.02 and abs(values.mean()) < 0.02


@pytest.mark.parametrize(
    ("initialise", "deviation"),
    [
        (lambda t: nn.init.normal_(t, 0.0, 0.3), 0.3),
        (nn.init.xavier_normal_, math.sqrt(2 / 300)),
        (lambda t: nn.init.trunc_normal_(t, std=0.02), 0.02),
    ],
)
def test_normal_initialisers_have_their_deviation(initialise, deviation):
    nt.random.seed(0)
    values = initialise(nn.Parameter(np.empty((200, 100), np.float32))).numpy()
    assert abs(values.std() / deviation - 1) < 0.02


def test_a_truncated_normal_stays_inside():
    values = nn.init.trunc_normal_(nt.zeros((50, 50)) + 0, a=-0.5, b=1.0).numpy()
    assert values.min() >= -0.5 and values.max() <= 1.0 and values.max() > 0.95
    with pytest.raises(ValueError, match="lies in the tail"):
        nn.init.trunc_normal_(nt.zeros(3) + 0, a=8.0, b=9.0)


def test_constant_initialisers():
    weight = nn.Parameter(np.empty(3, np.float32))
    np.testing.assert_array_equal(nn.init.ones_(weight).numpy(), 1)
    np.testing.assert_array_equal(nn.init.zeros_(weight).numpy(), 0)


def test_defaults_of_linear_and_embedding():
    nt.random.seed(0)
    layer = nn.Linear(100, 300)
    assert 0.099 < np.abs(layer.weight.numpy()).max() <= 0.1
    assert 0.09 < np.abs(layer.bias.numpy()).max() <= 0.1
    assert abs(nn.Embedding(100, 100).weight.numpy().std() - 1) < 0.02


def test_a_seed_gives_both_dtypes_the_same_start():
    nt.random.seed(4)
    single = nn.Linear(3, 3).weight.numpy()
    nt.random.seed(4)
    double = nn.Linear(3, 3, dtype=np.float64).weight.numpy()
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_initialisers_name_what_they_cannot_do():
    with pytest.raises(ShapeError, match=r"a weight \(out, in\), not f32\[3\]"):
        nn.init.xavier_uniform_(nt.zeros(3))
    with pytest.raises(ValueError, match="'fan_in' or 'fan_out', not 'in'"):
        nn.init.kaiming_uniform_(nt.zeros((2, 2)), mode="in")
    with pytest.raises(ValueError, match=r"one of linear, sigmoid.*not 'gelu'"):
        nn.init.kaiming_uniform_(nt.zeros((2, 2)), nonlinearity="gelu")
