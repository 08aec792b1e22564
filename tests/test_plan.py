"""The plan: memory that never overlaps, and where each value lies, as text."""

from itertools import combinations

import numpy as np
import pytest
from helpers import written
from hypothesis import given
from hypothesis import strategies as st
from programs import TRAINING, RandomProgram, each_step, forward_and_reverse

import numtape as nt
from numtape.ir.memory import ALIGNMENT, aligned
from numtape.runtime.arena import Span, in_use, pack
from numtape.runtime.emit import emit
from numtape.runtime.plan import plan as plan_for
from numtape.runtime.proof import clashes


def programs(**kinds):
    return [RandomProgram(seed, **kinds) for seed in range(12)]


# ---- memory that never overlaps -----------------------------------------------------------


def plan_of(function, arguments, exact=False):
    return nt.compile(function, exact=exact).tape(*arguments).plan


@pytest.mark.parametrize("make", [*TRAINING.values(), forward_and_reverse])
def test_no_live_memory_is_overwritten(make):
    assert list(clashes(plan_of(*make()))) == []


@pytest.mark.parametrize("kind", [{}, {"update": True}, {"learn": True}], ids=str)
def test_no_live_memory_is_overwritten_in_random_programs(kind):
    for program in programs(**kind):
        assert list(clashes(plan_of(program, program.arguments))) == []


@each_step
def test_arena_is_as_large_as_was_said(make):
    function, arguments = make()
    tape = nt.compile(function).tape(*arguments)
    said = tape.memory.arena
    bound = tape._tape.acquire()
    assert bound.arena.nbytes == said
    assert bound.arena.ctypes.data % ALIGNMENT == 0
    slots = tape.plan.slots
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
    assert used <= plan.memory.arena <= 1.25 * used


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(-1, 20), st.integers(0, 9))))
def test_packing(drawn):
    """Nobody who lives at the same time overlaps; the fullest moment is never undercut."""
    spans = [Span(nbytes, start, start + length) for nbytes, start, length in drawn]
    lows = pack(spans)
    placed = [(low, low + aligned(s.nbytes), s) for low, s in zip(lows, spans, strict=True)]
    for (a, b, x), (c, d, y) in combinations(placed, 2):
        assert b <= c or d <= a or x.stop < y.start or y.stop < x.start
    top = max((end for _, end, _ in placed), default=0)
    assert top >= in_use(spans).max()
    assert top <= sum(aligned(s.nbytes) for s in spans)


# As (KiB, start, stop): each is packed without a gap in one of the orders alone.
PACKED = {
    "pressure, size": [
        (3, 3, 4),
        (3, 1, 4),
        (1, 0, 1),
        (4, 5, 5),
        (4, 2, 2),
        (3, 4, 4),
        (1, 0, 3),
    ],
    "size": [(2, 5, 7), (1, 5, 7), (2, 1, 4), (3, 2, 5), (4, 1, 1), (1, 3, 5)],
    "life": [(4, 4, 6), (3, 1, 2), (2, 1, 2), (2, 0, 1), (2, 1, 4), (1, 5, 6), (2, 2, 5)],
    "nearness": [(1, 0, 0), (4, 1, 1), (1, 1, 3), (4, 5, 5), (3, 4, 4), (1, 3, 5)],
}


@pytest.mark.parametrize("rows", PACKED.values(), ids=PACKED)
def test_packing_finds_blocks_without_gaps(rows):
    spans = [Span(1024 * size, start, stop) for size, start, stop in rows]
    lows = pack(spans)
    assert max(map(sum, zip(lows, (s.nbytes for s in spans), strict=True))) == in_use(spans).max()


# ---- as text, after the graph -------------------------------------------------------------

X = np.arange(12.0).reshape(3, 4)
V = np.array([0.5, -1.0, 2.0, 0.25])


def planned(function, *arguments):
    """A function's graph, its plan, and the kernels of its tape."""
    found = nt.trace(function, *arguments)
    inputs = found.graph.inputs[len(arguments) :]
    captured = {v: c.numpy() for v, c in zip(inputs, found.captured, strict=True)}
    made = plan_for(found.graph, captured)
    return written(found.graph), lines(str(made)), kernels(emit(made)[0])


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def kernels(source):
    """What the tape calls at replay, without the notes at the ends."""
    parts = source.split("def step():\n")[1].split("arguments =")[0]
    calls = (line.split("  #")[0].strip() for line in parts.splitlines())
    return [call for call in calls if call and call not in ("pass", "def update():")]


