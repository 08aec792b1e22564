"""What goes wrong when a function is traced once and replayed: each trap is a test.

A compiled function either does what the eager one does, or raises an error that names the line.
"""

import itertools
import random
import time
from functools import partial

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


OWN = np.random.default_rng(0)
OLD = np.random.RandomState(0)
PYTHON = random.Random(0)


class Noisy(nn.Module):
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def forward(self, x):
        return x + self.rng.normal(size=3)


def draws_from_own(x):
    return x + OWN.normal(size=3)


def draws_from_old(x):
    return x + OLD.normal(size=3)


def draws_from_an_instance(x):
    return x + PYTHON.random()


def draws_from_an_argument(x, rng=OWN):
    return x + rng.normal(size=3)


@pytest.mark.parametrize(
    "function, guilty",
    [
        (draws_from_own, draws_from_own),
        (draws_from_old, draws_from_old),
        (draws_from_an_instance, draws_from_an_instance),
        (draws_from_an_argument, draws_from_an_argument),
        (Noisy(), Noisy.forward),
        (lambda x: draws_from_own(x) * 2, draws_from_own),
    ],
)
def test_own_generators_are_not_frozen(function, guilty):
    before = OWN.bit_generator.state, OLD.get_state(legacy=False), PYTHON.getstate()
    with pytest.raises(nt.TraceError, match="random") as error:
        nt.compile(function)(ONES)
    assert last_line(guilty) in str(error.value)
    after = OWN.bit_generator.state, OLD.get_state(legacy=False), PYTHON.getstate()
    np.testing.assert_equal(after, before)


def test_a_generator_as_argument_is_not_frozen():
    with pytest.raises(nt.TraceError, match="random"):
        nt.compile(draws_from_an_argument)(ONES, np.random.default_rng(3))


def test_a_generator_that_nobody_draws_from_is_no_harm():
    compiled = nt.compile(lambda x, rng=OWN: x * len(str(rng)))
    assert compiled(ONES).tolist() == compiled(ONES).tolist()
    assert len(compiled.tapes) == 1


@pytest.mark.parametrize("rng", [random.SystemRandom(), np.random.RandomState(np.random.PCG64())])
def test_generators_of_any_kind_may_be_near(rng):
    assert nt.compile(lambda x: x * 2 if rng else x)(ONES).tolist() == [2.0, 2.0, 2.0]
    assert nt.compile(lambda x, rng: x * 2)(ONES, rng).tolist() == [2.0, 2.0, 2.0]


def test_a_draw_without_a_line_of_the_users_is_found():
    with pytest.raises(nt.TraceError, match=r"test_traps\.py:\d+: .* cannot draw"):
        nt.compile(partial(np.random.normal, 0.0, 1.0))()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + np.random.default_rng().normal(size=3),
        lambda x: x * 2 + np.random.default_rng().normal(),
        lambda x: x + time.perf_counter(),
    ],
)
def test_what_changes_by_itself_is_told_where_compiling_is_checked(function):
    line = lines_of(function)[0]
    with pytest.raises(nt.TraceError, match=rf"test_traps\.py:{line}: .* traced again"):
        nt.compile(function, validate=True)(ONES)


class Cached:
    """Fills its cache while it is traced first."""

    def __init__(self):
        self.cache = None

    def __call__(self, x):
        if self.cache is None:
            self.cache = nt.tensor(2 * ONES)
        return x * self.cache


@pytest.mark.parametrize(
    "function", [Cached(), lambda x: x + np.random.default_rng(0).normal(size=3), nn.Dropout(0.5)]
)
def test_what_is_the_same_again_passes_the_check(function):
    assert nt.compile(function, validate=True)(ONES).shape == (3,)


# ---- iterators ----------------------------------------------------------------------------


ITERATOR = itertools.count()


def yields(x):
    yield x


async def waits(x):
    return x


class Yields(nn.Module):
    def forward(self, x):
        yield x


@pytest.mark.parametrize(
    "items", [(i for i in range(3)), iter([1, 2]), map(abs, [1]), enumerate([1]), ITERATOR]
)
def test_iterators_are_no_arguments(items):
    with pytest.raises(nt.TraceError, match="gives its items once"):
        nt.compile(lambda x, items: x + sum(items))(ONES, items)


def test_an_iterator_outside():
    class Reads(nn.Module):
        def __init__(self):
            self.items = iter([1.0, 2.0])

        def forward(self, x):
            return x + self.items.__next__()

    for function in (lambda x: x + ITERATOR.__next__(), Reads()):
        with pytest.raises(nt.TraceError, match="gives its items once"):
            nt.compile(function)(ONES)
    assert repr(ITERATOR) == "count(0)"


@pytest.mark.parametrize("function", [yields, waits, Yields()])
def test_functions_that_do_not_return(function):
    with pytest.raises(TypeError, match=r"gives its results by yield|asynchronous"):
        nt.compile(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x * i for i in range(3)),
        lambda x: map(nt.exp, [x]),
        lambda x: {"both": (x, enumerate([x]))},
        lambda x: iter([x]),
    ],
)
def test_results_that_would_run_after_the_trace(function):
    with pytest.raises(nt.TraceError, match="would run after the trace has ended"):
        nt.compile(function)(ONES)
