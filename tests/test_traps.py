"""What goes wrong when a function is traced once and replayed: each trap is a test.

A compiled function either does what the eager one does, or raises an error that names the line.
"""

import random

import numpy as np
import pytest
from helpers import parameter

import numtape as nt
from numtape import nn

ONES = np.ones(3)


def lines_of(function):
    return [line for *_, line in function.__code__.co_lines() if line]


def last_line(function):
    """How an error names it."""
    return f"{__file__}:{max(lines_of(function))}"


# ---- numbers ------------------------------------------------------------------------------


def test_float_arguments_are_given_at_each_call():
    scale = nt.compile(lambda x, factor: x * factor)
    assert scale(ONES, 2.0).tolist() == [2.0, 2.0, 2.0]
    assert scale(ONES, 3.0).tolist() == [3.0, 3.0, 3.0]
    assert len(scale.tapes) == 1


def test_float_arguments_take_the_dtype_they_meet():
    scale = nt.compile(lambda x, factor: x * factor + factor)
    assert scale(np.ones(2, np.float32), 0.1).dtype == np.float32
    assert scale(np.ones(2), 0.1).tolist() == [0.1 + 0.1] * 2


def test_integer_arguments_are_static():
    repeat = nt.compile(lambda x, n: nt.concatenate([x] * n))
    assert [repeat(ONES, n).shape for n in (2, 3, 2)] == [(6,), (9,), (6,)]
    assert len(repeat.tapes) == 2


def test_integers_floats_and_booleans_are_told_apart():
    add = nt.compile(lambda x, y: x + y)
    counts = np.arange(3)
    found = [add(counts, y).dtype for y in (1, 1.0, True)]
    assert found == [np.int64, np.float32, np.int64]


def test_strings_and_none_are_static():
    choose = nt.compile(lambda x, mode=None: -x if mode == "minus" else x)
    assert choose(ONES).tolist() == choose(ONES, "plus").tolist() == [1.0, 1.0, 1.0]
    assert choose(ONES, "minus").tolist() == [-1.0, -1.0, -1.0]


# ---- what has no value while tracing ------------------------------------------------------


def branch(x):
    return x if x.sum() > 0 else -x


def loop(x):
    for _ in range(x.argmax()):
        x = x * 2
    return x


READS = {
    "branch": (branch, "where"),
    "loop": (loop, "take"),
    "bool": (lambda x: bool(x.sum()), "where"),
    "float": (lambda x: float(x.sum()), "return it"),
    "int": (lambda x: int(x.sum()), "return it"),
    "item": (lambda x: x.sum().item(), "return it"),
    "tolist": (lambda x: x.tolist(), "return it"),
    "numpy": (lambda x: x.numpy(), "return it"),
    "data": (lambda x: x.data, "return it"),
    "asarray": (lambda x: np.asarray(x), "return it"),
    "format": (lambda x: f"{x.sum():.2f}", "return it"),
    "index": (lambda x: [1, 2][x.argmax()], "take"),
}


@pytest.mark.parametrize("function, way_out", READS.values(), ids=READS)
def test_reading_a_traced_tensor(function, way_out):
    with pytest.raises(nt.TraceError, match=way_out) as error:
        nt.compile(function)(ONES)
    assert any(f"test_traps.py:{line}:" in str(error.value) for line in lines_of(function))


def test_errors_tell_where_a_tensor_comes_from():
    escaped = []

    def keep(x):
        escaped.extend((x, x * 2))
        return x

    nt.compile(keep)(ONES)
    computed = rf"\(f64\[3\], computed at test_traps\.py:{lines_of(keep)[1]}\)"
    for tensor, source in zip(escaped, (r"\(f64\[3\], an input\)", computed), strict=True):
        with pytest.raises(nt.TraceError, match=source):
            tensor + 1
    with pytest.raises(nt.TraceError, match=r"decide by a tensor \(f64\[3\], an input\), because"):
        nt.compile(lambda x: x or x)(ONES)


OUTSIDE = nt.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    "function",
    [
        lambda: OUTSIDE.data,
        lambda: OUTSIDE.numpy(),
        lambda: OUTSIDE.tolist(),
        lambda: np.asarray(OUTSIDE),
        lambda: OUTSIDE if OUTSIDE[0] else -OUTSIDE,
    ],
)
def test_reading_a_captured_tensor(function):
    with pytest.raises(nt.TraceError, match=r"test_traps\.py"):
        nt.compile(function)()


def test_mask_as_index():
    with pytest.raises(TypeError, match="where"):
        nt.compile(lambda x: x[x > 0])(ONES)


def test_tensor_with_a_history_from_outside():
    doubled = parameter(1.0, 2.0, 3.0) * 2
    plain = doubled.detach()
    with pytest.raises(nt.TraceError, match="argument"):
        nt.compile(lambda x: x * doubled)(ONES)
    assert nt.compile(lambda x: x * plain)(ONES).tolist() == [2.0, 4.0, 6.0]


def test_tensor_that_escapes_from_a_trace():
    escaped = []

    def double(x):
        escaped.append(x * 2)
        return x

    nt.compile(double)(ONES)
    for use in (lambda t: t + 1, lambda t: t.numpy(), nt.compile(lambda t: t * 2)):
        with pytest.raises(nt.TraceError, match=r"return it .*instead of storing"):
            use(escaped[0])
    with pytest.raises(nt.TraceError):
        nt.compile(lambda: escaped[0] + 1)()
    assert "traced" in repr(escaped[0])


# ---- random numbers -----------------------------------------------------------------------


def draws_from_numpy(x):
    y = x * 2
    return y + np.random.rand()


def draws_a_normal(x):
    return x + np.random.standard_normal()


def draws_from_python(x):
    return x + random.random()


def calls_what_draws(x):
    drawn = draws_from_numpy(x)
    return drawn + 1


@pytest.mark.parametrize(
    "function, guilty",
    [
        (draws_from_numpy, draws_from_numpy),
        (draws_a_normal, draws_a_normal),
        (draws_from_python, draws_from_python),
        (calls_what_draws, draws_from_numpy),
    ],
)
def test_random_numbers_are_not_frozen(function, guilty):
    before = np.random.get_state(legacy=False), random.getstate()
    with pytest.raises(nt.TraceError, match="random") as error:
        nt.compile(function)(ONES)
    assert last_line(guilty) in str(error.value)
    after = np.random.get_state(legacy=False), random.getstate()
    np.testing.assert_equal(after, before)


def test_random_numbers_before_the_call_are_fine():
    scale = nt.compile(lambda x, factor: x * factor)
    assert scale(ONES, random.random()).numpy()[0] != scale(ONES, random.random()).numpy()[0]


@pytest.mark.parametrize("draw", [nn.Dropout(0.5), lambda x: nt.random.default.uniform((8,))])
def test_eager_and_compiled_draw_the_same_numbers(draw):
    x = nt.Tensor(np.ones(8, np.float32))
    nt.random.seed(5)
    eager = [draw(x).numpy() for _ in range(3)]
    state = nt.random.default.state.numpy().copy()
    nt.random.seed(5)
    compiled = nt.compile(draw)
    replayed = [compiled(x).numpy() for _ in range(3)]
    assert np.array_equal(eager, replayed)
    assert np.array_equal(nt.random.default.state.numpy(), state)
    assert not np.array_equal(eager[0], eager[1])
