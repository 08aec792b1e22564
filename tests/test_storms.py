"""Warnings of functions that are traced again and again: when, and what they say."""

import random
import warnings

import numpy as np
import pytest

import numtape as nt
from numtape import nn

ONES = np.ones(3)


def warned(compiled, calls):
    """The one warning that the calls give, in the words that tell what varies."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for args in calls:
            compiled(*args)
    (warning,) = found
    assert warning.category is nt.RetraceWarning
    assert warning.filename == __file__
    assert f"at {__file__}:{warning.lineno}: " in str(warning.message)
    return str(warning.message)


def unwarned(compiled, calls):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for args in calls:
            compiled(*args)


# ---- what varies ----------------------------------------------------------------------------


def test_a_storm_of_lengths_tells_the_axis_and_how_to_bucket():
    def shift(tokens, targets, scale):
        return (tokens + targets) * scale

    ids = [np.ones((4, n), np.int64) for n in range(3, 43)]
    said = warned(nt.compile(shift), [(x, x, 1.0) for x in ids])
    assert "shift was traced 32 times in the last 32 calls" in said
    assert "axis 1 of argument tokens and axis 1 of argument targets had 32 lengths" in said
    assert "from 3 to 34: padded to multiples of 8" in said
    assert "they would need 5 tapes" in said
    assert "scale" not in said


def test_a_storm_of_integers_tells_the_way_out():
    compiled = nt.compile(lambda x, step: x * step)
    said = warned(compiled, [(ONES, step) for step in range(40)])
    assert "argument step had 32 values (0, 1, 2, ...), and a tape is made for each" in said
    assert "give it as a float or an array, np.asarray(value)" in said
    for step in range(40):
        for given in (float(step), np.asarray(step), np.int64(step)):
            assert compiled(ONES, given).tolist() == [step] * 3
    assert compiled.traces == 42


def test_a_storm_of_settings_tells_the_setting():
    class Scaled(nn.Module):
        def forward(self, x):
            return x * self.factor

    module, compiled = Scaled(), None
    compiled = nt.compile(module)

    def calls():
        for factor in range(40):
            module.factor = factor
            yield (ONES,)

    assert "31 times the reason was: " in (said := warned(compiled, calls()))
    assert ".factor changed" in said


def either(x, m=None):
    return x if m is None else x * m


@pytest.mark.parametrize(
    ("function", "calls", "words"),
    [
        (
            lambda x, p: x * p,
            [(ONES, 0.5), *((ONES, i) for i in range(40))],
            "argument p had 31 v",
        ),
        (
            either,
            [(ONES, None), *((np.ones(i), np.ones(i)) for i in range(1, 40))],
            "axis 0 of argument x and axis 0 of argument m had 31 lengths from 1 to 31",
        ),
        (
            either,
            [(np.ones(i), np.ones(i) if i % 2 else None) for i in range(1, 40)],
            "axis 0 of argument m had 16 lengths from 1 to 31",
        ),
        (
            lambda x: x * 2,
            [(np.ones((1,) * (i % 5) + (i + 1,)),) for i in range(40)],
            "argument x had 32 shapes of ranks 1 to 5",
        ),
        (
            lambda d: sum(d.values()),
            [({f"k{i}": ONES},) for i in range(40)],
            "argument d had 32 nestings, and a tape is made for each",
        ),
        (lambda *all: sum(all), [(ONES,) * i for i in range(1, 40)], "argument all had 32 nest"),
        (
            lambda x: x * 2,
            [(np.ones((i % 7 + 1, i % 8 + 1)),) for i in range(40)],
            "argument x had 32 shapes of rank 2",
        ),
    ],
)
def test_what_varies_is_told_however_arguments_are_nested(function, calls, words):
    said = warned(nt.compile(function), calls)
    assert words in said
    assert "the first call" not in said


def test_where_each_trace_has_another_reason_the_latest_is_told():
    compiled = nt.compile(lambda **all: sum(all.values()))

    def call(i):
        return compiled(**{f"k{i}": ONES})

    said = warned(call, [(i,) for i in range(40)])
    assert "the latest reason was: argument k31 is an input" in said


def test_settings_that_come_again_after_their_tapes_were_dropped():
    class Setting:
        pass

    setting = Setting()
    compiled = nt.compile(lambda x: x * setting.value, max_tapes=2)

    def call(value):
        setting.value = value
        return compiled(ONES)

    said = warned(call, [(i % 3,) for i in range(40)])
    assert "setting.value changed; where settings come again, raise max_tapes" in said


def test_tapes_that_are_dropped_for_one_another_are_told():
    compiled = nt.compile(lambda x: x * 2, max_tapes=2)
    said = warned(compiled, [(np.ones(i % 3 + 1),) for i in range(40)])
    assert "of 3 kinds, and their tapes were dropped for one another: raise max_tapes" in said
    assert "argument" not in said


# ---- when -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [12, 24, 48, 64])
def test_shapes_that_settle_are_no_storm(count):
    rng = random.Random(count)
    compiled = nt.compile(lambda x: x * 2)
    unwarned(compiled, [(np.ones(rng.randrange(count) + 1),) for _ in range(600)])
    assert compiled.traces == count


def test_shapes_that_never_settle_are_a_storm():
    """A tape for a third of the calls."""
    rng = random.Random(0)
    compiled = nt.compile(lambda x: x * 2, max_tapes=8)
    calls = ((np.ones(rng.randrange(12) + 1),) for _ in range(400))
    assert "raise max_tapes" in warned(compiled, calls)


def test_tapes_made_ahead_are_no_storm():
    compiled = nt.compile(lambda x: x * 2)
    unwarned(compiled.tape, [(np.ones(n),) for n in range(1, 50)])
    unwarned(compiled, [(np.ones(n),) for n in range(1, 80)])
    assert compiled.traces == 79
