"""The plan, the source and the replay: memory that never overlaps, steps that never allocate."""

import ast
import gc
import linecache
import threading
import traceback
import tracemalloc

import numpy as np
import pytest
from programs import RandomProgram, gpt_step, mlp_step

import numtape as nt
from numtape.runtime.arena import ALIGNMENT

KIB = 1024
STEPS = {"mlp": mlp_step, "gpt": gpt_step, "gpt with dropout": lambda: gpt_step(dropout=0.1)}
each_step = pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)


def forward_and_reverse():
    """A tape in two parts."""
    weight = nt.Tensor(np.ones((6, 4)), requires_grad=True)
    function = lambda x: (nt.exp(x @ weight).sum(1) * (x @ weight).max(1)).sum()
    return function, (np.linspace(-1, 1, 30).reshape(5, 6),)


def programs(**kinds):
    return [RandomProgram(seed, **kinds) for seed in range(12)]


# ---- the plan -----------------------------------------------------------------------------


class Timeline:
    """When each root is written and read, worked out from the order of the plan alone."""

    def __init__(self, plan):
        self.plan, graph = plan, plan.graph
        self.written, self.read = {}, {}
        between, self.end = 2 * plan.first - 1, 2 * len(plan.order) + 1
        early = graph.early or (len(graph.inputs), 0)
        for i, value in enumerate(graph.inputs):
            self.written[value] = -1 if i < early[0] else between
        for node in plan.fixed:
            self.written[node] = -2
            self.read.setdefault(node, []).append(self.end)
        for i, node in enumerate(plan.order):
            self.written[node] = 2 * i
            for v in node.inputs:
                self._read(v, 2 * i)
        after = between if graph.early else self.end
        for i, v in enumerate(graph.outputs):
            self._read(v, after if i < early[1] or not graph.early else self.end)
        for _, new in graph.updates:
            self._read(new, after)

    def _read(self, value, time):
        self.read.setdefault(self.plan.places[value].root, []).append(time)

    def place(self, root):
        """Whose memory, from where to where."""
        owner = self.plan.owner.get(root, root)
        start = self.plan.offsets.get(owner, 0)
        space = None if owner in self.plan.offsets else owner
        block = "constants" if owner in set(self.plan.fixed) else space
        return block, start, start + root.nbytes

    def clashes(self):
        """Values that are read after something else was written over them."""
        places = {root: self.place(root) for root in self.written}
        for root, time in self.written.items():
            space, start, stop = places[root]
            for other, (other_space, low, high) in places.items():
                overlap = other_space is space and low < stop and start < high
                if other is root or not overlap or self.written[other] >= time:
                    continue
                last = max(self.read.get(other, [-9]))
                aligned = start == low and root.nbytes == other.nbytes
                if last > time or (last == time and not (aligned and self._in_place(root, other))):
                    yield root, other

    def _in_place(self, node, other):
        """Whether the op may write over what it reads of the other, entry over entry."""
        places, allowed = self.plan.places, node.op.inplace
        anywhere = node.op.broadcasts and len(allowed) > 1
        return all(
            (position in allowed or anywhere) and v.shape == node.shape and places[v].contiguous
            for position, v in enumerate(node.inputs)
            if places[v].root is other
        )


def plan_of(function, arguments, exact=False):
    return nt.compile(function, exact=exact).tape(*arguments)._tape.plan


@pytest.mark.parametrize("make", [*STEPS.values(), forward_and_reverse])
def test_no_live_memory_is_overwritten(make):
    assert list(Timeline(plan_of(*make())).clashes()) == []


@pytest.mark.parametrize("kind", [{}, {"update": True}, {"learn": True}], ids=str)
def test_no_live_memory_is_overwritten_in_random_programs(kind):
    for program in programs(**kind):
        assert list(Timeline(plan_of(program, program.arguments)).clashes()) == []


@each_step
def test_arena_is_as_large_as_was_said(make):
    function, arguments = make()
    tape = nt.compile(function).tape(*arguments)
    said = tape.memory.arena
    bound = tape._tape.acquire()
    assert bound.arena.nbytes == said
    assert bound.arena.ctypes.data % ALIGNMENT == 0
    slots = tape._tape.plan.slots
    assert all(s.offset % ALIGNMENT == 0 for s in slots)
    assert max(s.offset + s.nbytes for s in slots) == said
    assert said < tape.memory.unshared


