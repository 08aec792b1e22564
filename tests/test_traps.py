"""What goes wrong when a function is traced once and replayed: each trap is a test.

A compiled function either does what the eager one does, or raises an error that names the line.
"""

import csv
import itertools
import random
import time
from collections import deque
from functools import partial
from types import MappingProxyType, SimpleNamespace

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


class Reads(nn.Module):
    """Takes an item in every call."""

    def __init__(self, items):
        self.items = items

    def forward(self, x):
        return x + next(self.items)


class Loader:
    """An iterator of one's own, with settings."""

    def __init__(self, items):
        self.batch_size = 4
        self.items = items
        self.taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        return next(self.items)


def begun():
    generator = (i for i in range(3))
    next(generator)
    return generator


ITERATORS = {
    "list": lambda: iter([1.0, 2.0]),
    "set": lambda: iter({1.0, 2.0}),
    "dict": lambda: iter({1.0: 2.0}),
    "generator": lambda: (i for i in range(3)),
    "map": lambda: map(abs, [1.0, 2.0]),
    "zip of map": lambda: zip(map(abs, [ONES]), strict=True),
    "chain": lambda: itertools.chain([1.0], [2.0]),
    "count": itertools.count,
    "own": lambda: Loader(iter([1.0, 2.0])),
    "own over own": lambda: Loader(Loader(iter([1.0]))),
}
UNTOLD = {
    "generator": begun,
    "csv": lambda: csv.reader(["1", "2"]),
    "product": lambda: itertools.product([1.0], [2.0]),
    "callable": lambda: iter(time.perf_counter, None),
    "map": lambda: map(abs, begun()),
}


@pytest.mark.parametrize("make", ITERATORS.values(), ids=ITERATORS)
def test_an_iterator_outside_of_which_the_trace_takes_items(make):
    with pytest.raises(nt.TraceError, match=r"\.items is a .* gives its items once"):
        nt.compile(Reads(make()))(ONES)


@pytest.mark.parametrize("make", ITERATORS.values(), ids=ITERATORS)
def test_an_iterator_outside_that_is_left_alone(make):
    items = make()
    first = next(make())

    def trains(x, given=items):
        return x * 2 if items is not None else x

    compiled = nt.compile(trains)
    assert compiled(ONES).tolist() == compiled(ONES, None).tolist() == [2.0, 2.0, 2.0]
    np.testing.assert_equal(next(items), first)  # nothing was lost
    assert compiled(ONES).tolist() == [2.0, 2.0, 2.0]
    assert len(compiled.misses) == 2


@pytest.mark.parametrize("make", UNTOLD.values(), ids=UNTOLD)
def test_an_iterator_outside_that_does_not_tell(make):
    items = make()
    with pytest.raises(nt.TraceError, match=r"the variable items is a .* takes them or can"):
        nt.compile(lambda x: x * 2 if items else x)(ONES)


def test_settings_of_an_iterator_of_ones_own():
    loader = Loader(begun())
    compiled = nt.compile(lambda x: x * loader.batch_size)
    assert compiled(ONES).tolist() == [4.0, 4.0, 4.0]
    loader.batch_size = 5
    next(loader)
    assert compiled(ONES).tolist() == [5.0, 5.0, 5.0]


def test_a_name_that_an_iterator_has_elsewhere():
    class Trainer:
        def __init__(self):
            self.batches = iter([ONES, ONES])
            self.data = SimpleNamespace(batches=10)

        def fit(self):
            return [self.step(batch).tolist() for batch in self.batches]

        @nt.compile
        def step(self, x):
            return x * self.data.batches

    assert Trainer().fit() == [[10.0, 10.0, 10.0]] * 2


@pytest.mark.parametrize(
    "function", [yields, waits, Yields(), partial(yields), partial(partial(waits), ONES)]
)
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


