"""Budgets of memory: what is recomputed, that they are kept to, and that no bit depends on it."""

import gc

import numpy as np
import pytest
from helpers import written
from programs import TRAINING, RandomProgram, each_step, gpt_step

import numtape as nt
from numtape.ir.verify import verify
from numtape.nn import functional as F
from numtape.optim import bundles
from numtape.passes.cuts import reachable
from numtape.passes.fusion import fusion
from numtape.passes.recompute import recompute
from numtape.runtime import tiles

MEMORY = 1  # bytes: a budget that nothing keeps to


@pytest.fixture(autouse=True)
def updates_one_by_one(monkeypatch):
    """In models as small as these, a bundle of all parameters would be what holds the most."""
    monkeypatch.setattr(bundles, "SMALL", 0)


def drawn(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def least_of(function, *arguments, **options):
    with pytest.raises(MemoryError) as caught:
        nt.compile(function, memory=MEMORY, **options).tape(*arguments)
    return caught.value.least


# ---- the pass -----------------------------------------------------------------------------


def chain(x):
    """`exp` is held over the widest moment, which needs neither it nor its input."""
    early = nt.exp(x)
    wide = nt.tanh(nt.concatenate([x + 1.0] * 3))
    return wide.sum() * 2.0 + (early * early).sum()


def test_what_is_held_over_the_peak():
    graph = nt.trace(chain, drawn(100)).graph
    assert written(graph) == [
        "%1: f32[100] = exp(%0)",
        "%2: f32[100] = add(%0, 1.0)",
        "%3: f32[300] = concatenate(%2, %2, %2, axis=0)",
        "%4: f32[300] = tanh(%3)",
        "%5: f32[] = sum(%4, axis=(0,))",
        "%6: f32[] = mul(%5, 2.0)",
        "%7: f32[100] = mul(%1, %1)",
        "%8: f32[] = sum(%7, axis=(0,))",
        "%9: f32[] = add(%6, %8)",
        "return %9",
    ]
    after = verify(recompute(graph, 1600))
    assert written(after) == [
        "%1: f32[100] = add(%0, 1.0)",
        "%2: f32[300] = concatenate(%1, %1, %1, axis=0)",
        "%3: f32[300] = tanh(%2)",
        "%4: f32[] = sum(%3, axis=(0,))",
        "%5: f32[] = mul(%4, 2.0)",
        "%6: f32[100] = exp(%0)",
        "%7: f32[100] = mul(%6, %6)",
        "%8: f32[] = sum(%7, axis=(0,))",
        "%9: f32[] = add(%5, %8)",
        "return %9",
    ]


def test_what_fits_is_left_alone():
    graph = nt.trace(chain, drawn(100)).graph
    assert recompute(graph, 2000) is graph
    assert recompute(graph, 1999) is not graph


def layers(x):
    """Each layer leaves something that is read again at the end, the last layer's first."""
    found, total = [], 0.0
    for _ in range(6):
        x = nt.tanh(x * 0.5)
        found.append(nt.exp(x))
        total = total + found[-1].sum()
    for kept in reversed(found):
        total = total + (kept * kept).sum()
    return total


def test_no_more_than_wanted_is_recomputed():
    graph = nt.trace(layers, drawn(1000)).graph
    nodes = [recompute(graph, n).operations for n in range(8_000, 28_000, 4000)]
    assert nodes == sorted(nodes, reverse=True)
    assert len(set(nodes)) > 2


def test_copies_are_reverse_nodes_at_the_line_of_their_twin():
    def slope(x):
        return nt.grad(lambda x: nt.tanh(nt.tanh(nt.tanh(x)) * 2.0).sum())(x)

    graph = nt.trace(slope, drawn(100)).graph
    after = recompute(graph, 0)
    twins = {v.origin for v in graph.nodes if v.op.name == "tanh"}
    copies = [v for v in after.nodes if v.op.name == "tanh" and v.origin.reverse]
    assert copies
    assert {v.origin._replace(reverse=False) for v in copies} <= twins


def noisy(x):
    noise = nt.random.default.uniform((100,))
    wide = nt.tanh(nt.concatenate([x + 1.0] * 3))
    return wide.sum() * 2.0 + (noise * noise * nt.random.default.uniform((100,))).sum()


def test_random_numbers_are_drawn_again():
    found = []
    for memory in (None, 1800):
        nt.random.seed(3)
        compiled = nt.compile(noisy, memory=memory)
        found.append([bits(compiled(drawn(100))) for _ in range(3)])
        work = [v.op.name for v in compiled.tapes[0].plan.order]
        assert (work.index("uniform") < work.index("tanh")) == (memory is None)
        assert work.count("advance") == 2
    assert found[0] == found[1]


def test_the_cheapest_cut():
    edges = [("s", "a", 3.0), ("s", "b", 2.0), ("a", "b", 5.0), ("a", "t", 1.0), ("b", "t", 9.0)]
    assert reachable(edges, "s", "t") == {"s"}
    assert reachable([*edges[1:], ("s", "a", 9.0)], "s", "t") == {"s", "a"}
    assert reachable([("s", "a", 1.0), ("b", "t", 1.0)], "s", "t") == {"s", "a"}


# ---- budgets are kept to, and no bit depends on them --------------------------------------


def bits(results):
    results = results if isinstance(results, tuple) else (results,)
    return [r.numpy().tobytes() for r in results]


def trained(make, **options):
    """The tape of three training steps, their losses, and what the last left of parameters."""
    step, arguments = make()
    compiled = nt.compile(step, **options)
    losses = [bits(compiled(*arguments)) for _ in range(3)]
    (tape,) = compiled.tapes
    left = [a.tobytes() for a in tape._tape.captured]
    return tape, (losses, left)


@each_step
@pytest.mark.parametrize("exact", [False, True])
def test_training_under_budgets(make, exact):
    whole, expected = trained(make, exact=exact)
    arena = whole.memory.arena
    step, arguments = make()
    least = least_of(step, *arguments, exact=exact)
    assert least < arena
    tape, found = trained(make, exact=exact, memory=least)
    assert tape.memory.arena <= least
    assert found == expected


def test_little_more_than_half_of_the_memory_of_a_deep_model():
    make = lambda: gpt_step(layers=4, batch=8)
    whole, expected = trained(make)
    tape, found = trained(make, memory=int(0.55 * whole.memory.arena))
    assert found == expected
    assert tape.memory.arena <= 0.55 * whole.memory.arena
    assert 0 < tape.recomputed.share < 0.4


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["update", "learn"])
@pytest.mark.parametrize("exact", [False, True])
def test_random_programs_under_their_least(seed, kind, exact):
    make = lambda: RandomProgram(seed, **{kind: True})
    least = least_of(make(), *make().arguments, exact=exact)
    found = []
    for budget in (None, least):
        program = make()
        compiled = nt.compile(program, exact=exact, memory=budget)
        found.append([bits(compiled(*program.arguments)) for _ in range(3)])
    assert found[0] == found[1]
    assert compiled.tapes[0].memory.arena <= least