def test_view_binding():
    """Reshape, split, transpose, slice and broadcast become views: one kernel is left."""

    def looks(x, v):
        left, right = nt.split(x.reshape(2, 6), 2, axis=1)
        return left.T + right.T[:, ::-1], v.broadcast_to((3, 4))

    before, after, called = planned(looks, X, V)
    assert before == [
        "%2: f64[2,6] = reshape(%0, shape=(2, 6))",
        "%3: f64[2,3] = slice(%2, bounds=((0, 2, 1), (0, 3, 1)))",
        "%4: f64[2,3] = slice(%2, bounds=((0, 2, 1), (3, 6, 1)))",
        "%5: f64[3,2] = transpose(%3, axes=(1, 0))",
        "%6: f64[3,2] = transpose(%4, axes=(1, 0))",
        "%7: f64[3,2] = slice(%6, bounds=((0, 3, 1), (1, -1, -1)))",
        "%8: f64[3,2] = add(%5, %7)",
        "%9: f64[3,4] = broadcast_to(%1, shape=(3, 4))",
        "return %8, %9",
    ]
    assert after == [
        "plan of looks: 1 kernels, an arena of 256 bytes",
        "value op from to offset bytes",
        "%0: f64[3,4] input start 0 0 96",
        "%1: f64[4] input start end 128 32",
        "%2: f64[2,6] reshape view of %0",
        "%3: f64[2,3] slice view of %2",
        "%4: f64[2,3] slice view of %2",
        "%5: f64[3,2] transpose view of %3",
        "%6: f64[3,2] transpose view of %4",
        "%7: f64[3,2] slice view of %6",
        "%8: f64[3,2] add 0 end 192 48",
        "%9: f64[3,4] broadcast_to view of %1",
    ]
    assert called == ["np.add(v5, v7, out=v8)"]


def test_a_reshape_that_no_strides_allow_is_a_copy():
    before, after, called = planned(lambda x: x.T.reshape(2, 6), X)
    assert before == [
        "%1: f64[4,3] = transpose(%0, axes=(1, 0))",
        "%2: f64[2,6] = reshape(%1, shape=(2, 6))",
        "return %2",
    ]
    assert after[2:] == [
        "%0: f64[3,4] input start 0 0 96",
        "%1: f64[4,3] transpose view of %0",
        "%2: f64[2,6] reshape 0 end 128 96",
    ]
    assert called == ["np.copyto(v2_4x3, v1)"]


def test_hoisting():
    before, after, called = planned(lambda x: x + nt.arange(4).astype(np.float64), X)
    assert before == [
        "%1: i64[4] = arange(start=0, stop=4, step=1, dtype=int64)",
        "%2: f64[4] = cast(%1, dtype=float64)",
        "%3: f64[3,4] = add(%0, %2)",
        "return %3",
    ]
    assert after[2:] == [
        "%0: f64[3,4] input start 0 0 96",
        "%1: i64[4] arange 0 32 computed once, apart",
        "%2: f64[4] cast 64 32 computed once, apart",
        "%3: f64[3,4] add 0 end 0 96 over %0",
    ]
    assert called == ["np.add(x, v2, out=x)"]


def test_in_place():
    """A result takes the memory of an input that nobody reads later, and of no other."""

    def chain(x):
        y = nt.exp(x)
        return (y + 1.0) * 2.0 * y

    before, after, called = planned(chain, X)
    assert before == [
        "%1: f64[3,4] = exp(%0)",
        "%2: f64[3,4] = add(%1, 1.0)",
        "%3: f64[3,4] = mul(%2, 2.0)",
        "%4: f64[3,4] = mul(%3, %1)",
        "return %4",
    ]
    assert after == [
        "plan of chain: 4 kernels, an arena of 256 bytes",
        "value op from to offset bytes",
        "%0: f64[3,4] input start 0 0 96",
        "%1: f64[3,4] exp 0 3 0 96 over %0",
        "%2: f64[3,4] add 1 2 128 96",
        "%3: f64[3,4] mul 2 3 128 96 over %2",
        "%4: f64[3,4] mul 3 end 128 96 over %3",
    ]
    assert called == [
        "np.exp(x, out=x)",
        "np.add(x, 1.0, out=v2)",
        "np.multiply(v2, 2.0, out=v2)",
        "np.multiply(v2, x, out=v2)",
    ]


def test_updates_in_place():
    total = nt.Tensor(np.zeros(1000))

    def count(x):
        total.assign(total + x)
        return x * 2.0

    before, after, called = planned(count, np.ones(1000))
    assert before == [
        "%2: f64[1000] = add(%1, %0)",
        "%3: f64[1000] = mul(%0, 2.0)",
        "return %3",
        "update %1 <- %2",
    ]
    assert after[2:] == [
        "%0: f64[1000] input start 1 0 8,000",
        "%1: f64[1000] input outside",
        "%2: f64[1000] add 0 end straight into %1",
        "%3: f64[1000] mul 1 end 0 8,000 over %0",
    ]
    assert called == ["np.add(captured0, x, out=captured0)", "np.multiply(x, 2.0, out=x)"]


def test_small_updates_come_last():
    """A counter that the forward part draws on is written with everything else."""
    count, total = nt.Tensor(np.zeros(4)), nt.Tensor(np.zeros(1000))

    def step(x):
        count.assign(count + 1.0)
        y = x * count.sum()
        count.assign(count * 2.0)
        total.assign(total + y)

    source = nt.compile(step).tape(np.ones(1000)).source
    first, update = source.split("def step():")[1].split("def update():")
    assert "out=captured" not in first
    assert "out=captured0" in update
    assert "out=captured1" in update


