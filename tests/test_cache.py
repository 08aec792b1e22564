"""Which tape a call gets: shapes, dtypes and modes, how many are kept, and what is told of it."""

import gc
import linecache
import re
import weakref

import numpy as np
import pytest

import numtape as nt
from numtape import compiler, nn

ONES = np.ones(3)


def test_new_shapes_are_traced_and_explained():
    double = nt.compile(lambda x: x * 2)
    assert double.explain() == "nothing has been traced yet"
    double(np.ones((2, 3), np.float32))
    double(np.ones((5, 3), np.float32))
    double(np.ones(3, np.float32))
    double(np.ones((2, 3), np.int64))
    for _ in range(2):
        double(np.ones((2, 3), np.float32))
    first, batch, rank, dtype = double.explain().splitlines()
    assert "the first call" in first
    assert "argument x is float32[5, 3], it was float32[2, 3]" in batch
    assert "float32[3]" in rank
    assert "int64[2, 3]" in dtype
    assert len(double.tapes) == 4


def test_arrays_and_tensors_of_one_type_share_a_tape():
    double = nt.compile(lambda x: x * 2)
    double(ONES)
    double(nt.Tensor(ONES))
    assert len(double.misses) == 1


def test_tapes_are_bounded():
    double = nt.compile(lambda x: x * 2, max_tapes=2)
    for n in (1, 2, 3, 1):
        assert double(np.ones(n)).shape == (n,)
    assert len(double.tapes) == 2
    assert len(double.misses) == 4


def explained(compiled, *calls):
    """The reason of each trace, without its time."""
    for args, kwargs in calls:
        compiled(*args, **kwargs)
    lines = compiled.explain().splitlines()
    return [re.sub(r" \(\d+ ms\)", "", line.partition(": ")[2]) for line in lines]


def test_arguments_are_called_by_their_names():
    def scale(x, k=1.0, *rest, flag=False):
        return x["a"] * k + sum(rest, 0.0)

    given = {"a": ONES}
    found = explained(
        nt.compile(scale),
        ((given,), {"k": 0.5}),
        ((given, 0.5), {}),
        ((given, 3), {}),
        ((given, 3, 2), {}),
        ((given, 3, 2), {"flag": True}),
        (({"a": np.ones(2)}, 3, 2), {"flag": True}),
    )
    assert found == [
        "the first call",
        "argument k is given by position, it was not",
        "argument k is 3, it was an input (array or float)",
        "argument rest[0] is 2, it was absent",
        "argument flag is True, it was absent",
        "argument x['a'] is float64[2], it was float64[3]",
    ]
    names = nt.compile(scale).tape(given, 0.5, ONES).graph("traced").names
    assert names == ("x['a']", "k", "rest[0]")
    assert nt.compile(nn.Linear(3, 1)).tape(ONES).graph().names[0] == "x"
    assert nt.compile(nt.exp).tape(ONES).graph().names[0] == "x"


def test_argument_names_do_not_clash_in_the_source():
    def names(np, arena, step, v5, weight, constants, out):
        return (np + arena + step + v5 + weight + constants) * out

    given = [np.full(3, float(i)) for i in range(1, 8)]
    assert nt.compile(names)(*given).tolist() == [147.0] * 3


def test_equal_changes_are_told_once():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    compiled = nt.compile(model)
    compiled(ONES)
    model.eval()
    compiled(ONES)
    last = compiled.explain().splitlines()[-1]
    assert "trace 2: training changed (and 3 more like it) (" in last


def test_a_dropped_tape_is_told():
    calls = [((np.ones(n),), {}) for n in (1, 2, 3, 1)]
    found = explained(nt.compile(lambda x: x * 2, max_tapes=2), *calls)
    assert [line.endswith(", and 1 dropped") for line in found] == [False, False, True, True]


def test_reasons_are_bounded():
    double = nt.compile(lambda x: x * 2, max_tapes=2)
    with pytest.warns(nt.RetraceWarning):
        for n in range(compiler.REASONS + 5):
            double(np.ones(n))
    assert double.traces == compiler.REASONS + 5
    assert len(double.misses) == compiler.REASONS
    assert double.explain().splitlines()[-1].startswith(f"trace {double.traces}: argument x")


def test_a_number_is_told_from_an_array_and_an_order_from_another():
    scale = nt.compile(lambda x, s: x["a"] * s - x["b"])
    first, second = {"a": ONES, "b": ONES}, {"b": ONES, "a": ONES}
    assert explained(
        scale, ((first, 0.5), {}), ((first, ONES[0, ...]), {}), ((second, 0.5), {})
    ) == [
        "the first call",
        "argument s is an array float64[], it was a number",
        "argument x['b'] comes at another place in the order",
    ]


@pytest.mark.parametrize(
    ("wrong", "error"), [(2.5, TypeError), ("3", TypeError), (0, ValueError), (-1, ValueError)]
)
def test_numbers_of_tapes_that_are_none(wrong, error):
    with pytest.raises(error, match=f"max_tapes is .*, not {wrong!r}"):
        nt.compile(lambda x: x, max_tapes=wrong)


