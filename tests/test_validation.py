"""`compile(f, validate=True)`: what is right passes unchanged, what is wrong names itself."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import wrong_passes as wrong
from programs import TRAINING, RandomProgram, forward_and_reverse, gpt_step, mlp_step

import numtape as nt
from numtape import tape
from numtape.checking.compare import same_bits
from numtape.checking.validation import EMITTING, MistranslatedError
from numtape.compiler import Compiled
from numtape.ir.verify import VerifyError
from numtape.options import Options
from numtape.passes import PIPELINE, Pass
from numtape.runtime import emit, lowering
from numtape.runtime.proof import OverwrittenError

X = np.linspace(-1.5, 2, 12).reshape(3, 4)
V = np.array([0.5, -1.0, 2.0, 0.25])


def bits(results):
    return [t.numpy().tobytes() for t in (results if isinstance(results, tuple) else (results,))]


def with_pass(function, step, at=3):
    """The function compiled with one more pass in the pipeline, each validated."""
    passes = (*PIPELINE[:at], step, *PIPELINE[at:])
    return Compiled(function, passes, None, Options(validate=True))


def caught(function, step, *arguments, at=3):
    with pytest.raises(MistranslatedError) as found:
        with_pass(function, step, at)(*arguments)
    return found.value


# ---- what is right ------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("make", [*TRAINING.values(), forward_and_reverse])
def test_validation_changes_no_bit_of_a_step(make, exact):
    """Parameters, moments and the random state too: three steps give the same losses."""
    steps = []
    for validate in (False, True):
        function, arguments = make()
        compiled = nt.compile(function, exact=exact, validate=validate)
        steps.append([bits(compiled(*arguments)) for _ in range(3)])
    assert steps[0] == steps[1]


@pytest.mark.parametrize("kind", [{}, {"update": True}, {"learn": True}], ids=str)
def test_random_programs_are_valid(kind):
    for seed in range(6):
        plain, checked = (RandomProgram(seed, **kind) for _ in range(2))
        expected = nt.compile(plain)(*plain.arguments)
        found = nt.compile(checked, validate=True)(*checked.arguments)
        assert bits(found) == bits(expected)


def test_budgets_are_validated_too():
    function, arguments = gpt_step(layers=1)
    whole = nt.compile(function).tape(*arguments).memory.arena
    compiled = nt.compile(function, validate=True, memory=int(0.8 * whole))
    assert "recompute" in [r.name for r in compiled.tape(*arguments).passes]


def test_gradients_of_earlier_calls_are_inputs():
    weight = nt.Tensor(V.copy(), requires_grad=True)

    def step(x):
        (x * weight).sum().backward()
        return weight.grad * 2.0

    (X[0] * weight).sum().backward()
    assert same_bits(nt.compile(step, validate=True)(X[1]).numpy(), 2.0 * (X[0] + X[1]))


# ---- what is wrong ------------------------------------------------------------------------


def test_a_wrong_pass_is_named_with_the_smallest_graph():
    function, arguments = mlp_step()
    error = caught(function, Pass(wrong.turned_differences, exact=False), *arguments)
    assert error.stage == "turned_differences"
    (node,) = (v for v in error.graph.nodes if not v.is_constant)
    assert node.op.name == "sub"
    assert "the pass turned_differences, labelled reassociating, changes what step" in str(error)
    assert " = sub(%0, %1)" in str(error)
    assert error.script in str(error)


def test_an_inexact_pass_labelled_exact_is_found_by_a_single_bit():
    thirds = lambda x: nt.exp(x / 3.0)
    error = caught(thirds, Pass(wrong.quotients_by_inverses, exact=True), X)
    assert [v.op.name for v in error.graph.nodes if not v.is_constant] == ["div"]
    assert "labelled exact" in str(error)
    with_pass(thirds, Pass(wrong.quotients_by_inverses, exact=False))(X)


def test_zeros_of_the_other_sign_are_other_bits():
    error = caught(lambda x: nt.maximum(x, 0.0), Pass(wrong.negative_zeros, exact=True), X)
    assert error.stage == "negative_zeros"
    with_pass(lambda x: nt.maximum(x, 0.0), Pass(wrong.negative_zeros, exact=False))(X)


def test_what_shows_only_beside_another_reader_keeps_it():
    function = lambda x: nt.tanh(nt.exp(x * 2.0) + nt.sin(x * 2.0)).sum()
    error = caught(function, Pass(wrong.lost_first_use, exact=False), X, at=4)
    assert {v.op.name for v in error.graph.nodes} >= {"exp", "sin"}
    assert len([v for v in error.graph.nodes if not v.is_constant]) == 3


def test_lost_updates_are_found():
    total = nt.Tensor(np.zeros(4))

    def count(x):
        total.assign(total + x)

    error = caught(count, Pass(wrong.lost_updates, exact=True), V)
    assert error.graph.updates
    assert not total.numpy().any()


def test_a_malformed_graph_is_the_verifiers():
    compiled = with_pass(lambda x: x * 2.0, Pass(wrong.wrong_dtype, exact=False))
    with pytest.raises((MistranslatedError, VerifyError)):
        compiled(X)


# The others round differently only by where entries lie, which the reference does not ask: it
# reads dense memory, and they keep the order in which it adds up.
@pytest.mark.parametrize("name", ["sums", "products"])
def test_a_reassociating_pass_called_exact_names_itself(name):
    function, arguments = gpt_step(layers=1, width=64, length=64)
    relabelled = tuple(replace(p, exact=True) if p.name == name else p for p in PIPELINE)
    compiled = Compiled(function, relabelled, None, Options(validate=True))
    with pytest.raises(MistranslatedError) as found:
        compiled.tape(*arguments)
    assert found.value.stage == name
    nt.compile(function, validate=True).tape(*arguments)


def test_nothing_has_changed_after_an_error():
    nt.random.seed(3)
    function, arguments = gpt_step(dropout=0.1)
    state = nt.random.default.state.numpy().copy()
    with pytest.raises(MistranslatedError):
        with_pass(function, Pass(wrong.turned_differences, exact=False))(*arguments)
    assert same_bits(nt.random.default.state.numpy(), state)
    loss = nt.compile(function)(*arguments)
    other, _ = gpt_step(dropout=0.1)
    assert bits(loss) == bits(nt.compile(other)(*arguments))


def test_two_slots_that_overlap_are_an_error(monkeypatch):
    planned = tape.plan

    def overlapping(*given):
        made = planned(*given)
        return replace(made, offsets=dict.fromkeys(made.offsets, 0))

    monkeypatch.setattr(tape, "plan", overlapping)
    with pytest.raises(OverwrittenError, match="shares memory with"):
        nt.compile(lambda x: nt.exp(x) @ x.T, validate=True)(X)


def test_a_wrong_line_of_source_is_the_emitters(monkeypatch):
    def tanh_for_sin(node, places):
        call = lowering.lower(node, places)
        return call._replace(function=np.tanh) if call.function is np.sin else call

    monkeypatch.setattr(emit, "lower", tanh_for_sin)
    with pytest.raises(MistranslatedError) as found:
        nt.compile(lambda x: nt.exp(nt.sin(x * 2.0)).sum(), validate=True)(X)
    assert found.value.stage == EMITTING
    assert [v.op.name for v in found.value.graph.nodes] == ["sin"]


# ---- the program that shows it ------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        Pass(wrong.turned_differences, exact=False),
        Pass(partial(wrong.turned_differences), exact=False),
    ],
    ids=["function", "partial"],
)
def test_the_program_shows_the_mistake(step, tmp_path):
    if isinstance(step.apply, partial):
        step.apply.__name__ = "turned_differences"
    function, arguments = gpt_step(layers=1)
    error = caught(function, step, *arguments, at=0)
    assert run(error.script, tmp_path).splitlines()[-1] == "same: False"


def test_large_inputs_are_drawn_in_the_program(tmp_path):
    wide = np.random.default_rng(5).normal(size=(300, 50))
    error = caught(lambda x: x / 3.0, Pass(wrong.quotients_by_inverses, exact=True), wide)
    assert "np.random.default_rng(0).normal(size=(300, 50)).astype(np.float64)" in error.script
    assert len(error.script) < 1500
    assert "same: False" in run(error.script, tmp_path)


def run(text, folder):
    path = folder / "smallest.py"
    path.write_text(text)
    root = Path(nt.__file__).parents[1]
    paths = os.pathsep.join((str(root), str(Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    return done.stdout


# ---- the option ---------------------------------------------------------------------------


class Scaled:
    def __init__(self):
        self.factor = nt.Tensor(np.float32(2.0))

    @partial(nt.compile, validate=True)
    def times(self, x):
        return x * self.factor


def test_methods_are_validated_and_tapes_say_so():
    scaled = Scaled()
    scaled.times(X)
    assert scaled.times.options == Options(validate=True)
    assert repr(scaled.times.tapes[0]).endswith(" bytes, validated>")
    assert repr(nt.compile(Scaled.times.function).tape(scaled, X)).endswith(" bytes>")


def test_nothing_is_validated_unasked(monkeypatch):
    monkeypatch.setattr(tape.validation, "Validation", None)
    nt.compile(lambda x: x + 1.0)(X)
