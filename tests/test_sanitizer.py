"""`compile(f, sanitize=True)`: right programs run as ever, and each broken plan is found."""

import re
from dataclasses import replace

import numpy as np
import pytest
from programs import TRAINING, RandomProgram, chain, forward_and_reverse, rows
from test_compiled_models import EXAMPLES, Example

import numtape as nt
from numtape import tape, transformer
from numtape.ir.graph import numbering
from numtape.options import Options
from numtape.runtime import emit, lowering
from numtape.runtime import plan as planning
from numtape.runtime import sanitizer as sanitizing
from numtape.runtime.sanitizer import GUARD, SanitizerError

X = np.linspace(-1, 1, 12).reshape(3, 4)
SQUARE = np.eye(4) + 0.5
WIDE = np.linspace(-1, 1, 512 * 1024).reshape(512, 1024)


def bits(results):
    return [t.numpy().tobytes() for t in (results if isinstance(results, tuple) else (results,))]


def sanitized(function, *arguments):
    return nt.compile(function, sanitize=True)(*arguments)


# ---- what is right ------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("make", TRAINING.values(), ids=TRAINING)
def test_training_steps_keep_every_bit(make, exact):
    steps = []
    for sanitize in (False, True):
        function, arguments = make()
        compiled = nt.compile(function, exact=exact, sanitize=sanitize)
        steps.append([bits(compiled(*arguments)) for _ in range(3)])
    assert steps[0] == steps[1]


@pytest.mark.parametrize("kind", [{}, {"update": True}, {"learn": True}], ids=str)
def test_random_programs_keep_every_bit(kind):
    for seed in range(8):
        plain, checked = (RandomProgram(seed, **kind) for _ in range(2))
        compiled = nt.compile(checked, sanitize=True)
        expected = nt.compile(plain)
        for _ in range(2):
            assert bits(compiled(*checked.arguments)) == bits(expected(*plain.arguments))


MODELS = (transformer.GPT, transformer.Transformer, transformer.MixtureOfExperts)


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_models_run_forward_and_reverse(kind):
    example: Example = EXAMPLES[kind][0]
    gradients = []
    for options in ({}, {"sanitize": True}):
        module, inputs = example.module(np.float32), example.inputs(np.float32)
        out = nt.compile(lambda *xs, m=module: example.call(m, *xs), **options)(*inputs)
        (out[0] if isinstance(out, tuple) else out).sum().backward()
        gradients.append([p.grad.numpy().tobytes() for p in module.parameters()])
    assert gradients[0] == gradients[1]


def test_a_reverse_tape_can_run_again():
    function, arguments = forward_and_reverse()
    x = nt.Tensor(arguments[0], requires_grad=True)
    loss = nt.compile(function, sanitize=True)(x)
    loss.backward(retain_graph=True)
    once = x.grad.numpy().copy()
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * once)


def test_regions_are_checked_tile_by_tile():
    compiled = nt.compile(rows, sanitize=True)
    assert bits(compiled(WIDE)) == bits(nt.compile(rows)(WIDE))
    (tiles,) = compiled.tapes[0].plan.tilings
    assert tiles.count > 2


def test_a_computed_nan_is_no_false_alarm():
    with np.errstate(all="ignore"):
        found = sanitized(lambda x: nt.log(x) * 2.0 + nt.sqrt(x).sum(), X)
        assert np.isnan(found.numpy()).any()
        nan = np.full((3, 4), np.nan, np.float32)
        assert np.isnan(sanitized(lambda x: nt.exp(x) + 1.0, nan).numpy()).all()


def test_a_step_can_be_validated_and_sanitized_and_profiled():
    function, arguments = TRAINING["mlp"]()
    compiled = nt.compile(function, validate=True, sanitize=True)
    compiled(*arguments)
    assert repr(compiled.tapes[0]).endswith(" bytes, validated, sanitized>")
    assert compiled.tape(*arguments).profile(*arguments, rounds=1).kernels


# ---- what is broken -----------------------------------------------------------------------


def named(plan, name):
    return next(v for v, number in numbering(plan.graph).items() if number == name)


def spoil(monkeypatch, change):
    planned = tape.plan
    monkeypatch.setattr(tape, "plan", lambda *given: change(planned(*given)))


def test_a_shifted_offset(monkeypatch):
    def shifted(plan):
        return replace(plan, offsets={**plan.offsets, named(plan, "%2"): 64})

    spoil(monkeypatch, shifted)
    text = (
        r"kernel 1, %2: f64\[3,4\] = add\(%1, 1.0\) .*, wrote in front of %2|"
        r"kernel 3, .* reads %1 \(f64\[3,4\], exp, programs.py:\d+; 96 bytes at offset 0\), "
        r"of which a part was overwritten by %\d"
    )
    with pytest.raises(SanitizerError, match=text) as caught:
        sanitized(chain, X)
    assert caught.value.line.rpartition(":")[0] == __file__