@each_step
def test_arena_is_full_at_its_fullest_moment(make):
    """No lower bound is missed by much: the most bytes in use at once."""
    function, arguments = make()
    plan = plan_of(function, arguments)
    moments = range(-1, len(plan.order) + 1)
    used = max(sum(s.nbytes for s in plan.slots if s.start <= t <= s.stop) for t in moments)
    assert used <= plan.nbytes <= 1.25 * used


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


# ---- calls in flight ----------------------------------------------------------------------


def test_results_are_kept_across_calls():
    compiled = nt.compile(lambda x: (x * 2, x.T, x[0], x))
    kept = [(x, compiled(x)) for x in np.random.default_rng(0).normal(size=(4, 3, 3))]
    for x, results in kept:
        for found, expected in zip(results, (x * 2, x.T, x[0], x), strict=True):
            assert np.array_equal(found.numpy(), expected)
            assert not np.shares_memory(found.numpy(), x)


def test_results_of_training_calls_are_kept():
    function, arguments = forward_and_reverse()
    compiled = nt.compile(function)
    first = compiled(*arguments)
    value = first.item()
    first.backward()
    compiled(2 * arguments[0]).backward()
    assert first.item() == value


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_backwards_in_any_order(order):
    weight = nt.Tensor(np.linspace(0.5, 1.5, 4), requires_grad=True)
    loss = lambda x: (nt.exp(x * weight) * weight).sum()
    compiled = nt.compile(loss, exact=True)
    inputs = np.random.default_rng(1).normal(size=(3, 4))
    losses = [compiled(x) for x in inputs]
    for i in order:
        weight.grad = None
        loss(nt.Tensor(inputs[i])).backward()
        expected = weight.grad.numpy()
        weight.grad = None
        losses[i].backward()
        assert np.array_equal(weight.grad.numpy(), expected)


def test_calls_of_several_shapes_in_flight():
    weight = nt.Tensor(np.linspace(0.5, 1.5, 4), requires_grad=True)
    loss = lambda x: (nt.exp(x * weight).sum(0) * weight).sum()
    compiled = nt.compile(loss, exact=True)
    inputs = [np.random.default_rng(n).normal(size=(n, 4)) for n in (3, 50, 7, 3)]
    for _ in range(2):
        losses = [compiled(x) for x in inputs]
        for i in (1, 3, 0, 2):
            weight.grad = None
            loss(nt.Tensor(inputs[i])).backward()
            expected = weight.grad.numpy()
            weight.grad = None
            losses[i].backward()
            assert np.array_equal(weight.grad.numpy(), expected)


def test_second_backward_of_a_call_is_an_error():
    function, arguments = forward_and_reverse()
    loss = nt.compile(function)(*arguments)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="arena"):
        loss.backward()


def test_arenas_come_back():
    function, arguments = forward_and_reverse()
    compiled = nt.compile(function)
    losses = [compiled(*arguments) for _ in range(3)]
    tape = compiled.tapes[0]._tape
    assert tape.arenas == 0
    losses[0].backward()
    gc.collect()
    assert tape.arenas == 1
    del losses
    gc.collect()
    assert tape.arenas == 3
    compiled(*arguments)
    gc.collect()
    assert tape.arenas == 3  # no fourth was made


def test_arena_comes_back_after_an_error():
    pick = nt.compile(lambda x, i: nt.take(x, i))
    for _ in range(2):
        with pytest.raises(IndexError):
            pick(np.ones(3), np.array([7]))
    gc.collect()
    assert pick.tapes[0]._tape.arenas == 1


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

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert np.array_equal(found, expected)
    assert len(compiled.misses) == 1


def test_threads_trace_and_replay_many_shapes():
    compiled = nt.compile(lambda x: (x * 2).cumsum(0) + x.sum())
    start = threading.Barrier(8)
    wrong = []

    def work(thread):
        start.wait(30)
        for n in [1 + (thread + i) % 8 for i in range(40)]:
            x = np.full(n, float(thread))
            expected = np.cumsum(x * 2) + x.sum()
            if not np.array_equal(compiled(x).numpy(), expected):
                wrong.append((thread, n))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(compiled.misses) == 8
