"""What a newcomer does wrong: the error names shapes, values, the line and the way out."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import numtape as nt
from numtape import nn, optim
from numtape.cli import main as cli
from numtape.ir.location import OutOfRange
from numtape.ir.types import DtypeError, ShapeError
from numtape.nn import functional as F
from numtape.transformer import (
    GPT,
    DecoderLayer,
    FeedForward,
    LearnedPositions,
    MixtureOfExperts,
    MultiHeadAttention,
    SinusoidalPositions,
)

IDS = nt.tensor(np.array([[0, 1], [7, 2]]))
EMBEDDING = nn.Embedding(5, 3)
LINEAR = nn.Linear(4, 3)
DECODER = DecoderLayer(4, 2, 8)


def ones(*shape):
    return nt.ones(shape)


WRONG_TYPES = {
    "add": (lambda: ones(2, 3) + ones(4), r"f32\[2,3\] and f32\[4\]"),
    "matmul": (lambda: ones(2, 3) @ ones(4, 3), r"f32\[2,3\] @ f32\[4,3\]: 3 and 4"),
    "stacks": (lambda: ones(2, 3, 4) @ ones(3, 4, 3), r"f32\[2,3,4\] @ f32\[3,4,3\]"),
    "dot": (lambda: nt.dot(ones(2, 3), ones(2, 4, 3)), r"dot: .* f32\[2,3\] and f32\[2,4,3\]"),
    "stack": (
        lambda: nt.stack([ones(2), ones(3)]),
        r"stack: the shapes differ: f32\[2\], f32\[3\]",
    ),
    "reshape": (lambda: ones(2, 3).reshape(-1, 4), r"6 entries, so no length .* \(-1, 4\)"),
    "axis": (lambda: ones(2, 3).sum(2), "axis 2 is out of range for 2 dimensions"),
    "pad": (lambda: nt.pad(ones(3), ((1, 1), (2, 2))), r"f32\[3\] takes one pair per axis"),
    "zeros": (lambda: nt.zeros((2, -1)), r"no negative lengths, unlike \(2, -1\)"),
    "tile": (lambda: nt.tile(ones(3), -1), "no negative lengths"),
    "repeat": (lambda: nt.repeat(ones(3), -1), "no negative lengths"),
    "linspace": (lambda: nt.linspace(0, 1, -1), "no negative lengths"),
    "linear": (lambda: LINEAR(ones(2, 3)), r"f32\[2,3\] does not end in the 4 features"),
    "mask": (
        lambda: F.scaled_dot_product_attention(*[ones(2, 3, 4)] * 3, ones(2, 2) > 0),
        r"mask bool\[2,2\] does not broadcast to the scores \(2, 3, 3\)",
    ),
    "memory": (lambda: DECODER(ones(2, 3, 4), ones(2, 3, 6)), r"key_value of shape \(2, S, 4\)"),
    "batch": (lambda: DECODER(ones(2, 3, 4), ones(3, 3, 4)), r"\(2, S, 4\), not \(3, 3, 4\)"),
    "rank": (lambda: DECODER(ones(3, 4), ones(3, 4)), r"takes \(B, T, 4\), not \(3, 4\)"),
    "target": (lambda: F.cross_entropy(ones(2, 5), IDS), r"shape \(2,\), not i64\[2,2\]"),
    "floats": (lambda: EMBEDDING(ones(3)), r"^embedding: .* integers, .*astype\(np.int64\)"),
    "integers": (lambda: F.cross_entropy(IDS, IDS[0]), r"floats, .*astype\(np.float32\)"),
    "booleans": (lambda: ~ones(3), "takes booleans, .*x != 0"),
    "condition": (lambda: nt.where(ones(3), 1.0, 2.0), "condition is boolean, .*x > 0"),
}


@pytest.mark.parametrize("wrap", [lambda f: f, nt.compile], ids=["eager", "compiled"])
@pytest.mark.parametrize("call, message", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_what_does_not_fit(call, message, wrap):
    line = call.__code__.co_firstlineno
    with pytest.raises((ShapeError, DtypeError), match=message) as error:
        wrap(call)()
    lines = [f"(at {__file__}:{n})" for n in (line, line + 1)]
    assert str(error.value).endswith(tuple(lines))


OUTSIDE = {
    "take": (lambda: nt.take(ones(5, 3), IDS), "from -5 to 4"),
    "getitem": (lambda: ones(5, 3)[IDS], "from -5 to 4"),
    "index_add": (lambda: nt.index_add(ones(5, 3), IDS, ones(2, 2, 3)), "from -5 to 4"),
    "embedding": (lambda: EMBEDDING(IDS), "from 0 to 4"),
    "cross_entropy": (lambda: F.cross_entropy(ones(2, 2, 5), IDS), "from 0 to 4"),
    "by row": (lambda: F.cross_entropy(ones(2, 2, 5), IDS, reduction="none"), "from 0 to 4"),
    "ignoring": (lambda: F.cross_entropy(ones(2, 2, 5), IDS, ignore_index=0), "from 0 to 4"),
    "one_hot": (lambda: F.one_hot(IDS, 5), "from 0 to 4"),
}


@pytest.mark.parametrize("call, bounds", OUTSIDE.values(), ids=OUTSIDE)
def test_index_out_of_range(call, bounds):
    wanted = rf"index 7 at position \(1, 0\) is out of range: there are 5 entries, .* {bounds}"
    with pytest.raises(IndexError, match=wanted) as error:
        call()
    line = call.__code__.co_firstlineno
    assert str(error.value).endswith(f"(at {__file__}:{line})")


@pytest.mark.parametrize("call, bounds", OUTSIDE.values(), ids=OUTSIDE)
def test_index_out_of_range_on_a_tape(call, bounds):
    compiled = nt.compile(call)
    with pytest.raises(IndexError, match=rf"index 7 at position \(1, 0\) .* {bounds}") as error:
        compiled()
    here = test_index_out_of_range_on_a_tape.__code__.co_firstlineno
    assert f"(at {__file__}:{here + 4})" in str(error.value)
    (note,) = error.value.__notes__
    assert f"test_messages.py:{call.__code__.co_firstlineno}" in note


@pytest.mark.parametrize("key", [(9,), (0, 9), (0, 0, 0), (slice(None), -4)])
def test_entry_that_is_not_there(key):
    with pytest.raises(
        IndexError, match=r"(out of range for axis|too many indices).*messages\.py"
    ):
        ones(5, 3)[key]


SIZES = {
    "in_features is a positive whole number, got 0": lambda: nn.Linear(0, 3),
    "out_features is a positive whole number, got -1": lambda: nn.Linear(3, -1),
    "in_features is a positive whole number, got 2.5": lambda: nn.Linear(2.5, 3),
    "num_embeddings is a positive whole number, got -1": lambda: nn.Embedding(-1, 3),
    "padding_idx=7 is none of the 4 rows": lambda: nn.Embedding(4, 3, padding_idx=7),
    "normalized_shape is a positive whole number, got 0": lambda: nn.RMSNorm(0),
    r"along the last axis alone, not along \(2, 3\)": lambda: nn.LayerNorm((2, 3)),
    "num_classes is a positive whole number, got 0": lambda: F.one_hot(IDS, 0),
    "heads=2 does not divide d_model=7": lambda: MultiHeadAttention(7, 2),
    "heads is a positive whole number, got 0": lambda: MultiHeadAttention(8, 0),
    r"probability lies in \[0, 1\], got 1.5": lambda: MultiHeadAttention(8, 2, 1.5),
    "d_ff is a positive whole number, got 0": lambda: FeedForward(4, 0),
    "d_ff is a positive whole number, got -1": lambda: MixtureOfExperts(4, -1, 2),
    "max_length is a positive whole number, got -1": lambda: SinusoidalPositions(-1, 4),
    "max_length is a positive whole number, got 0": lambda: LearnedPositions(0, 4),
}


@pytest.mark.parametrize("message, make", SIZES.items())
def test_sizes_that_no_layer_has(message, make):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [lambda: nn.Sequential(abs), lambda: nn.ModuleList([1])])
def test_what_is_no_module(make):
    with pytest.raises(TypeError, match=r"holds modules, not (builtin_function_or_method|int)"):
        make()
    layers = nn.ModuleList()
    with pytest.raises(TypeError, match="holds modules, not list"):
        layers.append([nn.Identity()])


@pytest.mark.parametrize("value", [None, "1.5", [None]])
def test_what_is_no_number(value):
    for wrong in (lambda: ones(3) + value, lambda: nt.Tensor(value, np.float32)):
        with pytest.raises(TypeError, match=rf"a tensor holds floats.*{re.escape(repr(value))}"):
            wrong()


def test_state_that_is_no_mapping():
    with pytest.raises(TypeError, match=r"maps names to arrays, .* not list"):
        LINEAR.load_state_dict([1])


UNFIT = {
    "np.sum takes arrays": lambda x: np.sum(x),
    "np.gcd cannot be used": lambda x: np.gcd(x, x),
    "entries of a tensor cannot be set": lambda x: x.__setitem__(0, 1),
}


@pytest.mark.parametrize("message, call", UNFIT.items())
def test_what_numpy_can_and_a_tensor_cannot_names_the_line(message, call):
    line = call.__code__.co_firstlineno
    for wrapped in (call, nt.compile(call)):
        with pytest.raises(TypeError, match=rf"^at {re.escape(__file__)}:{line}: {message}"):
            wrapped(ones(3))


def test_traced_tensor_where_a_number_is_needed():
    with pytest.raises(nt.TraceError, match=r"range\(\) and sizes need an int"):
        nt.compile(lambda n: list(range(n)))(np.int64(3))
    with pytest.raises(nt.TraceError, match="cannot format a tensor"):
        nt.compile(lambda x: f"{x:.2f}")(ones(3))


def test_parameters_without_parentheses():
    with pytest.raises(TypeError, match=r"not the method parameters: call it, parameters\(\)"):
        optim.AdamW(LINEAR.parameters, lr=1.0)


def test_ids_outside_the_vocabulary_are_one_kind_of_error():
    model = GPT(vocab=5, context=4, d_model=4, heads=2, layers=1)
    for call in (model, nt.compile(model)):
        with pytest.raises(OutOfRange) as error:
            call(np.array([[0, 9]]))
    assert "wrap(ids" in error.value.__notes__[0]  # the argument's own name


def test_names_of_other_libraries():
    with pytest.raises(AttributeError, match="'unsqueeze'; the NumPy name is expand_dims"):
        ones(3).unsqueeze(0)
    with pytest.raises(AttributeError, match="'cat'; the NumPy name is concatenate"):
        nt.cat([ones(3)])
    with pytest.raises(AttributeError, match=r"Tensor has no attribute 'colour'$"):
        ones(3).colour()
    assert not hasattr(nt, "__path_to_nowhere__")


def test_the_command_names_no_line(monkeypatch, capsys):
    def run(given):
        raise ShapeError("too long")

    given = SimpleNamespace(run=run, debug=False)
    parser = SimpleNamespace(parse_known_args=lambda arguments: (given, []))
    monkeypatch.setattr(cli, "make_parser", lambda: parser)
    assert cli.main([]) == 2
    assert capsys.readouterr().err == "numtape: error: too long\n"
