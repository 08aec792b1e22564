"""Compiled functions under threads and under the garbage collector."""

import cProfile
import gc
import queue
import random
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

import numtape as nt
from numtape.runtime import blocks

ONES = np.ones(3)
exact = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.4.0",
    reason="a thread cannot take the locks of its generators twice",
)


def finish(*targets, seconds=60):
    """Run each target on a thread of its own; what went wrong, by its text."""
    errors = []

    def guarded(target):
        try:
            target()
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(t,), daemon=True) for t in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(t.is_alive() for t in threads)
    return errors


def test_a_call_in_flight_is_collected_while_a_block_is_taken(monkeypatch):
    weight = nt.Tensor(np.ones(1), requires_grad=True)
    loss = nt.compile(lambda x: (x * weight * weight).sum())
    cycle = [loss(ONES)]
    cycle.append(cycle)
    del cycle
    loss(ONES).backward()  # leaves a free block
    size = blocks._size

    def collecting(block):
        gc.collect()  # it may run at any allocation
        return size(block)

    monkeypatch.setattr(blocks, "_size", collecting)
    assert finish(lambda: loss(np.ones(5)), seconds=10) == []


@pytest.mark.filterwarnings("ignore::numtape.RetraceWarning")
def test_tapes_are_found_while_others_are_made():
    interval = sys.getswitchinterval()
    add = nt.compile(lambda x: x + 1.0, max_tapes=300)
    for n in range(1, 60):
        add(np.ones(n))
    making = True

    def find():
        while making:
            for n in range(1, 60):
                add(np.ones(n))

    def make():
        nonlocal making
        try:
            for n in range(60, 120):
                add(np.ones(n))
                assert len(add.tapes) == n
        finally:
            making = False

    sys.setswitchinterval(1e-6)
    try:
        assert finish(find, find, make) == []
    finally:
        sys.setswitchinterval(interval)


@exact
def test_another_thread_draws_random_numbers_during_a_trace():
    drawing = True

    def load():
        while drawing:
            random.random()
            np.random.rand(3)
            time.sleep(0)

    def trace():
        nonlocal drawing
        try:
            for n in range(1, 6):
                assert nt.compile(lambda x: (x * 2).sum())(np.ones(n)).item() == 2 * n
        finally:
            drawing = False

    assert finish(load, trace) == []


def test_random_states_are_not_rewound_where_another_thread_drew():
    go, drawn = threading.Event(), threading.Event()

    def draw():
        assert go.wait(10)
        random.random()
        drawn.set()

    def double(x):
        go.set()
        assert drawn.wait(10)
        return x * 2

    before = random.getstate()
    assert finish(draw, lambda: nt.compile(double)(ONES)) == []
    assert random.getstate() != before


@contextmanager
def another_thread(action):
    """It acts again and again until the block ends."""
    acting = True

    def act():
        while acting:
            action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    try:
        yield
    finally:
        acting = False
        thread.join(10)
    assert not thread.is_alive()


def draws_from_python(x):
    return x * random.random()


def draws_bits(x):
    return x * random.randrange(10)


def draws_from_numpy(x):
    return x * float(np.random.random())


DRAWS = {
    "python": random.random,
    "numpy": np.random.random,
    "many": lambda: np.random.normal(size=1000),  # NumPy lets other threads run meanwhile
    "now and then": lambda: (random.random(), np.random.random(), time.sleep(0.001)),
}


@exact
@pytest.mark.parametrize("function", [draws_from_python, draws_bits, draws_from_numpy])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_draw_is_found_while_another_thread_draws(function, draw):
    line = function.__code__.co_firstlineno + 1
    with another_thread(draw):
        for _ in range(3):
            with pytest.raises(nt.TraceError, match=rf"test_threads\.py:{line}: .* cannot draw"):
                nt.compile(function)(ONES)


@exact
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_what_another_thread_draws_is_no_harm(draw):
    intervals = set()

    def masks(x):
        intervals.add(sys.getswitchinterval())
        bias = np.exp(-np.tril(np.ones((200, 200))))  # here the other thread runs
        time.sleep(0.002)
        return x * bias[0, 1]

    interval = sys.getswitchinterval()
    with another_thread(draw):
        for _ in range(3):
            assert nt.compile(masks)(ONES).tolist() == [1.0, 1.0, 1.0]
    assert intervals == {interval}  # a longer one would keep the other thread waiting


@exact
def test_a_traced_function_waits_for_a_thread_that_draws():
    wanted, given = queue.Queue(), queue.SimpleQueue()

    def work():
        while wanted.get(timeout=30):
            given.put(np.random.normal(size=3) + random.random())

    def ask(x):
        wanted.put(True)
        return x * len(given.get())

    def call():
        assert nt.compile(ask)(ONES).tolist() == [3.0, 3.0, 3.0]
        wanted.put(False)

    assert finish(work, call) == []


