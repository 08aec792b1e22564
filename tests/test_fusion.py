"""Fusion into row tiles: what is grouped, and that no bit depends on it."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import written
from programs import RandomProgram, each_step

import numtape as nt
from numtape import nn, optim
from numtape.ir.graph import Builder, first_part
from numtape.ir.interpreter import active
from numtape.ir.types import Type
from numtape.ir.verify import VerifyError, verify
from numtape.nn import functional as F
from numtape.passes.fusion import fusion
from numtape.passes.old_values import old_values
from numtape.runtime import tiles


@pytest.fixture
def small(monkeypatch):
    """Regions and tiles for arrays of a few bytes."""
    monkeypatch.setitem(fusion.__globals__, "SMALLEST", 1)
    monkeypatch.setattr(tiles, "TILE", 48)


def drawn(*shape, dtype=np.float32):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


def tape_of(function, *arguments, **options):
    return nt.compile(function, **options).tape(*arguments)


def bits(results):
    results = results if isinstance(results, tuple) else (results,)
    return [(r.dtype, r.shape, r.numpy().tobytes()) for r in results]


def same_bits(function, *arguments):
    expected = bits(function(*map(nt.Tensor, arguments)))
    compiled = nt.compile(function, exact=True)
    assert bits(compiled(*arguments)) == expected
    return compiled.tapes[0].plan.tilings


# ---- the pass -----------------------------------------------------------------------------


def fused(function, *arguments):
    return written(fusion(nt.trace(function, *arguments).graph))


@pytest.mark.parametrize("shape", [(1, 1, 7), (1, 13), (7,), (1, 1, 3, 3)])
def test_a_region_of_one_tile_needs_no_loop(small, shape):
    same_bits(lambda x: nt.sqrt(x * x + 0.3), drawn(*shape))
    same_bits(
        lambda x: nt.grad(lambda x: (x.swapaxes(-1, -2) @ x).tanh().sum())(x), drawn(1, *shape)
    )


def test_a_chain(small):
    x = drawn(4, 6)
    assert fused(lambda x: nt.exp(x * 2.0) - (x * 2.0).sum(1, keepdims=True), x) == [
        "tiles of rows [4]",
        "%1: f32[4,6] = mul(%0, 2.0)",
        "%2: f32[4,6] = exp(%1)",
        "%3: f32[4,6] = mul(%0, 2.0)",
        "%4: f32[4] = sum(%3, axis=(1,))",
        "%5: f32[4,1] = reshape(%4, shape=(4, 1))",
        "%6: f32[4,6] = sub(%2, %5)",
        "return %6",
    ]


def test_a_product_of_one_matrix_ends_a_region(small):
    x, w = drawn(4, 6), drawn(6, 6)
    lines = fused(lambda x, w: nt.exp(nt.tanh(nt.exp(x * 2.0) @ w)), x, w)
    assert [line for line in lines if "%" not in line or "matmul" in line] == [
        "tiles of rows [4, 6]",
        "%4: f32[4,6] = matmul(%3, %1)",
        "tiles of rows [4, 6]",
    ]


def test_stacked_products_belong_to_their_rows(small):
    q = drawn(3, 4, 6)
    lines = fused(lambda q: F.softmax((q @ q.swapaxes(1, 2)) * 0.5).exp() @ q, q)
    assert lines[0].startswith("%1") and lines[1] == "tiles of rows [3]"
    assert sum("tiles" in line for line in lines) == 1


def test_unrelated_chains_of_one_shape_stay_apart(small):
    x, y = drawn(4, 6), drawn(4, 6)
    lines = fused(lambda x, y: (nt.exp(x * 2.0), nt.exp(y * 2.0)), x, y)
    assert sum("tiles" in line for line in lines) == 2


def test_small_chains_are_left_alone():
    assert "tiles" not in "".join(fused(lambda x: nt.exp(x * 2.0) + 1.0, drawn(4, 6)))


def test_large_chains_are_tiled_by_themselves():
    tape = tape_of(lambda x: nt.exp(x * 2.0) * nt.tanh(x) + 1.0, drawn(128, 4096))
    (cut,) = tape.plan.tilings
    assert cut.count == 8 and cut.nbytes(cut.nodes[0]) == tiles.TILE
    assert "in tiles_1:  # 8 tiles" in tape.source
    # The argument, the result and one tile for what lies in between.
    assert tape.memory.arena <= 2 * 128 * 4096 * 4 + 2 * tiles.TILE


# ---- tiles --------------------------------------------------------------------------------


def cut_of(shape, wanted, monkeypatch):
    monkeypatch.setitem(fusion.__globals__, "SMALLEST", 256 * 1024)
    monkeypatch.setattr(tiles, "TILE", wanted)
    found = tape_of(lambda x: nt.exp(x * 2.0) + x, drawn(*shape)).plan.tilings
    return [(t.axis, t.step, t.count) for t in found]


@pytest.mark.parametrize(
    "shape, wanted, expected",
    [
        ((64, 1024), 32 * 1024, [(0, 8, 8)]),
        ((60, 2048), 64 * 1024, [(0, 6, 10)]),  # the largest divisor that fits
        ((8, 16, 1024), 32 * 1024, [(1, 8, 16)]),
        ((8, 16, 1024), 256 * 1024, [(0, 4, 2)]),
        ((2, 3, 16, 1024), 64 * 1024, [(1, 1, 6)]),
        ((67, 1024), 64 * 1024, []),  # a prime: tiles of one row cost more than they save
        ((64, 1024), 1024 * 1024, []),  # one tile would do
    ],
)
def test_how_rows_are_cut(shape, wanted, expected, monkeypatch):
    assert cut_of(shape, wanted, monkeypatch) == expected


# ---- no bit depends on it -----------------------------------------------------------------

STACK, MATRIX, ROW = drawn(3, 4, 6), drawn(4, 6), drawn(6)
PROGRAMS = {
    "repeated inputs": (lambda a, b, c: nt.exp(a * b) + c * a, (STACK, MATRIX, ROW)),
    "a repeated row axis": (lambda a, b: nt.exp(a * b) * b, (STACK, STACK[:1])),
    "sums and maxima": (
        lambda a: (a - a.max(-1, keepdims=True)) / nt.exp(a).sum(-1, keepdims=True),
        (STACK,),
    ),
    "sums along two axes": (lambda a: nt.exp(a) - nt.exp(a).sum((1, 2), keepdims=True), (STACK,)),
    "a transposed input": (lambda a: nt.exp(a * 2.0) + a.T * a.T.exp(), (drawn(6, 6),)),
    "slices": (lambda a: nt.exp(a[:, ::2] * 2.0) - a[:, 1::2], (STACK,)),
    "masks": (lambda a: nt.where(a * 2.0 > 0.5, a.exp(), -a) * (a > 0), (STACK,)),
    "softmax": (lambda a: F.softmax(a * 2.0) * 3.0, (STACK,)),
    "log softmax over rows": (lambda a: F.log_softmax(a * 2.0, 1) * 3.0, (STACK,)),
    "norms": (lambda a, w: F.layer_norm(a, (6,), w, w) + F.rms_norm(a, (6,), w), (STACK, ROW)),
    "attention": (
        lambda q: F.scaled_dot_product_attention(q, q * 0.5, q * 2.0, is_causal=True),
        (drawn(2, 3, 4, 6),),
    ),
    "a cast": (lambda a: (a * 2.0).astype(np.float64).exp() + a, (STACK,)),
    "a vector": (lambda a: nt.exp(a * 2.0) + a.sum(), (drawn(48),)),
    "columns of length one": (lambda a: nt.exp(a * 2.0) + a, (drawn(24, 1),)),
    "a result inside a chain": (lambda a: ((b := nt.exp(a * 2.0)), nt.tanh(b) * b), (STACK,)),
    "gelu": (lambda a: F.gelu(a) * 2.0, (STACK,)),
    "sums repeated along another axis": (
        lambda a: (z := nt.exp(a * 2.0)) + z.sum(-1),
        (drawn(4, 4, 4),),
    ),
    "rows read by all tiles, and overwritten": (
        lambda a: (z := a @ a) + z.T * 3.0,
        (drawn(6, 6),),
    ),
    "all rows as one, and overwritten row by row": (
        lambda a, b: ((z := a @ a).reshape(1, 36) * b).sum(1, keepdims=True) + z,
        (drawn(6, 6), drawn(6, 36)),
    ),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("function, arrays", PROGRAMS.values(), ids=PROGRAMS)
def test_values_and_gradients(function, arrays, small):
    assert same_bits(function, *arrays)

    def gradients(*arguments):
        def total(*xs):
            found = function(*xs)
            parts = found if isinstance(found, tuple) else (found,)
            return sum((p * p).sum() for p in parts)

        return nt.grad(total, argnums=tuple(range(len(arguments))))(*arguments)

    same_bits(gradients, *arrays)


def test_storage_read_across_its_rows_is_not_overwritten_too_soon(small):
    start = drawn(6, 6)

    def turned(state, x):
        state.assign(nt.exp(x * 2.0) * 0.5 + state.T)
        return state * 1.0

    eager, held = nt.Tensor(start.copy()), nt.Tensor(start.copy())
    compiled = nt.compile(lambda x: turned(held, x), exact=True)
    for _ in range(3):
        assert bits(compiled(start)) == bits(turned(eager, nt.Tensor(start)))
    assert held.numpy().tobytes() == eager.numpy().tobytes()


def test_a_region_that_begins_to_write_storage_runs_once(small):
    """All of it belongs to the part of a tape that runs to its end."""
    start = drawn(16, 16)

    def decay(state, x):
        state.assign(nt.exp(x * 2.0) + state * 0.9)
        return x * 3.0

    eager, held = nt.Tensor(start.copy()), nt.Tensor(start.copy())
    compiled = nt.compile(lambda x: decay(held, x), exact=True)
    for _ in range(2):
        assert bits(compiled(start)) == bits(decay(eager, nt.Tensor(start)))
    assert held.numpy().tobytes() == eager.numpy().tobytes()
    plan = compiled.tapes[0].plan
    assert any(t.start == plan.commit for t in plan.tilings)


@pytest.mark.parametrize("make", [optim.AdamW, optim.Adam, optim.SGD])
def test_updates_in_place(make, small):
    start, slope = drawn(8, 6), drawn(8, 6)

    def run(compiled):
        weight = nt.Tensor(start.copy(), requires_grad=True)
        optimizer = make([weight], lr=0.1)

        def step(g):
            optimizer.zero_grad()
            (weight * g).sum().backward()
            optimizer.step()
            return weight * 1.0

        run_step = nt.compile(step, exact=True) if compiled else step
        return [bits(run_step(nt.Tensor(slope))) for _ in range(4)]

    assert run(True) == run(False)


@each_step
def test_training_steps(make, small):
    eager, arguments = make()
    expected = [bits(eager(*map(nt.Tensor, arguments))) for _ in range(3)]
    step, arguments = make()
    compiled = nt.compile(step, exact=True)
    assert [bits(compiled(*arguments)) for _ in range(3)] == expected
    assert compiled.tapes[0].plan.tilings


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(40))
def test_random_programs(seed, small):
    learn = seed % 2 == 1
    eager, other = (RandomProgram(seed, update=not learn, learn=learn) for _ in range(2))
    compiled = nt.compile(other, exact=True)
    for _ in range(2):
        assert bits(compiled(*other.arguments)) == bits(eager(*map(nt.Tensor, eager.arguments)))


def test_two_tapes_share_no_region(small):
    weight = nt.Tensor(drawn(6), requires_grad=True)

    def loss(x):
        return (nt.exp(x * weight) * nt.tanh(x)).sum()

    compiled = nt.compile(loss, exact=True)
    compiled(STACK).backward()
    first, weight.grad = weight.grad, None
    loss(nt.Tensor(STACK)).backward()
    assert first.numpy().tobytes() == weight.grad.numpy().tobytes()
    plan = compiled.tapes[0].plan
    assert all(t.stop < plan.first or t.start >= plan.first for t in plan.tilings)


def test_a_region_ends_where_the_first_of_two_tapes_does(small):
    """What the forward part need not compute may follow its last result at once."""
    weights = [nt.Tensor(drawn(*shape), requires_grad=True) for shape in ((10, 4), (6, 8))]

    def chains():
        first = nt.exp(weights[0] * 2.0)
        second = nt.sin(weights[1] * 1.5)  # its cosine is computed beside it
        return nt.tanh(first * 0.5), second

    def slopes(run):
        first, second = run()
        ((first * 1.5).sum() + (second * second).sum()).backward()
        found = bits((first, second, *(w.grad for w in weights)))
        for w in weights:
            w.grad = None
        return found

    compiled = nt.compile(chains, exact=True)
    assert slopes(compiled) == slopes(chains)
    plan = compiled.tapes[0].plan
    assert plan.order[plan.first].op.name == "cos"


# ---- hard cases ---------------------------------------------------------------------------


def test_repeating_along_new_axes_is_not_by_rows(small):
    x = drawn(8, 32)

    def repeated(x):
        h = nt.tanh(x * 2.0)
        return nt.exp(nt.broadcast_to(h, (8, 8, 32))), h

    same_bits(repeated, x)
    same_bits(lambda x, w: nt.broadcast_to(nt.tanh(x), (8, 8, 32)) @ w, x, drawn(8, 32, 4))


def test_parameters_named_as_the_variables_of_loops(small):
    class Named(nn.Module):
        def __init__(self):
            for name in ("i", "j", "k", "range", "tiles_1"):
                setattr(self, name, nn.Parameter(drawn(6, 8)))

        def forward(self, x):
            return nt.exp(self.i * self.j) * self.k + x * self.range - self.tiles_1

    same_bits(Named(), drawn(4, 6, 8))


def test_many_axes_and_none(small):
    assert same_bits(lambda x: nt.exp(x * 2.0) + 1.0, drawn(*(1,) * 12, 6, 8))
    same_bits(lambda x: (x * 2.0, x.T.reshape(0, 2, 2)), drawn(4, 0))


def test_the_verifier_looks_at_regions(small):
    graph = fusion(nt.trace(lambda x: nt.exp(x * 2.0).sum(0) + 1.0, drawn(4, 6)).graph)
    verify(graph)
    (region,) = graph.regions
    total = next(v for v in graph.nodes if v.op.name == "sum")
    wrong = replace(region, nodes=(*region.nodes, total))
    with pytest.raises(VerifyError, match="which it mixes"):
        verify(replace(graph, regions=(wrong,)))
    turned = replace(region, nodes=region.nodes[::-1])
    with pytest.raises(VerifyError, match="order"):
        verify(replace(graph, regions=(turned,)))


def test_copies_of_old_values_stay_in_the_first_tape(small):
    builder = Builder()
    first = builder.input(Type(np.dtype("f4"), (4, 6)), "first")
    second = builder.input(Type(np.dtype("f4"), (24,)), "second")
    g = builder.input(Type(np.dtype("f4"), ()), "g")
    with active(builder):
        new = nt.exp(nt.tanh(first * 2.0))
        flat, late = new.reshape(24), (first * g, second * g)
    updates = ((first, new), (second, flat))
    graph = fusion(old_values(builder.finish("f", (new, *late), updates, early=(2, 1))))
    reverse = graph.nodes[first_part(graph, graph.nodes) :]
    assert [v.op.name for v in reverse if v.op.view is None] == ["mul", "mul"]