@pytest.mark.parametrize(
    "function",
    [
        lambda x: {"twice": x * 2}.values(),
        lambda x: {"twice": x * 2}.items(),
        lambda x: (1, {x * 2}),
        lambda x: frozenset([(x * 2, 1)]),
        lambda x: deque([frozenset([x])]),
        lambda x: MappingProxyType({"twice": x * 2}),
    ],
)
def test_results_that_hide_tensors(function):
    with pytest.raises(nt.TraceError, match=r"test_traps\.py:\d+: .* return a tuple, a list or"):
        nt.compile(function)(ONES)


def test_collections_without_traced_tensors_are_returned():
    compiled = nt.compile(lambda x: (x, {1, 2}, {"a": 1}.keys(), deque([3]), {OUTSIDE}))
    assert list(map(list, compiled(ONES)[1:])) == [[1, 2], ["a"], [3], [OUTSIDE]]


# ---- objects and dtypes -------------------------------------------------------------------


def test_a_compiled_method_needs_a_place():
    class Slotted:
        __slots__ = ("weight",)

        @nt.compile
        def scale(self, x):
            return x * 2

    class Open(Slotted):
        __slots__ = ("__dict__",)

    with pytest.raises(TypeError, match=r'test_traps\.py.* a Slotted has not; add "__dict__" to'):
        Slotted().scale(ONES)
    assert Open().scale(ONES).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.skipif(np.longdouble(0).itemsize == 8, reason="the same as float64")
@pytest.mark.parametrize("make", [nt.Tensor, nt.tensor, nt.compile(lambda x: x * 2)])
def test_floats_of_other_sizes(make):
    with pytest.raises(TypeError, match=r"holds floats \(32, 64\), .* not float(96|128)"):
        make(np.ones(3, np.longdouble))


# ---- what a trace would swallow -----------------------------------------------------------


def swallows(x):
    try:
        if x.sum() > 0:
            return x
    except TypeError:
        pass
    return x * 0.0


@pytest.mark.parametrize("look", [lambda k: {0.5: 2.0}.get(k, 1.0), lambda k: len({k, 0.5})])
def test_a_float_is_no_key(look):
    with pytest.raises(nt.TraceError, match="a Python float is an input"):
        nt.compile(lambda x, k: x * look(k))(ONES, 0.5)
    assert nt.compile(lambda x, k: x * len({k: 1}))(ONES, 2).tolist() == [1.0] * 3


def test_an_error_that_the_function_catches_is_raised_at_the_end():
    with pytest.raises(nt.TraceError, match="cannot decide by") as error:
        nt.compile(swallows)(ONES)
    assert f"{__file__}:{lines_of(swallows)[2]}" in str(error.value)


def sets_an_entry(x, given):
    given["new"] = x
    return x


def exchanges_an_entry(x, given):
    given["old"] = x * 2.0
    return x


def appends(x, given):
    given["list"].append(x)
    return x


def takes_out(x, given):
    return x * given["list"].pop()


@pytest.mark.parametrize("function", [sets_an_entry, exchanges_an_entry, appends, takes_out])
def test_containers_that_are_given_do_not_change(function):
    given = {"old": ONES, "list": [ONES, ONES]}
    with pytest.raises(nt.TraceError, match="changes what is in its argument given"):
        nt.compile(function)(ONES, given)
    assert list(given) == ["old", "list"]
    assert len(given["list"]) == 2


class Output:
    def __init__(self, loss):
        self.loss = loss


@pytest.mark.parametrize("make", [Output, lambda x: [Output(x)], lambda x: partial(print, x)])
def test_objects_that_hide_tensors_are_no_results(make):
    weight = parameter(1.0)
    with pytest.raises(nt.TraceError, match="whose tensors have no values outside the trace"):
        nt.compile(lambda x: (weight.assign(weight + 1.0), make(x))[1])(ONES)
    assert weight.tolist() == [1.0]
    assert nt.compile(lambda x: (x, Output("text")))(ONES)[1].loss == "text"
