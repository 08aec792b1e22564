"""The decoder-only model: causality, options, initial values, gradients, tapes."""

import math

import numpy as np
import pytest
from helpers import check_slopes

import numtape as nt
from numtape import nn, optim
from numtape.ir.types import DtypeError, ShapeError
from numtape.transformer import GPT, GPTConfig

IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
VARIANTS = [
    {},
    {"bias": True, "activation": "gelu_tanh"},
    {"experts": 2},
    {"activation": "silu", "d_ff": 12},
]


def tiny(**options):
    return GPT(**{"vocab": 11, "context": 8, "d_model": 8, "heads": 2, "layers": 2, **options})


def loss_of(model):
    return nn.functional.cross_entropy(model(IDS[:, :-1]), IDS[:, 1:])


def test_logits_for_every_position():
    logits = tiny()(IDS)
    assert logits.shape == (2, 5, 11) and logits.dtype == np.float32


def test_no_position_sees_a_later_one():
    model = tiny()
    changed = IDS.copy()
    changed[:, 3] = 0
    before, after = model(IDS).numpy(), model(changed).numpy()
    assert np.array_equal(before[:, :3], after[:, :3])
    assert not np.array_equal(before[:, 3:], after[:, 3:])


def test_the_head_shares_the_embedding_and_bias_is_an_option():
    model = tiny()
    assert model.head.weight is model.embedding.weight
    names = [name for name, _ in model.named_parameters()]
    assert names[:3] == ["embedding.weight", "positions.weight", "layers.0.attention.qkv.weight"]
    assert not any(name.endswith("bias") for name in names)
    biases = [n for n, _ in tiny(bias=True).named_parameters() if n.endswith("bias")]
    assert "layers.1.attention_residual.norm.bias" in biases and "norm.bias" in biases


def test_it_has_the_size_of_gpt_2_by_its_formula():
    c, layers, context = 16, 3, 8
    model = GPT(11, context, c, 4, layers, bias=True)
    block = (3 * c * c + 3 * c) + (c * c + c) + (8 * c * c + 5 * c) + 4 * c
    assert sum(p.size for p in model.parameters()) == layers * block + 2 * c + (11 + context) * c


def test_initial_values():
    nt.random.seed(0)
    model = GPT(64, 32, 64, 4, 4, bias=True)
    for name, parameter in model.named_parameters():
        values = parameter.numpy()
        if name.endswith("bias"):
            assert not values.any(), name
        elif "norm" in name:
            assert (values == 1).all(), name
        else:
            residual = name.endswith(("attention.out.weight", "down.weight"))
            std = 0.02 / math.sqrt(8) if residual else 0.02
            assert values.std() == pytest.approx(std, rel=0.08), name
    # Untrained, it knows nothing: the loss is that of a uniform guess.
    ids = np.random.default_rng(0).integers(0, 64, (4, 32))
    loss = nn.functional.cross_entropy(model(ids[:, :-1]), ids[:, 1:])
    assert loss.item() == pytest.approx(math.log(64), abs=0.1)


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_by_finite_differences(options):
    nt.random.seed(2)
    model = tiny(**options)
    for parameter in model.parameters():  # away from the tiny initial values
        parameter.assign(parameter.numpy() * 10)
    model.double()
    check_slopes(model, lambda: loss_of(model), places=8, absolute=1e-7)


@pytest.mark.parametrize("options", VARIANTS)
def test_compiled_equals_eager(options):
    model = tiny(**options)
    expected = model(IDS).numpy()
    np.testing.assert_allclose(nt.compile(model)(IDS).numpy(), expected, atol=2e-6)
    assert np.array_equal(nt.compile(model, exact=True)(IDS).numpy(), expected)


def test_a_compiled_step_learns_a_text_by_heart():
    nt.random.seed(1)
    model = tiny(d_model=16, dropout=0.05)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    @nt.compile
    def step(ids):
        loss = nn.functional.cross_entropy(model(ids[:, :-1]), ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(IDS).item() for _ in range(60)]
    assert losses[0] > 2.0 and losses[-1] < 0.2
    assert len(step.tapes) == 1


def test_a_configuration_makes_the_trip_through_a_dictionary():
    model = tiny(bias=True, experts=2, d_ff=12)
    again = GPT.from_config(GPTConfig.from_dict(model.config.to_dict()))
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    assert np.array_equal(again(IDS).numpy(), model(IDS).numpy())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tiny(heads=3), ValueError, "heads=3 does not divide"),
        (lambda: tiny(context=0), ValueError, "context is a positive whole number"),
        (lambda: tiny(d_ff=-1), ValueError, "d_ff is a positive whole number"),
        (lambda: tiny()(IDS[0]), ShapeError, "text has shape"),
        (lambda: tiny()(IDS / 2), DtypeError, "integer ids"),
        (lambda: tiny()(np.ones((1, 9), int)), ShapeError, "text of 9 positions .* than the 8"),
        (lambda: tiny()(IDS + 2), IndexError, r"id 11 at \(1, 0\), but its vocabulary ends at 10"),
    ],
)
def test_errors_say_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()
