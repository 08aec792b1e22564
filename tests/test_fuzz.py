"""Random programs, compiled as in eager mode; and what such programs found, a test each."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import parameter

import numtape as nt
from fuzz import __main__ as fuzz
from fuzz.check import bits, check, close, small
from fuzz.generator import generate
from fuzz.program import Input, Program, Step
from fuzz.shrink import shrink
from numtape.ir.op import Op
from numtape.ir.ops import elementwise
from numtape.ir.types import DtypeError

CHUNK = 25


@pytest.mark.parametrize("first", range(0, 500, CHUNK))
def test_random_programs(first):
    for seed in range(first, first + CHUNK):
        program = generate(seed)
        found = check(program)
        assert not found.failure, f"{found.failure}: {found.detail}\n{program.script()}"


# ---- the fuzzer itself --------------------------------------------------------------------


def test_programs_are_the_same_at_every_run():
    assert [generate(seed) for seed in range(5)] == [generate(seed) for seed in range(5)]


def test_bits_tell_zeros_apart_and_take_nans_for_one():
    assert bits(np.array([np.nan, 1.0]), np.array([-np.nan, 1.0]))
    assert not bits(np.array([0.0]), np.array([-0.0]))
    assert not bits(np.array([1.0]), np.array([np.nextafter(1.0, 2.0)]))


def test_close_is_measured_in_roundings():
    x = np.array([1.0, 100.0])
    assert close(x, x + 100 * 32 * np.finfo(float).eps)
    assert not close(x, x + 100 * 128 * np.finfo(float).eps)
    assert not close(x, np.array([1.0, np.inf]))


@pytest.fixture
def wrong_tanh(monkeypatch):
    """A gradient that is wrong where the compiled and the eager one agree."""
    op: Op = elementwise.tanh
    monkeypatch.setitem(op.__dict__, "vjps", (lambda g, out, x: g * (1.0 - out),))


def long_program():
    inputs = {0: Input((3, 4), "f4", "transposed"), 1: Input((4,), "f8")}
    steps = (
        Step(2, "v0 + v1"),
        Step(3, "v2.exp() * 0.1"),
        Step(4, "v3.tanh()"),
        Step(5, "v4 - v1"),
        Step(6, "v5.sum(0)"),
    )
    return Program(3, inputs, steps, (6, 5), "gradient", floats=(6, 5))


def test_a_wrong_gradient_is_found_and_made_small(wrong_tanh):
    assert check(long_program()).failure == "slope"
    shrunk = shrink(long_program(), "slope")
    assert [s.text for s in shrunk.steps] == ["v3.tanh()"]
    assert all(i.shape == () and i.dtype == "f8" for i in shrunk.inputs.values())


def test_the_script_of_a_failure_runs(tmp_path):
    path = tmp_path / "failure.py"
    path.write_text(long_program().script())
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert "failure=''" in done.stdout, done.stderr


def test_a_run_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "fuzz.json"
    fuzz.run(2, 70, path, quiet=True)
    figures = fuzz.run(4, 70, path, quiet=True)
    assert figures.counts["programs"] == 4
    assert json.loads(path.read_text())["next"] == 74


def test_a_comparison_with_pytorch_needs_it(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--torch"])
    with pytest.raises(SystemExit):
        fuzz.main()
    assert "needs PyTorch: `make test-torch`" in capsys.readouterr().err


# ---- what random programs found -----------------------------------------------------------


def test_a_gradient_of_minus_zero_stays_so_in_two_tapes():
    weight = parameter(1.0, 2.0)
    function = lambda: (weight * 2.0, weight * 3.0)
    for run in (function, nt.compile(function, exact=True)):
        weight.grad = None
        a, b = run()
        ((a * -0.0).sum() + (b * -0.0).sum()).backward()
        assert np.signbit(weight.grad.numpy()).all()


def test_the_remainder_has_a_slope():
    x, y = (nt.Tensor(np.array(v)) for v in ([0.75, -0.3], [0.5, 0.5]))
    dx, dy = nt.grad(lambda x, y: (x % y).sum(), (0, 1))(x, y)
    assert dx.tolist() == [1.0, 1.0]
    assert dy.tolist() == [-1.0, 1.0]


def test_the_sign_of_a_zero_counts_for_the_slope_of_copysign():
    y = np.array([0.0, -0.0])
    slope = nt.grad(lambda x: np.copysign(x, y).sum())(nt.Tensor(np.array([2.0, 2.0])))
    assert slope.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("number", [-1, 256])
def test_a_number_that_no_narrow_integer_holds_is_refused(number):
    x = nt.Tensor(np.array([1, 2], np.uint8))
    for function in (lambda x: x + number, lambda x: x == number):
        for run in (function, nt.compile(function)):
            with pytest.raises(DtypeError, match=f"{number} does not fit into uint8.*test_fuzz"):
                run(x)


def test_what_is_returned_twice_is_one_tensor():
    """Its gradients add up in the order of eager mode only so."""
    weight = parameter(0.1, 2.0)
    function = lambda: (lambda y: (y, y, [y]))(weight * 2.0)
    slopes = []
    for run in (function, nt.compile(function, exact=True)):
        weight.grad = None
        a, b, (c,) = run()
        assert a is b is c
        ((a * 0.1).sum() + (b * 0.7).sum() + (c * 1e3).sum()).backward()
        slopes.append(weight.grad.numpy())
    assert np.array_equal(*slopes)


def test_a_region_of_one_tile_is_no_loop():
    x = np.ones((1, 1, 20))
    with small(48):
        found = nt.compile(lambda x: (x.sin() * 0.5).sum())(x)
    assert found.item() == pytest.approx(10.0 * np.sin(1.0))
