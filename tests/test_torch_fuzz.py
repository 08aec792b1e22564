"""Random programs beside PyTorch: the graph of each on its functions, with its autograd."""

from collections import defaultdict
from functools import cache

import numpy as np
import pytest
from test_fuzz import long_program, wrong_tanh  # noqa: F401
from torch_peer import torch

from fuzz import __main__ as fuzz
from fuzz import peers
from fuzz.beside_torch import compare
from fuzz.generator import generate
from fuzz.program import Input, Program, Step
from fuzz.shrink import shrink
from numtape.ir.op import REGISTRY

PROGRAMS, CHUNK, SKIPPED = 300, 25, 4


@pytest.mark.parametrize("first", range(0, PROGRAMS, CHUNK))
def test_random_programs(first):
    skipped = []
    for seed in range(first, first + CHUNK):
        program = generate(seed)
        found = compare(program)
        script = program.script("fuzz.beside_torch.compare")
        assert not found.failure, f"{found.failure}: {found.detail}\n{script}"
        skipped += [found.skipped] if found.skipped else []
    assert len(skipped) <= SKIPPED, skipped


# ---- the comparison itself ----------------------------------------------------------------

# What random programs do not differentiate: a divisor under `%`, a cast from one float to another,
# and what only gradients and expansions are written with.
UNSEEN = {("remainder", 1), ("cast", 0), ("normal_cdf", 0), ("add_slice", 0), ("add_slice", 1)}
UNSEEN |= {("dense", 0)}
FLAT = {"sign", "floor", "ceil", "rint"}  # there is no gradient that could be wrong
RULES = [
    (name, place)
    for name, op in REGISTRY.items()
    for place in range(3 if callable(op.vjps) else len(op.vjps))
    if op.vjp(place) is not None and name not in FLAT and (name, place) not in UNSEEN
]


@cache
def differentiated():
    """Programs by the operations that they differentiate."""
    found = defaultdict(list)
    for program in map(generate, range(400)):
        if program.mode != "values":
            for name in compare(program).ops:
                found[name].append(program)
    return found


def wrong(op, place):
    """The gradient rules of an operation, one of them off by a thousandth."""
    rules = op.vjps if callable(op.vjps) else op.vjps.__getitem__
    off = lambda *args, **attrs: rules(place)(*args, **attrs) * 1.001
    if callable(op.vjps):
        return lambda i: off if i == place else rules(i)
    return (*op.vjps[:place], off, *op.vjps[place + 1 :])


@pytest.mark.parametrize("name, place", RULES)
def test_any_gradient_rule_that_is_off_is_found(monkeypatch, name, place):
    programs, op = differentiated()[name], REGISTRY[name]
    monkeypatch.setitem(op.__dict__, "vjps", wrong(op, place))
    assert any(compare(program).failure == "torch" for program in programs)


@pytest.mark.parametrize("mode", ["gradient", "second", "training"])
def test_a_wrong_gradient_is_found(mode, wrong_tanh):  # noqa: F811
    program = Program(3, {0: Input((3,), "f8")}, (Step(1, "v0.tanh()"),), (1,), mode, floats=(1,))
    assert compare(program).failure == "torch"


def test_it_is_made_small(wrong_tanh):  # noqa: F811
    small = shrink(long_program(), "torch", compare)
    assert [s.text for s in small.steps] == ["v3.tanh()"]
    assert "from fuzz.beside_torch import compare" in small.script("fuzz.beside_torch.compare")


def assigning():
    inputs = {0: Input((3,), "f4"), 1: Input((3,), "f8", role="state")}
    steps = (
        Step(None, "v0.assign((v0 * 0.5).detach())"),
        Step(None, "v1.assign((v1 - v0.cos()).detach())"),
        Step(2, "v1 + 1.0"),
    )
    return Program(5, inputs, steps, (2,))


@pytest.mark.parametrize("wrong, result", [(None, None), ("mul", 1), ("cos", 0)])
def test_what_is_assigned_is_compared(monkeypatch, wrong, result):
    """A result, an argument and a state: 0, 1 and 2."""
    assert not compare(assigning()).failure
    if wrong:
        monkeypatch.setitem(peers.PEERS, wrong, torch.add if wrong == "mul" else torch.sin)
        assert compare(assigning()).failure == "torch"


def test_random_numbers_are_taken_from_numtape():
    drawn = Step(1, "v0 * nt.random.default.uniform((3,), np.float32) + F.dropout(v0, 0.3)")
    program = Program(5, {0: Input((3,), "f4")}, (drawn,), (1,), "gradient", floats=(1,))
    found = compare(program)
    assert not found.failure and not found.skipped


@pytest.mark.parametrize(
    "mode, text, reason",
    [
        (
            "values",
            "F.cross_entropy(v0, np.array(0), ignore_index=0)",
            "not finite from cross_entropy on",
        ),
        ("second", "v0 ** (v0 - v0.detach())", "second gradient of x ** 0"),
        ("second", "np.copysign(v0 - v0.detach(), v0)", "second gradient of copysign"),
        ("gradient", "nt.sqrt(v0.clip(0.0))", ""),
    ],
)
def test_what_is_not_compared_says_why(mode, text, reason):
    program = Program(5, {0: Input((3,), "f8")}, (Step(1, text),), (1,), mode, floats=(1,))
    found = compare(program)
    assert (found.skipped, found.failure) == (reason, "")


def test_a_long_run_counts_what_was_compared(tmp_path):
    figures = fuzz.run(3, 70, tmp_path / "fuzz.json", quiet=True, beside=compare)
    assert figures.counts["PyTorch: compared"] == 3
    assert np.sum([n for name, n in figures.counts.items() if "PyTorch" in name]) == 3
