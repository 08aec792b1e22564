"""The encoder-decoder: shapes, masks, options, gradients, training, and PyTorch's answer."""

import copy
import math

import numpy as np
import pytest
from helpers import check_slopes

import numtape as nt
from numtape import nn, optim
from numtape.ir.types import DtypeError, ShapeError
from numtape.transformer import Transformer, TransformerConfig

SRC = np.array([[3, 4, 5, 6], [7, 8, 0, 0]])
TGT = np.array([[1, 3, 4], [1, 5, 0]])
SIZES = {"d_model": 8, "heads": 2, "layers": 2, "d_ff": 16, "dropout": 0.0, "max_length": 12}


def tiny(**options):
    return Transformer(11, 9, **{**SIZES, **options})


def loss_of(model):
    criterion = nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1)
    return criterion(model(SRC, TGT), np.array([[3, 4, 2], [5, 2, 0]]))


# ---- shapes and masks --------------------------------------------------------------------------


def test_logits_for_every_target_position():
    model = tiny()
    logits = model(SRC, TGT)
    assert logits.shape == (2, 3, 9) and logits.dtype == np.float32
    assert np.array_equal(model(nt.tensor(SRC), nt.tensor(TGT)).numpy(), logits.numpy())
    memory = model.encode(SRC)
    assert memory.shape == (2, 4, 8)
    assert np.array_equal(model.decode(TGT, memory, SRC).numpy(), logits.numpy())


def test_source_padding_changes_nothing():
    model = tiny().double()
    longer = np.pad(SRC, ((0, 0), (0, 3)))
    np.testing.assert_allclose(model(longer, TGT).numpy(), model(SRC, TGT).numpy(), atol=1e-13)
    alone = model(SRC[1:, :2], TGT[1:]).numpy()
    np.testing.assert_allclose(model(SRC, TGT).numpy()[1:], alone, atol=1e-13)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_no_position_sees_a_later_target(pre_norm):
    model = tiny(pre_norm=pre_norm)
    changed = TGT.copy()
    changed[:, 2] = 8
    before, after = model(SRC, TGT).numpy(), model(SRC, changed).numpy()
    assert np.array_equal(before[:, :2], after[:, :2])
    assert not np.array_equal(before[:, 2], after[:, 2])


def test_embeddings_are_scaled_and_know_their_positions():
    model = tiny()
    model.encoder.layers = nn.ModuleList()
    expected = model.source_embedding.weight.numpy()[SRC] * math.sqrt(8)
    expected = expected + model.positions.table.numpy()[:4]
    np.testing.assert_allclose(model.encode(SRC).numpy(), expected, atol=1e-6)


# ---- options -----------------------------------------------------------------------------------


def test_parameters_have_readable_names():
    names = [name for name, _ in tiny().named_parameters()]
    for name in (
        "source_embedding.weight",
        "encoder.layers.0.attention.qkv.weight",
        "encoder.layers.1.feed_forward_residual.norm.bias",
        "decoder.layers.0.cross_attention.kv.weight",
        "decoder.layers.1.feed_forward.down.bias",
        "output.weight",
    ):
        assert name in names
    assert "encoder.norm.weight" not in names
    assert "encoder.norm.weight" in [name for name, _ in tiny(pre_norm=True).named_parameters()]


def test_the_base_model_has_its_published_size():
    config = TransformerConfig(37000, 37000)
    attention, feed_forward, norm = 4 * (512 * 512 + 512), 2 * 512 * 2048 + 2560, 2 * 512
    layer = 3 * attention + 2 * feed_forward + 5 * norm
    shallow = Transformer(2, 2, config.d_model, config.heads, 1, config.d_ff)
    assert sum(p.size for p in shallow.parameters()) == layer + 3 * 2 * 512 + 2
    assert 6 * layer + 37000 * 512 == pytest.approx(63e6, rel=0.02)


def test_ties():
    def count(model):
        return sum(p.size for p in model.parameters())

    free, tied = tiny(), tiny(tie_embeddings=True)
    assert tied.output.weight is tied.target_embedding.weight
    assert count(free) - count(tied) == 9 * 8
    shared = Transformer(9, 9, **SIZES, tie_embeddings="all")
    assert shared.source_embedding.weight is shared.output.weight
    assert count(tied) - count(shared) == 11 * 8
    loss_of(tied).backward()
    assert tied.output.weight.grad is not None
    doubled = tied.double()
    assert doubled.output.weight is doubled.target_embedding.weight