@exact
def test_a_traced_function_takes_a_lock_under_which_another_thread_draws():
    drawing = threading.Lock()

    def draw():
        with drawing:
            time.sleep(0.001)
            np.random.random()

    def waits(x):
        with drawing:
            time.sleep(0.002)
        return x * 2

    def traces():
        for _ in range(5):
            nt.compile(waits)(ONES)

    with another_thread(draw):
        assert finish(traces, seconds=20) == []


@exact
def test_profilers_go_on_while_another_thread_draws():
    """Those in C are no functions: Python gives them out, but does not take them back."""
    profiler = cProfile.Profile()

    def pauses(x):
        time.sleep(0.005)
        return x * 2

    with another_thread(random.random):
        profiler.runcall(nt.compile(pauses), ONES)
    assert any(getattr(entry.code, "co_name", "") == "pauses" for entry in profiler.getstats())


def test_threads_call_one_function_at_once():
    weight = nt.Tensor(np.random.default_rng(2).normal(size=(32, 32)))
    function = lambda x: nt.exp((x @ weight).tanh()).sum(1)
    compiled = nt.compile(function, exact=True)
    inputs = np.random.default_rng(3).normal(size=(8, 20, 16, 32))
    expected = [[function(nt.Tensor(x)).numpy() for x in many] for many in inputs]
    found = [[None] * 20 for _ in range(8)]
    start = threading.Barrier(8)

    def work(i):
        start.wait(30)
        for j, x in enumerate(inputs[i]):
            found[i][j] = compiled(x).numpy()

    assert finish(*(partial(work, i) for i in range(8))) == []
    assert np.array_equal(found, expected)
    assert len(compiled.misses) == 1


def test_threads_trace_and_replay_many_shapes():
    compiled = nt.compile(lambda x: (x * 2).cumsum(0) + x.sum())
    start = threading.Barrier(8)

    def work(thread):
        start.wait(30)
        for n in [1 + (thread + i) % 8 for i in range(40)]:
            x = np.full(n, float(thread))
            expected = np.cumsum(x * 2) + x.sum()
            assert np.array_equal(compiled(x).numpy(), expected), (thread, n)

    assert finish(*(partial(work, i) for i in range(8))) == []
    assert len(compiled.misses) == 8


def test_training_steps_on_one_storage_take_turns():
    """Two functions that update the same tensor, from eight threads: no update is lost."""
    total = nt.Tensor(np.zeros((64, 64)))
    more = nt.compile(lambda x: total.assign(total + x))
    twice = nt.compile(lambda x: total.assign((total + x) + x))
    start = threading.Barrier(8)

    def work(step):
        start.wait(30)
        for _ in range(100):
            step(np.ones((64, 64)))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert finish(*(partial(work, (more, twice)[i % 2]) for i in range(8))) == []
    finally:
        sys.setswitchinterval(interval)
    assert np.array_equal(total.numpy(), np.full((64, 64), 1200.0))


def test_reverse_tapes_of_many_threads_while_shapes_are_traced():
    """Eight threads hold several calls each, of shapes old and new, and go back in any order."""
    scale = nt.Tensor(np.linspace(0.5, 1.5, 6))
    function = lambda x: (nt.exp(x * scale).sum(), (x * x * scale).sum())
    compiled = nt.compile(function, exact=True)
    start = threading.Barrier(8)

    def slopes(run, given, places):
        xs = [nt.Tensor(a, requires_grad=True) for a in given]
        calls = [run(x) for x in xs]
        for i in places:
            calls[i][i % 2].backward()  # from one result of two
        return [x.grad.numpy() for x in xs]

    def work(thread):
        rng = np.random.default_rng(thread)
        start.wait(30)
        for _ in range(12):
            given = [rng.normal(size=(1 + n, 6)) for n in rng.integers(12, size=3)]
            places = rng.permutation(3)
            for found, wanted in zip(
                slopes(compiled, given, places), slopes(function, given, places), strict=True
            ):
                assert np.array_equal(found, wanted)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        assert finish(*(partial(work, i) for i in range(8))) == []
    finally:
        sys.setswitchinterval(interval)
    assert len(compiled.misses) == 12


def test_lazy_modules_are_whole_for_every_thread():
    """Many threads that compile first at once: nobody sees a module half made."""
    program = """
import threading
import numpy as np
import numtape as nt
failed, start = [], threading.Barrier(8)
def work():
    start.wait()
    try:
        nt.compile(lambda x: x * 2.0)(np.ones(3))
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
assert not failed, failed
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", program], check=True)