def test_tape_unused_for_longest_is_dropped():
    double = nt.compile(lambda x: x * 2, max_tapes=2)
    for n in (1, 2, 1, 3, 1):
        double(np.ones(n))
    assert len(double.misses) == 3


def test_tapes_of_other_modes_are_kept():
    dropout = nn.Dropout(0.5)
    compiled = nt.compile(dropout)
    for training in (True, False, True, False):
        dropout.train(training)
        compiled(np.ones(3, np.float32))
    assert len(compiled.misses) == len(compiled.tapes) == 2


class Setting:
    """Something static that a traced function reads."""


def settings_of(compiled, setting, values):
    for setting.value in values:
        assert compiled(ONES).tolist() == (ONES * setting.value).tolist()
    return compiled


def test_settings_count_like_any_tapes():
    setting = Setting()
    compiled = nt.compile(lambda x: x * setting.value)
    assert settings_of(compiled, setting, [0, 1, 2, 3, 4, 5] * 3).traces == 6
    few = nt.compile(lambda x: x * setting.value, max_tapes=3)
    assert settings_of(few, setting, [0, 1, 2, 3, 3, 2, 1, 0]).traces == 5


def test_the_setting_unused_for_longest_is_dropped():
    setting = Setting()
    compiled = nt.compile(lambda x: x * setting.value, max_tapes=3)
    assert settings_of(compiled, setting, [1, 2, 1, 3, 1, 4, 1, 5, 1]).traces == 5


def test_the_reason_is_what_differs_from_the_setting_used_last():
    setting = Setting()
    compiled = nt.compile(lambda x: x * setting.value + setting.other)
    for setting.value, setting.other in ((1, 1), (2, 1), (1, 1), (1, 2)):
        compiled(ONES)
    reason = compiled.explain().splitlines()[-1]
    assert "setting.other changed" in reason
    assert "setting.value" not in reason


def test_of_all_arguments_and_settings_the_one_unused_for_longest_is_dropped():
    setting = Setting()
    compiled = nt.compile(lambda x: x * setting.value, max_tapes=3)
    for setting.value, n in ((1, 3), (2, 4), (1, 5), (2, 3), (2, 4), (2, 3), (2, 4)):
        compiled(np.ones(n))
    assert compiled.traces == 4


def test_the_source_of_a_tape_that_went_is_forgotten():
    compiled = nt.compile(lambda x: x * 2.0, max_tapes=1)
    compiled(np.ones(2))
    name = compiled.tapes[0]._tape.filename
    assert name in linecache.cache
    compiled(np.ones(3))
    gc.collect()
    assert name not in linecache.cache


# ---- bytes --------------------------------------------------------------------------------


def with_constant(x):
    """A tape of its own for each length, with 4 bytes of constants for each entry and more."""
    return x + nt.cumsum(nt.ones(x.shape[0], np.float32))


def lengths_kept(compiled):
    return [tape.arguments[0].shape[0] for tape in compiled.tapes]


def test_tapes_are_bounded_in_bytes():
    compiled = nt.compile(with_constant, max_bytes="100kB")
    for n in (5_000, 6_000, 5_000, 7_000):
        compiled(np.ones(n, np.float32))
    assert lengths_kept(compiled) == [5_000, 7_000]
    assert sum(tape.nbytes for tape in compiled.tapes) <= 100_000
    assert compiled.explain().endswith(", and 1 dropped")


def test_a_tape_counts_its_constants_and_program():
    small, large = (nt.compile(with_constant).tape(np.ones(n, np.float32)) for n in (10, 10_010))
    assert large.nbytes - small.nbytes == pytest.approx(40_000, abs=64)
    assert small.nbytes > 1_000


def test_arrays_that_only_older_tapes_read_count():
    setting = Setting()
    compiled = nt.compile(lambda x: (x * setting.value).sum(), max_bytes="1MB")
    for value in range(10):
        setting.value = np.full(50_000, float(value))
        assert compiled(2.0).item() == 100_000 * value
    assert len(compiled.tapes) == 3
    shared = nt.compile(lambda x: setting.value[: x.shape[0]] * x, max_bytes="1MB")
    for n in range(1, 11):
        shared(np.ones(n))
    assert len(shared.tapes) == 10


def test_the_latest_tape_stays_beyond_the_limit_alone():
    compiled = nt.compile(with_constant, max_bytes=1)
    for n in (5_000, 6_000, 6_000):
        compiled(np.ones(n, np.float32))
    assert lengths_kept(compiled) == [6_000]
    assert compiled.traces == 2


@pytest.mark.parametrize("wrong", [0, -1, "some", 1.5, True])
def test_bytes_that_are_none(wrong):
    with pytest.raises(ValueError, match="max_bytes is a positive number of bytes"):
        nt.compile(with_constant, max_bytes=wrong)


def test_memory_of_the_largest_tape_goes_with_it():
    compiled = nt.compile(lambda x: nt.exp(x) * 2.0, max_tapes=1)
    compiled(np.ones(100_000))
    block = weakref.ref(compiled.tapes[0]._tape.acquire().block)
    compiled.tapes[0]._tape.release(next(iter(block().bound.values())))
    compiled(np.ones(10))
    compiled(np.ones(10))
    gc.collect()
    assert block() is None