def test_what_leads_to_an_update_is_in_its_place_too():
    """A decayed average takes no memory but its own, unless its old value is still read."""
    average = nt.Tensor(np.zeros(1000))

    def decay(x):
        average.assign(average * 0.9 + x)

    _, after, called = planned(decay, np.ones(1000))
    assert after[4:] == [
        "%2: f64[1000] mul 0 1 straight into %1",
        "%3: f64[1000] add 1 end straight into %1",
    ]
    assert called == [
        "np.multiply(captured0, 0.9, out=captured0)",
        "np.add(captured0, x, out=captured0)",
    ]

    def difference(x):
        smaller = average * 0.9
        average.assign(smaller + x * average)

    _, after, called = planned(difference, np.ones(1000))
    assert called == [
        "np.multiply(captured0, 0.9, out=v2)",
        "np.multiply(x, captured0, out=x)",
        "np.add(v2, x, out=captured0)",
    ]


STATES = {
    "smaller than its storage": (0, lambda state, x, y: (x.sum(0) + y, x)),
    "read again behind the update": (0, lambda state, x, y: ((old := state * 0.9) + x, old * 2.0)),
    "storage that lies otherwise": (1, lambda state, x, y: (x @ y[0], y)),
}


@pytest.mark.parametrize("axis, function", STATES.values(), ids=STATES)
@pytest.mark.parametrize("exact", [True, False])
def test_what_leads_to_an_update_keeps_its_shape_and_its_readers(axis, function, exact):
    x, y = np.random.default_rng(0).normal(size=(2, 4, 30, 30))

    def run(compiled):
        state = nt.Tensor(np.moveaxis(np.ones(np.moveaxis(x, 0, axis).shape), axis, 0))

        def step(x, y):
            new, shown = function(state, x, y)
            state.assign(new)
            return shown

        call = nt.compile(step, exact=exact) if compiled else step
        results = [call(nt.Tensor(x), nt.Tensor(y)).numpy() for _ in range(2)]
        return [*results, state.numpy()]

    for found, expected in zip(run(True), run(False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


KEPT = {
    "what is computed once": lambda x, i: (nt.arange(4) * 0.5).exp() * x[0],
    "what is added to other rows of itself": lambda x, i: nt.index_add(y := nt.exp(x), i, y),
}


@pytest.mark.parametrize("function", KEPT.values(), ids=KEPT)
def test_what_is_read_again_is_not_overwritten(function):
    i = np.array([1, 2, 3, 0])
    compiled = nt.compile(function, exact=True)
    for scale in (2.0, 3.0):
        x = np.ones((4, 4)) * scale
        assert np.array_equal(compiled(x, i).numpy(), function(nt.Tensor(x), i).numpy())


def test_buffer_reuse():
    """Products cannot be made in place: they take turns in two buffers."""
    before, after, called = planned(lambda x, w: x @ w @ w @ w, X, np.eye(4))
    assert before == [
        "%2: f64[3,4] = matmul(%0, %1)",
        "%3: f64[3,4] = matmul(%2, %1)",
        "%4: f64[3,4] = matmul(%3, %1)",
        "return %4",
    ]
    assert after == [
        "plan of <lambda>: 3 kernels, an arena of 384 bytes",
        "value op from to offset bytes",
        "%0: f64[3,4] input start 0 0 96",
        "%1: f64[4,4] input start 2 128 128",
        "%2: f64[3,4] matmul 0 1 256 96",
        "%3: f64[3,4] matmul 1 2 0 96",
        "%4: f64[3,4] matmul 2 end 256 96",
    ]
    assert called == [
        "np.matmul(x, w, out=v2)",
        "np.matmul(v2, w, out=v3)",
        "np.matmul(v3, w, out=v4)",
    ]


def test_a_plan_of_two_tapes_as_printed():
    """The gradient that is given to the second tape comes when the first has run."""
    weight = nt.Tensor(np.ones(4), requires_grad=True)
    grow = lambda x: nt.exp(x * weight)
    assert str(nt.compile(grow).tape(X).plan).splitlines() == [
        "plan of <lambda>: 5 kernels, an arena of 384 bytes",
        "  value         op      from   to  offset  bytes",
        "  %0: f64[3,4]  input  start    3       0     96",
        "  %1: f64[4]    input                             outside",
        "  %2: f64[3,4]  input      2    2     256     96",
        "  %3: f64[3,4]  mul        0    1     128     96",
        "  %4: f64[3,4]  exp        1    2     128     96  over %3",
        "  %5: f64[3,4]  mul        2    3     256     96  over %2",
        "  %6: f64[3,4]  mul        3    4     256     96  over %5",
        "  %7: f64[4]    sum        4  end       0     32",
    ]
