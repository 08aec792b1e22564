"""Functions that are not the same when they are traced again, where compiling is checked."""

import itertools
import re
import time

import numpy as np
import pytest

import numtape as nt
from numtape import nn

ONES = np.ones(3)


def refused(function, words):
    with pytest.raises(nt.TraceError, match=words) as caught:
        nt.compile(function, validate=True)(ONES)
    assert re.match(r"at (\S*/)?test_repeats\.py:\d+: ", str(caught.value))


def changing(*values):
    """Gives one value after the other, the last from then on."""
    count = itertools.count().__next__
    return lambda: values[min(count(), len(values) - 1)]


count = itertools.count().__next__
LEFT, RIGHT = nt.tensor(ONES), nt.tensor(ONES)


def either(*values):
    return values[count() % 2]


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (lambda x: {"loss": x * 2, "at": time.perf_counter()}, r"result\['at'\]"),
        (lambda x: (x * 2, [count()]), r"result\[1\]\[0\]"),
        (lambda x: {f"loss{count()}": x * 2}, r"result\['loss\d+'\] \(a tensor, then None\)"),
        (lambda x: (x * 2, either(2, 2.0)), r"result\[1\] \(2.*, then 2.*\)"),
    ],
)
def test_a_result_that_is_no_tensor_must_come_again(function, place):
    refused(function, rf"{place}.* is not the same when the function is traced again")


@pytest.mark.parametrize(
    "result", [float("nan"), None, object, "text", (1, [True]), object(), np.float64(2)]
)
def test_results_that_are_no_tensors_and_stay_pass(result):
    found, same = nt.compile(lambda x: (x * 2, result), validate=True)(ONES)
    assert found.tolist() == [2.0] * 3
    assert same is result or same == result


def test_the_tape_is_one_of_those_that_agree():
    factor = changing(2, 3)
    compiled = nt.compile(lambda x: x * factor(), validate=True)
    assert compiled(ONES).tolist() == compiled(ONES).tolist() == [3.0] * 3


@pytest.mark.parametrize(
    "function",
    [lambda x: either(x * 2, x * 3), lambda x: LEFT.assign(either(LEFT + x, RIGHT + x))],
)
def test_which_value_is_returned_or_assigned_must_come_again(function):
    refused(function, "the choice of what the function returns or assigns is not the same")


def test_a_frozen_number_that_is_itself_a_result_has_a_line():
    refused(lambda x: np.float64(time.perf_counter()), r"constant \(.*\) is not the same")


@pytest.mark.parametrize(
    "function", [lambda x: nt.tensor(count()), lambda x: x * nt.tensor([float(count())])]
)
def test_a_tensor_made_while_tracing_must_come_again(function):
    refused(function, "is not the same when the function is traced again")


class Swaps(nn.Module):
    def __init__(self):
        super().__init__()
        self.now, self.then = nt.tensor(ONES), nt.tensor(2 * ONES)

    def forward(self, x):
        self.now, self.then = self.then, self.now
        return x * self.then


def test_tensors_that_take_turns_are_told():
    refused(Swaps(), "is not the same when the function is traced again")
