"""The source and the replay: results as in eager mode, steps that never allocate."""

import ast
import gc
import linecache
import traceback
import tracemalloc

import numpy as np
import pytest
from programs import RandomProgram, each_step, gpt_step

import numtape as nt

KIB = 1024


# ---- allocation ---------------------------------------------------------------------------


def peak_of(run):
    """Bytes allocated at the highest point of a run, above what there was before.

    NumPy's ufuncs read transposed arrays through a buffer of `np.getbufsize()` entries, which is
    theirs to keep; it is made small here so that nothing else hides behind it.
    """
    gc.collect()
    usual = np.setbufsize(64)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = run()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    np.setbufsize(usual)
    del kept
    return peak


def allocated_by_replay(function, arguments):
    compiled = nt.compile(function)
    compiled(*arguments)
    bound = compiled.tapes[0]._tape.acquire()

    def replay():
        for place, array in zip(bound.arguments, arguments, strict=True):
            place[...] = array
        bound.first()

    replay()
    return peak_of(replay)


@each_step
def test_replay_allocates_nothing(make):
    assert allocated_by_replay(*make()) < 8 * KIB  # a draw makes a small generator object


KERNELS = {
    "rows added": lambda x, i: nt.index_add(x, i, x[:1].broadcast_to((4096, 128))),
    "rows taken": lambda x, i: nt.take(x, i),
    "entries taken": lambda x, i: x[i, i % 128],
    "places": lambda x, i: x.argmax(1) + x.argmin(1),
    "running sums": lambda x, i: x.cumsum(0),
    "where": lambda x, i: nt.where(x > 0, x, 0.0),
}


@pytest.mark.parametrize("function", KERNELS.values(), ids=KERNELS)
def test_kernels_allocate_nothing(function):
    rng = np.random.default_rng(0)
    arguments = rng.normal(size=(512, 128)).astype(np.float32), rng.integers(0, 512, 4096)
    assert allocated_by_replay(function, arguments) < 8 * KIB


@each_step
def test_call_allocates_no_more_than_its_results(make):
    function, arguments = make()
    compiled = nt.compile(function)
    for _ in range(2):
        compiled(*arguments)
    assert peak_of(lambda: compiled(*arguments)) < 8 * KIB


def test_large_results_are_copied_out_once():
    double = nt.compile(lambda x: x * 2)
    x = np.ones((256, 256))
    double(x)
    assert x.nbytes <= peak_of(lambda: double(x)) < x.nbytes + 8 * KIB


def test_arena_takes_less_than_half_of_eager_memory():
    function, arguments = gpt_step(layers=3, width=48, length=32)
    function(*arguments)  # the optimizer's state is made
    eager = peak_of(lambda: function(*arguments))
    assert nt.compile(function).tape(*arguments).memory.arena <= eager / 2


# ---- results ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", [{}, {"update": True}, {"learn": True}], ids=str)
def test_random_programs_equal_eager(seed, kind):
    eager, compiled = RandomProgram(seed, **kind), RandomProgram(seed, **kind)
    run = nt.compile(compiled.__call__, exact=True)
    for _ in range(3):
        expected, found = eager(*map(nt.Tensor, eager.arguments)), run(*compiled.arguments)
        for x, y in zip(expected, found, strict=True):
            assert x.type == y.type
            assert np.array_equal(x.numpy(), y.numpy())
        for s, t in zip(eager.state, compiled.state, strict=True):
            assert np.array_equal(s.numpy(), t.numpy())
    assert len(run.misses) == 1


@pytest.mark.parametrize("seed", range(20))
def test_default_mode_is_near_eager(seed):
    program = RandomProgram(seed, learn=True)
    copy = RandomProgram(seed, learn=True)
    found = nt.compile(copy.__call__)(*copy.arguments)
    for x, y in zip(program(*map(nt.Tensor, program.arguments)), found, strict=True):
        np.testing.assert_allclose(y.numpy(), x.numpy(), rtol=1e-10, atol=1e-10)


@each_step
def test_training_equals_eager(make):
    runs = []
    for transform in (lambda f: f, lambda f: nt.compile(f, exact=True)):
        function, arguments = make()
        step = transform(function)
        runs.append([step(*map(nt.Tensor, arguments)).item() for _ in range(5)])
    assert runs[0] == runs[1]
    assert runs[0][-1] < runs[0][0]


# ---- the source ---------------------------------------------------------------------------


@each_step
def test_source_is_python_that_debuggers_see(make):
    function, arguments = make()
    tape = nt.compile(function).tape(*arguments)
    ast.parse(tape.source)
    assert "".join(linecache.getlines(tape._tape.filename)) == tape.source
    linecache.checkcache(tape._tape.filename)
    assert linecache.getlines(tape._tape.filename)
    assert max(map(len, tape.source.splitlines())) < 1000


def test_failing_kernel_shows_its_line():
    pick = nt.compile(lambda x, i: nt.take(x, i, axis=1))
    with pytest.raises(IndexError, match=r"index 9 at position \(1,\)") as error:
        pick(np.ones((2, 5)), np.array([0, 9]))
    frames = traceback.extract_tb(error.value.__traceback__)
    (shown,) = [f.line for f in frames if f.filename.startswith("<numtape")]
    assert shown in pick.tapes[0].source
    assert "test_runtime.py" in shown


def test_one_value_for_two_tensors():
    first, second = nt.Tensor(np.zeros(3)), nt.Tensor(np.zeros(3))

    def both(x):
        value = x * 2.0
        first.assign(value)
        second.assign(value)
        return x + 1.0

    nt.compile(both)(nt.Tensor(np.arange(3.0)))
    assert first.numpy().tolist() == second.numpy().tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("exact", [False, True])
def test_repeated_once_is_no_reason_to_write_to_a_view(exact):
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)
    for function in (
        lambda x: nt.exp(nt.broadcast_to(nt.tanh(x), (1, 4, 6))[0]),
        lambda x: nt.tanh(nt.broadcast_to(x, (1, 4, 6))),
        lambda x: nt.broadcast_to((x * 2.0).sum(), (1, 1)).sum(0) * 3.0,
    ):
        found = nt.compile(function, exact=exact)(x)
        np.testing.assert_allclose(found.numpy(), function(nt.Tensor(x)).numpy(), rtol=1e-6)