@pytest.mark.parametrize("function", [lambda x: x @ x, lambda x: nt.tanh(x @ x), nt.sum])
def test_where_nothing_can_be_computed_again(function):
    x = drawn(16, 16)
    assert least_of(function, x) == nt.compile(function).tape(x).memory.arena


@pytest.mark.parametrize("seed", [3, 10])
def test_a_reverse_part_that_reads_old_values(seed):
    """It reads storage that is updated, which belongs to the early part all the same."""
    program = RandomProgram(seed, update=True)
    weights = [nt.Tensor(a, requires_grad=True) for a in program.arguments]
    assert least_of(program, *weights) <= nt.compile(program).tape(*weights).memory.arena


def network(inputs, weights):
    for w in weights:
        inputs = inputs + F.dropout(F.gelu(F.layer_norm(inputs, (16,)) @ w), 0.2)
    return (inputs * inputs).sum()


def pulled(budget, exact):
    """A tape in two parts, run forward twice and then backward: losses, gradients, the tape."""
    nt.random.seed(0)
    weights = [nt.Tensor(drawn(16, 16) * 0.3, requires_grad=True) for _ in range(6)]
    compiled = nt.compile(lambda x: network(x, weights), exact=exact, memory=budget)
    losses = [compiled(drawn(64, 16) * scale) for scale in (1.0, 0.5)]
    for loss in losses:
        loss.backward()
    return bits((*losses, *(w.grad for w in weights))), compiled.tapes[0]


@pytest.mark.parametrize("exact", [False, True])
def test_forward_and_reverse_tapes(exact):
    expected, whole = pulled(None, exact)
    with pytest.raises(MemoryError) as caught:
        pulled(MEMORY, exact)
    assert caught.value.least < 0.8 * whole.memory.arena
    for budget in (caught.value.least, int(0.9 * whole.memory.arena)):
        found, tape = pulled(budget, exact)
        assert found == expected
        assert tape.memory.arena <= budget
        assert tape.recomputed.nodes > 0


def test_a_reverse_tape_draws_what_the_forward_tape_drew():
    def noisy(x):
        for _ in range(5):
            x = x + x * nt.random.default.uniform((100,))
        return x.sum()

    found = []
    for memory in (None, 1700):
        nt.random.seed(0)
        compiled = nt.compile(noisy, memory=memory)
        x = nt.Tensor(drawn(100), requires_grad=True)
        for _ in range(3):
            compiled(x).backward()
        found.append(bits(x.grad))
        tape = compiled.tapes[0]
        late = [v.op.name for v in tape.plan.order[tape.plan.first :]]
        assert ("uniform" in late) == (memory is not None)
    assert found[0] == found[1]


