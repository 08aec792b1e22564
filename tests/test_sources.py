"""`backward()` from some of the results of a compiled call: to the others no gradient comes."""

import itertools

import numpy as np
import pytest
from helpers import parameter

import numtape as nt
from fuzz.check import bits, small
from numtape import nn
from numtape.runtime import tape as tapes

SUBSETS = [s for n in (1, 2, 3) for s in itertools.combinations(range(3), n)]


def several(x, w, gain):
    """Three results with a hidden value in common; the last has an infinite slope at 0."""
    hidden = nn.functional.layer_norm(x @ w, 5, gain)
    return (hidden * hidden).sum(-1), nt.exp(hidden) + w[0], nt.sqrt(nt.square(hidden[0] * x[0]))


def pulled(run, subset, given, retain=False):
    """The gradients of the arguments, as eager mode leaves them or does not."""
    for t in given:
        t.grad = None
    results = run(*given)
    with np.errstate(all="ignore"):
        total = sum((results[i] * (i - 1.5)).sum() for i in subset)
        if retain:
            total.backward(retain_graph=True)
        total.backward()
    return [t.grad for t in given]


def arguments(dtype):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(6, 5))
    x[0] = 0.0
    arrays = (x, rng.normal(size=(5, 5)), np.ones(5))
    return [nt.Tensor(a.astype(dtype), requires_grad=True) for a in arrays]


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("tile", [0, 48, 144])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_some_results_as_in_eager_mode(subset, tile, dtype):
    given = arguments(dtype)
    expected = pulled(several, subset, given)
    with small(tile):
        found = pulled(nt.compile(several, exact=True), subset, given)
        near = pulled(nt.compile(several), subset, given)
    for e, f, n in zip(expected, found, near, strict=True):
        assert (e is None) == (f is None) == (n is None)
        if e is not None:
            assert bits(f.numpy(), e.numpy())
            np.testing.assert_allclose(n.numpy(), e.numpy(), 200 * np.finfo(dtype).eps, 1e-5)


@pytest.mark.parametrize("subset", SUBSETS)
def test_again_and_checked(subset):
    given = arguments(np.float64)
    expected = pulled(several, subset, given, retain=True)
    for options in ({}, {"sanitize": True}, {"validate": True}):
        run = nt.compile(several, exact=True, **options)
        for _ in range(2):
            found = pulled(run, subset, given, retain=True)
            assert all(bits(f.numpy(), e.numpy()) for e, f in zip(expected, found, strict=True))


def test_infinite_slopes_of_the_other_results():
    weight = parameter(0.0, 2.0)
    function = lambda: (weight * 2.0, weight.log())
    for run in (function, nt.compile(function), nt.compile(function, exact=True)):
        weight.grad = None
        with np.errstate(divide="ignore"):
            a, _ = run()
        a.sum().backward()
        assert weight.grad.tolist() == [2.0, 2.0]


def test_the_sign_of_a_zero_gradient():
    weight = parameter(1.0, 2.0)
    function = lambda: (weight * 2.0, weight * 3.0)
    for run in (function, nt.compile(function, exact=True)):
        weight.grad = None
        (run()[0] * -0.0).sum().backward()
        assert np.signbit(weight.grad.numpy()).all()


def test_calls_for_other_results_go_on_side_by_side():
    weight = parameter(1.5, 2.0)
    run = nt.compile(lambda x: (nt.exp(weight * x), nt.sin(weight * x)))
    first, second, third = (run(nt.full((2,), x)) for x in (1.0, 2.0, 3.0))
    for results, places, slope in (
        (second, (1,), lambda w: 2 * np.cos(2 * w)),
        (first, (0,), lambda w: np.exp(w)),
        (third, (0, 1), lambda w: 3 * np.exp(3 * w) + 3 * np.cos(3 * w)),
    ):
        weight.grad = None
        sum(results[i].sum() for i in places).backward()
        np.testing.assert_allclose(weight.grad.numpy(), slope(weight.numpy()), 1e-6)


def test_what_no_gradient_reaches_is_not_computed():
    weight = parameter(1.5, 2.0)
    run = nt.compile(lambda: (weight * 2.0, nt.exp(weight)))
    tape = run.tape()._tape
    source, _ = tapes.write_for(tape.plan, 0b01)
    whole, part = (text.partition("def reverse")[2] for text in (tape.source, source))
    assert whole.count("np.multiply") > part.count("np.multiply")
    assert "[...] = -0.0" in part


def test_a_zero_that_is_taken_away():
    """x - y where no gradient comes to y is x, also of a zero."""
    function = lambda x: (x * 2.0, -x)
    for sign in (0.0, -0.0):
        slopes = []
        for run in (function, nt.compile(function, exact=True)):
            x = parameter(1.0, 2.0)
            (run(x)[0] * sign).sum().backward()
            slopes.append(x.grad.numpy())
        assert bits(*slopes)


def test_backward_that_failed_is_not_gone_through_again():
    weight = parameter(2.0, 3.0)
    run = nt.compile(lambda w: (nt.exp(w) * nt.square(w)).sum(), exact=True)
    huge = np.full((), np.finfo(weight.dtype).max)
    for retain in (True, False):
        weight.grad = None
        loss = run(weight)
        with np.errstate(all="raise"), pytest.raises(FloatingPointError):
            loss.backward(huge, retain_graph=retain)
        if not retain:
            with pytest.raises(RuntimeError, match="has run already"):
                loss.backward()
            continue
        loss.backward()
        other = nt.tensor(weight.numpy(), requires_grad=True)
        (nt.exp(other) * nt.square(other)).sum().backward()
        assert bits(weight.grad.numpy(), other.grad.numpy())


def test_a_backward_that_was_refused_leaves_no_trace():
    weight = parameter(0.0, 4.0)
    run = nt.compile(lambda x: (weight * x, nt.log(weight) * x))
    with np.errstate(divide="ignore"):
        a, b = run(np.ones(2, np.float32))
    kept = weight.numpy().copy()
    weight.numpy()[...] = 5.0
    with pytest.raises(RuntimeError, match="changed in place"):
        b.sum().backward()
    weight.numpy()[...] = kept
    a.sum().backward()
    assert weight.grad.tolist() == [1.0, 1.0]


def test_few_partial_tapes_are_kept():
    weight = parameter(1.0, 2.0)
    run = nt.compile(lambda: tuple(nt.exp(weight * float(i)) for i in range(5)))
    for subset in itertools.product((0, 1), repeat=5):
        if any(subset):
            results = run()
            sum(r.sum() for r, chosen in zip(results, subset, strict=True) if chosen).backward()
    assert len(run.tapes[0]._tape._partial) <= tapes.PARTIAL