def test_initial_values_are_xavier():
    model = Transformer(50, 50, 64, 4, 1, 128)
    weight = model.encoder.layers[0].feed_forward.up.weight.numpy()
    bound = math.sqrt(6 / (64 + 128))
    assert np.abs(weight).max() <= bound and weight.std() == pytest.approx(
        bound / math.sqrt(3), rel=0.05
    )
    assert not model.output.bias.numpy().any()
    assert model.target_embedding.weight.numpy().std() == pytest.approx(1 / 8, rel=0.05)


@pytest.mark.parametrize("tie", [False, True])
def test_a_configuration_makes_the_trip_through_a_dictionary(tie):
    model = tiny(pre_norm=True, tie_embeddings=tie, activation="silu", experts=2, pad=3)
    stored = model.config.to_dict()
    again = Transformer.from_config(TransformerConfig.from_dict(stored))
    assert again.config == model.config and stored["activation"] == "silu"
    again.load_state_dict(model.state_dict())
    assert np.array_equal(again(SRC, TGT).numpy(), model(SRC, TGT).numpy())


def test_models_are_copied_with_their_ties():
    model = tiny(tie_embeddings=True)
    other = copy.deepcopy(model)
    assert other.output.weight is other.target_embedding.weight is not model.output.weight
    assert np.array_equal(other(SRC, TGT).numpy(), model(SRC, TGT).numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide d_model=8"),
        ({"layers": 0}, "layers is a positive whole number, got 0"),
        ({"d_model": 8.0}, "d_model is a positive whole number"),
        ({"activation": "tanh"}, "'tanh' is none of"),
        ({"tie_embeddings": "both"}, "False, True or 'all'"),
        ({"tie_embeddings": "all"}, "sizes are 11 and 9"),
        ({"dropout": 1.5}, "probability"),
    ],
)
def test_settings_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match=r"has no \['width'\]"):
        TransformerConfig.from_dict({"src_vocab": 3, "tgt_vocab": 3, "width": 4})


@pytest.mark.parametrize(
    ("src", "tgt", "error", "message"),
    [
        (SRC[0], TGT, ShapeError, "source has shape .*ids\\[None\\]"),
        (SRC, TGT[..., None], ShapeError, "target has shape"),
        (SRC.astype(float), TGT, DtypeError, "source is made of integer ids"),
        (SRC, TGT[:1], ShapeError, "2 sources and 1 targets"),
        (np.ones((2, 13), int), TGT, ShapeError, "source of 13 positions .* than the 12"),
        (SRC, np.ones((2, 13), int), ShapeError, "target of 13 positions .* than the 12"),
        (SRC + 4, TGT, IndexError, r"source has the id 11 at \(1, 0\)"),
        (SRC, TGT + 5, IndexError, r"target has the id 9 at \(0, 2\).* ends at 8"),
        (SRC - 1, TGT, IndexError, r"source has the id -1 at \(1, 2\)"),
        (SRC[:, :0], TGT, ShapeError, "at least one id"),
    ],
)
def test_inputs_that_do_not_fit(src, tgt, error, message):
    with pytest.raises(error, match=message):
        tiny()(src, tgt)


# ---- gradients and tapes -----------------------------------------------------------------------

VARIANTS = [
    {},
    {"pre_norm": True, "activation": "gelu"},
    {"tie_embeddings": True, "activation": "silu"},
    {"experts": 2, "activation": "gelu_tanh"},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_by_finite_differences(options):
    nt.random.seed(5)
    model = tiny(**options).double()
    check_slopes(model, lambda: loss_of(model), places=10, absolute=1e-8)


@pytest.mark.parametrize("options", VARIANTS)
def test_compiled_equals_eager(options):
    model = tiny(**options)
    expected = model(SRC, TGT).numpy()
    np.testing.assert_allclose(nt.compile(model)(SRC, TGT).numpy(), expected, atol=2e-6)
    exact = nt.compile(model, exact=True)(SRC, TGT)
    assert np.array_equal(exact.numpy(), expected)


def test_a_compiled_model_refuses_ids_outside_its_vocabulary():
    compiled = nt.compile(tiny())
    with pytest.raises(IndexError, match="11"):
        compiled(SRC + 4, TGT)


def test_a_compiled_step_trains_like_the_eager_one():
    def steps(wrap):
        nt.random.seed(7)
        model = tiny(dropout=0.1)
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)

        def step():
            loss = loss_of(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        return [run().item() for _ in range(12)]

    eager, compiled = steps(lambda f: f), steps(nt.compile)
    np.testing.assert_allclose(compiled, eager, rtol=1e-3)
    assert eager[-1] < eager[0]


def test_nodes_know_their_module():
    text = str(nt.trace(tiny(), SRC, TGT).graph)
    assert "encoder.layers.1.attention.qkv" in text
    assert "decoder.layers.0.cross_attention.kv" in text
