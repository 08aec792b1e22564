"""The feed-forward network and the dense mixture of experts that can replace it."""

import math

import numpy as np
import pytest

import numtape as nt
from numtape.transformer import GPT, FeedForward, MixtureOfExperts, Transformer
from numtape.transformer.feed_forward import ACTIVATIONS

C, F, E = 6, 10, 3


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


REFERENCES = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 4, C))


def linear(layer, x):
    return x @ layer.weight.numpy().T + layer.bias.numpy()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forward_is_its_definition(x, activation):
    network = FeedForward(C, F, activation=activation).double()
    expected = linear(network.down, REFERENCES[activation](linear(network.up, x)))
    np.testing.assert_allclose(network(x).numpy(), expected, atol=1e-12)


def test_feed_forward_drops_hidden_units_in_training_only(x):
    network = FeedForward(C, F, dropout=0.5)
    assert not np.array_equal(network(x).numpy(), network(x).numpy())
    network.eval()
    assert np.array_equal(network(x).numpy(), network(x).numpy())


def test_a_mixture_is_the_gated_sum_of_its_experts(x):
    mixture = MixtureOfExperts(C, F, E, activation="gelu").double()
    for layer in (mixture.up, mixture.down):
        nt.nn.init.normal_(layer.bias)
    scores = x @ mixture.gate.weight.numpy().T
    share = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.zeros_like(x)
    for e in range(E):
        hidden = gelu(x @ mixture.up.weight.numpy()[e] + mixture.up.bias.numpy()[e])
        answer = hidden @ mixture.down.weight.numpy()[e] + mixture.down.bias.numpy()[e]
        expected += share[..., e : e + 1] * answer
    np.testing.assert_allclose(mixture(x).numpy(), expected, atol=1e-12)


def test_a_mixture_of_one_is_a_feed_forward(x):
    mixture, network = MixtureOfExperts(C, F, 1), FeedForward(C, F)
    network.up.weight.assign(mixture.up.weight[0].T.detach())
    network.down.weight.assign(mixture.down.weight[0].T.detach())
    nt.nn.init.zeros_(network.up.bias)
    nt.nn.init.zeros_(network.down.bias)
    x = x.astype(np.float32)
    np.testing.assert_allclose(mixture(x).numpy(), network(x).numpy(), atol=1e-6)


def test_every_expert_and_the_gate_learn(x):
    mixture = MixtureOfExperts(C, F, E, activation="gelu")
    (mixture(x) ** 2).sum().backward()
    for name, parameter in mixture.named_parameters():
        size = np.abs(parameter.grad.numpy()).reshape(E, -1).max(1)
        assert (size > 0).all(), name


def test_gradients_of_a_mixture_by_finite_differences(x):
    mixture = MixtureOfExperts(C, F, E, activation="silu").double()

    def loss():
        return (mixture(x) ** 2).sum()

    loss().backward()
    rng = np.random.default_rng(1)
    for name, parameter in mixture.named_parameters():
        place = tuple(int(rng.integers(n)) for n in parameter.shape)
        values = []
        for step in (1e-6, -1e-6):
            parameter.numpy()[place] += step
            values.append(loss().item())
            parameter.numpy()[place] -= step
        slope = (values[0] - values[1]) / 2e-6
        assert parameter.grad.numpy()[place] == pytest.approx(slope, rel=1e-5, abs=1e-7), name


def test_a_compiled_mixture_equals_the_eager_one(x):
    mixture = MixtureOfExperts(C, F, E)
    x = x.astype(np.float32)
    compiled = nt.compile(mixture)(x).numpy()
    np.testing.assert_allclose(compiled, mixture(x).numpy(), atol=1e-6)


def test_both_models_take_experts():
    ids = np.array([[1, 2, 3]])
    model = Transformer(7, 7, 8, 2, 1, 16, experts=E, max_length=8)
    assert model(ids, ids).shape == (1, 3, 7)
    assert model.encoder.layers[0].feed_forward.up.weight.shape == (E, 8, 16)
    gpt = GPT(7, 8, 8, 2, 1, experts=E)
    assert gpt(ids).shape == (1, 3, 7)
    assert gpt.layers[0].feed_forward.up.bias is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MixtureOfExperts(C, F, 0), "experts is a positive whole number, got 0"),
        (lambda: MixtureOfExperts(C, F, 2, activation="x"), "none of .*'gelu'"),
        (lambda: FeedForward(C, F, activation="tanh"), "'tanh' is none of"),
        (lambda: Transformer(7, 7, 8, 2, 1, 16, experts=-1), "experts is 0"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