def test_a_shortened_lifetime(monkeypatch):
    """Whoever needs memory next gets it, though its value is read once more."""
    whole = planning.lifetimes

    def shortened(graph, places, order, *rest):
        lives = whole(graph, places, order, *rest)
        lives.stop[lives.owner[order[0]]] = 0
        return lives

    monkeypatch.setattr(planning, "lifetimes", shortened)
    with pytest.raises(SanitizerError, match="of which a part was overwritten by %"):
        sanitized(lambda x, y: ((x @ y) @ x) @ x @ (x @ y), SQUARE, SQUARE)


@pytest.mark.parametrize(
    ("function", "given", "kernel"),
    [(lambda x: nt.exp(x @ x.T), X, r"np\.matmul"), (rows, WIDE, r"np\.exp")],
    ids=["alone", "in a region"],
)
def test_a_kernel_that_never_runs(monkeypatch, function, given, kernel):
    """Left out with its checks: who reads its result finds nothing there."""

    def without(source):
        return re.sub(rf" *before\(.*\n *{kernel}\(.*\n *after\(.*\n", "", source, count=1)

    change_source(monkeypatch, without)
    with pytest.raises(SanitizerError, match=r"reads %\d .*, of which a part was"):
        sanitized(function, given)


def change_source(monkeypatch, change):
    load = sanitizing.load

    def changed(source, *rest):
        assert change(source) != source
        return load(change(source), *rest)

    monkeypatch.setattr(sanitizing, "load", changed)


def test_a_line_that_is_lost(monkeypatch):
    """The checks are there, the kernel is not: what it should have filled is as it was."""
    change_source(monkeypatch, lambda text: re.sub(r"np\.matmul\(.*", "pass", text, count=1))
    with pytest.raises(SanitizerError, match=r"kernel 0, .* left entries of its result unwritten"):
        sanitized(lambda x: nt.exp(x @ x.T), X)


@pytest.mark.parametrize(("first", "side"), [(0, "behind"), (-2, "in front of")])
def test_a_kernel_that_writes_beside_its_result(monkeypatch, first, side):
    def beside(x, y, out):
        np.matmul(x, y, out=out)
        start = out.__array_interface__["data"][0] + first * out.itemsize
        wide = np.lib.stride_tricks.as_strided(out.reshape(-1), (out.size + 2,))
        if first:
            wide = np.lib.stride_tricks.as_strided(before(out, start), (2,))
        wide[-2:] = 7.0

    def before(out, start):
        base = out
        while base.base is not None:
            base = base.base
        offset = start - base.__array_interface__["data"][0]
        return np.ndarray((2,), out.dtype, base, offset)

    def lower(node, places):
        call = lowering.lower(node, places)
        second = node.op.name == "matmul" and node.inputs[0].op.name == "matmul"
        return call._replace(function=beside) if second else call

    monkeypatch.setattr(emit, "lower", lower)
    with pytest.raises(SanitizerError, match=f"kernel 1, .* wrote {side} %"):
        sanitized(lambda x: x @ x.T @ x, X)


def test_a_value_without_memory_of_its_own_in_a_region(monkeypatch):
    """Memory for one tile, shared with what the next tile still needs."""

    def overlapping(plan):
        held = next(iter(plan.lives.tiles))
        given = plan.graph.inputs[0]
        return replace(plan, offsets={**plan.offsets, held: plan.offsets[given] + 1024 * 1024})

    spoil(monkeypatch, overlapping)
    with pytest.raises(SanitizerError):
        sanitized(rows, WIDE)


# ---- the option ---------------------------------------------------------------------------


def test_guards_lie_behind_slots_and_cost_memory():
    plain = nt.compile(chain).tape(X).plan
    guarded = nt.compile(chain, sanitize=True).tape(X).plan
    extra = [b.nbytes - a.nbytes for a, b in zip(plain.slots, guarded.slots, strict=True)]
    assert set(extra) == {GUARD}


def test_a_budget_and_guards_are_refused():
    with pytest.raises(ValueError, match="sanitize=True keeps guards between values"):
        nt.compile(chain, sanitize=True, memory="1MB")


class Scaled:
    def __init__(self):
        self.factor = nt.Tensor(np.float32(2.0))

    @nt.compile
    def plain(self, x):
        return x * self.factor

    checked = nt.compile(lambda self, x: x * self.factor, sanitize=True)


def test_methods_are_sanitized_where_asked():
    scaled = Scaled()
    scaled.checked(X)
    scaled.plain(X)
    assert scaled.checked.options == Options(sanitize=True)
    assert "before(0" in scaled.checked.tapes[0].source
    assert "before(0" not in scaled.plain.tapes[0].source
