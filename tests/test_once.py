"""What comes once, random numbers and items of iterators, and so cannot be part of a tape."""

import csv
import itertools
import random
import time
from collections import deque
from functools import partial
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
from helpers import last_line, lines_of

import numtape as nt
from numtape import nn

ONES = np.ones(3)
OUTSIDE = nt.tensor([1.0, 2.0])


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
    with pytest.raises(nt.TraceError, match=r"test_once\.py:\d+: .* cannot draw"):
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
    with pytest.raises(nt.TraceError, match=rf"test_once\.py:{line}: .* traced again"):
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
    with pytest.raises(nt.TraceError, match=r"test_once\.py:\d+: .* return a tuple, a list or"):
        nt.compile(function)(ONES)


def test_collections_without_traced_tensors_are_returned():
    compiled = nt.compile(lambda x: (x, {1, 2}, {"a": 1}.keys(), deque([3]), {OUTSIDE}))
    assert list(map(list, compiled(ONES)[1:])) == [[1, 2], ["a"], [3], [OUTSIDE]]