def test_the_reverse_tape_refuses_what_changed_since_it_must_read_it_again():
    weight = nt.Tensor(drawn(64, 64), requires_grad=True)
    scale = nt.Tensor(drawn(64))

    def loss(x):
        for _ in range(4):
            x = nt.tanh(x @ weight + scale)
        return x.sum()

    value = nt.compile(loss, memory=least_of(loss, drawn(256, 64)))(drawn(256, 64))
    scale.assign(scale * 2.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        value.backward()
    gc.collect()


def test_with_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 512)
    monkeypatch.setitem(fusion.__globals__, "SMALLEST", 1)
    whole, expected = trained(gpt_step)
    assert len(whole.plan.tilings) > 5
    budget = int(0.79 * whole.memory.arena)
    tape, found = trained(gpt_step, memory=budget)
    assert found == expected
    assert tape.memory.arena <= budget
    again = {v for v in tape.plan.order if v.origin.reverse and v.op.name in ("exp", "vecdot")}
    assert any(again & set(tiled.nodes) for tiled in tape.plan.tilings)


def test_inference_under_a_budget():
    x, w = drawn(64, 64), drawn(64, 64)

    def joined(x, w):
        parts = [nt.exp(x * float(n)) for n in range(6)]
        wide = nt.concatenate([p @ w for p in parts]).sum()
        return wide + sum((p * p).sum() for p in parts)

    whole = nt.compile(joined).tape(x, w).memory.arena
    compiled = nt.compile(joined, memory=int(0.8 * whole))
    assert bits(compiled(x, w)) == bits(nt.compile(joined)(x, w))
    assert compiled.tapes[0].memory.arena <= 0.8 * whole
    assert not any(v.origin.reverse for v in compiled.tapes[0].plan.order)


def test_methods_are_compiled_under_the_same_budget():
    class Model:
        @nt.compile
        def plain(self, x):
            return chain(x)

        limited = nt.compile(lambda self, x: chain(x), memory="1kB")

    model = Model()
    model.plain(drawn(100))
    with pytest.raises(MemoryError):
        model.limited(drawn(100))


# ---- what it says -------------------------------------------------------------------------


def test_what_it_costs():
    make = TRAINING["gpt"]
    whole, _ = trained(make)
    tape, _ = trained(make, memory=int(0.75 * whole.memory.arena))
    cost = tape.recomputed
    assert cost.nodes == len(tape.plan.order) - len(whole.plan.order) > 0
    assert cost.flops == tape.cost.flops - whole.cost.flops > 0
    assert cost.nbytes == tape.cost.nbytes - whole.cost.nbytes > 0
    assert 0 < cost.share < 1
    assert str(cost).startswith(f"{cost.nodes} kernels recomputed: {cost.flops:,} flops")
    (record,) = (r for r in tape.passes if r.name == "recompute")
    assert record.exact and record.note == str(cost)
    assert record.nodes_after > record.nodes_before
    assert str(cost) in str(tape.passes)
    assert [r.name for r in tape.passes].count("fusion") == 1


def test_a_budget_that_is_large_enough_changes_nothing():
    step, arguments = gpt_step()
    whole, tape = (nt.compile(step, memory=m).tape(*arguments) for m in (None, "1GB"))
    assert tape.source == whole.source
    assert [r.name for r in tape.passes] == [r.name for r in whole.passes]
    assert str(tape.recomputed) == str(whole.recomputed) == "nothing is recomputed"


def test_a_budget_that_nothing_keeps_to():
    step, arguments = gpt_step()
    compiled = nt.compile(step, memory="2kB")
    before = [t.numpy().copy() for t in nt.compile(step).tape(*arguments)._updated]
    with pytest.raises(MemoryError) as caught:
        compiled(*arguments)
    least = caught.value.least
    assert str(caught.value).startswith(
        f"step needs an arena of at least {least:,} bytes for these shapes, but may take 2,000: "
        f"give compile memory={least}, or the function smaller arguments (at {__file__}:"
    )
    assert compiled.tapes == ()
    after = nt.compile(step).tape(*arguments)._updated
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(after, before, strict=True))
    assert least_of(step, *arguments) == least


@pytest.mark.parametrize(
    "text, nbytes",
    [
        (1000, 1000),
        ("1000", 1000),
        ("512B", 512),
        ("512MB", 512_000_000),
        ("512 mb", 512_000_000),
        ("2kB", 2000),
        ("1.5GiB", 1_610_612_736),
        ("1gib", 1 << 30),
        (".5 KiB", 512),
        ("2TB", 2_000_000_000_000),
    ],
)
def test_sizes(text, nbytes):
    assert nt.compile(chain, memory=text).options.memory == nbytes


@pytest.mark.parametrize(
    "text",
    ["", "lots", "512 MBB", "-1MB", "1e9", "MB", "0", 0, -5, True, 2.5, "0.1B", b"1MB", "i"],
)
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match=r"bytes, or text such as \"512MB\" or \"1.5GiB\", not"):
        nt.compile(chain, memory=text)
