"""Inputs that lie end to end in memory: what joins them is a view, whoever else looks at them."""

import numpy as np
import pytest

import numtape as nt
from numtape.ir.memory import address, end_to_end, reserve
from numtape.runtime.proof import clashes
from numtape.tracer.moving import are_end_to_end, can_move, lay_end_to_end

SHAPES = ((3, 4), (5,), (), (1, 2))
SIZE = 12 + 5 + 1 + 2
X = np.linspace(-1.0, 2.0, SIZE)


def tensors(laid=True):
    """Four tensors of different shapes, and one that lies elsewhere."""
    rng = np.random.default_rng(0)
    parts = [nt.Tensor(rng.normal(size=shape)) for shape in SHAPES]
    if laid:
        lay_end_to_end(parts)
    return [*parts, nt.Tensor(np.zeros(SIZE))]


def flat(parts):
    return nt.concatenate([p.reshape(-1) for p in parts[:4]])


def give(parts, whole):
    """Each part its part of the whole."""
    start = 0
    for p in parts[:4]:
        p.assign(whole[start : start + p.size].reshape(p.shape))
        start += p.size


# ---- what programs do with them -----------------------------------------------------------


def whole_update(parts, x):
    give(parts, flat(parts) * 0.5 + x)


def some_parts(parts, x):
    new = flat(parts) * x
    parts[1].assign(new[12:17])
    return new


def other_places(parts, x):
    new = flat(parts) - x
    parts[0].assign(new[8:20].reshape(3, 4))
    parts[1].assign(new[3:8])
    parts[2].assign(new[2])
    parts[3].assign(new[:2].reshape(1, 2))


def reversed_places(parts, x):
    give(parts, (flat(parts) + x).flip(0))


def old_join_shown(parts, x):
    old = flat(parts)
    give(parts, old * 2.0 + x)
    return old, old[3:9]


def old_join_stored(parts, x):
    old = flat(parts)
    parts[4].assign(old)
    give(parts, old * 2.0 + x)


def old_part_read_late(parts, x):
    new = flat(parts) * x
    late = new[:12].reshape(3, 4) @ parts[0].reshape(4, 3)
    give(parts, new)
    return late


def part_read_after_the_update(parts, x):
    give(parts, flat(parts) * x)
    return parts[0].sum() + parts[3] * 2.0


def parts_one_by_one(parts, x):
    total = (flat(parts) * x).sum()
    for i, p in enumerate(parts[:4]):
        p.assign(p * total + float(i))


def parts_exchanged(parts, x):
    new = flat(parts) * x
    first = parts[1] + 0.0
    parts[1].assign(parts[0].reshape(-1)[:5])
    parts[0].assign(new[:12].reshape(3, 4))
    return first


def numbers_and_whole(parts, x):
    give(parts, flat(parts) * x)
    parts[2].assign(7.0)


def two_joins(parts, x):
    other = nt.concatenate([parts[1], parts[0].reshape(-1)])
    give(parts, flat(parts) + x)
    return other * 2.0


def a_join_in_a_join(parts, x):
    some = nt.concatenate([parts[0].reshape(-1), parts[1]])
    new = flat(parts) + x
    late = new[:17] * some
    give(parts, new)
    return late


def update_twice(parts, x):
    give(parts, flat(parts) + x)
    give(parts, flat(parts) * x)
    return flat(parts)


def whole_of_another_shape(parts, x):
    give(parts, (flat(parts).reshape(4, 5) * 2.0 + x.reshape(4, 5)).reshape(-1))


def unused_old(parts, x):
    old = flat(parts).sum()
    give(parts, x * 3.0)
    return old


PROGRAMS = (
    whole_update,
    some_parts,
    other_places,
    reversed_places,
    old_join_shown,
    old_join_stored,
    old_part_read_late,
    part_read_after_the_update,
    parts_one_by_one,
    parts_exchanged,
    numbers_and_whole,
    two_joins,
    a_join_in_a_join,
    update_twice,
    whole_of_another_shape,
    unused_old,
)
each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)


def random_program(seed):
    """One or two of the programs behind each other, in any order."""
    rng = np.random.default_rng(seed)
    chosen = [PROGRAMS[i] for i in rng.integers(0, len(PROGRAMS), 2)]

    def run(parts, x):
        return [program(parts, x + float(i)) for i, program in enumerate(chosen)]

    return run


def outcome(program, parts, compiled=None):
    """What two calls return and leave."""
    function = compiled if compiled is not None else program
    returned = [function(parts, nt.tensor(X + i)) for i in range(2)]
    return [*leaves(returned), *(p.numpy().copy() for p in parts)]


def leaves(result):
    if isinstance(result, (list, tuple)):
        return [leaf for r in result for leaf in leaves(r)]
    return [] if result is None else [result.numpy().copy()]


def compiled_outcome(program, **settings):
    parts = tensors()
    step = nt.compile(lambda x: program(parts, x), **settings)
    result = outcome(program, parts, lambda _, x: step(x))
    (tape,) = step.tapes
    assert list(clashes(tape.plan)) == []
    assert are_end_to_end(parts[:4])
    return tape, result


SETTINGS = ({}, {"exact": True}, {"validate": True}, {"sanitize": True})


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@each_program
def test_programs_equal_eager(program, settings):
    expected = outcome(program, tensors(laid=False))
    _, found = compiled_outcome(program, **settings)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)
        assert not settings.get("exact") or np.array_equal(a, b)


@pytest.mark.parametrize("seed", range(60))
def test_two_programs_in_one_equal_eager(seed):
    program = random_program(seed)
    expected = outcome(program, tensors(laid=False))
    _, found = compiled_outcome(program, exact=True)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(b, a)


def test_the_whole_is_updated_where_it_lies():
    tape, _ = compiled_outcome(whole_update)
    (join,) = tape.plan.joins
    assert "end_to_end(" in tape.source
    assert "np.copyto" not in tape.source
    assert "join(" not in tape.source
    assert tape.plan.direct == {old for old, _ in tape.plan.graph.updates}
    assert "lies end to end outside" in str(tape.plan)
    assert join.size == SIZE


def test_what_does_not_lie_end_to_end_is_copied():
    parts = tensors(laid=False)
    tape = nt.compile(lambda x: whole_update(parts, x)).tape(nt.tensor(X))
    assert not tape.plan.joins
    assert "join(" in tape.source


def test_a_join_that_is_shown_later_is_a_copy():
    for program in (old_join_shown, old_join_stored):
        tape, _ = compiled_outcome(program)
        assert not tape.plan.joins


def test_what_is_read_only_is_not_updated_with_what_lies_beside_it():
    parts = tensors()
    fixed = parts[1].numpy()
    fixed.flags.writeable = False
    before = fixed.copy()
    with pytest.raises(ValueError, match="read-only"):
        nt.compile(lambda x: whole_update(parts, x))(nt.tensor(X))
    np.testing.assert_array_equal(fixed, before)


def test_profiles_change_nothing():
    parts = tensors()
    step = nt.compile(lambda x: whole_update(parts, x))
    step(nt.tensor(X))
    before = [p.numpy().copy() for p in parts]
    step.tapes[0].profile(nt.tensor(X), rounds=2)
    for p, array in zip(parts, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), array)


# ---- forward now, backward later ----------------------------------------------------------


def joined_loss():
    parts = tensors()[:4]
    for p in parts:
        p.requires_grad = True
    return parts, nt.compile(lambda x: (flat(parts) * flat(parts) * x).sum())


def test_gradients_through_a_join():
    parts, loss = joined_loss()
    loss(nt.tensor(X)).backward()
    joined = np.concatenate([p.numpy().reshape(-1) for p in parts])
    found = np.concatenate([p.grad.numpy().reshape(-1) for p in parts])
    np.testing.assert_allclose(found, 2 * joined * X, rtol=1e-12)


def test_what_a_reverse_tape_reads_must_not_change():
    parts, loss = joined_loss()
    result = loss(nt.tensor(X))
    parts[3].assign(np.ones((1, 2)))
    with pytest.raises(RuntimeError, match="changed"):
        result.backward()


def test_what_a_reverse_tape_does_not_read_may_change():
    parts, _ = joined_loss()
    loss = nt.compile(lambda x: (flat(parts) * x).sum() + (parts[0] * parts[0]).sum())
    result = loss(nt.tensor(X))
    parts[1].assign(np.ones(5))
    result.backward()
    np.testing.assert_allclose(parts[1].grad.numpy(), X[12:17], rtol=1e-12)


def test_updates_and_a_reverse_tape_in_one_program():
    def run(laid, compiled):
        parts = tensors(laid)
        weight = nt.Tensor(np.ones(SIZE), requires_grad=True)

        def step(x):
            old = flat(parts)
            give(parts, old * 0.5 + x)
            return (weight * old * x).sum()

        function = nt.compile(step, exact=True) if compiled else step
        found = []
        for i in range(2):
            weight.grad = None
            function(nt.tensor(X + i)).backward()
            found += [weight.grad.numpy().copy(), *(p.numpy().copy() for p in parts)]
        return found

    for a, b in zip(run(False, False), run(True, True), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- moving -------------------------------------------------------------------------------


def test_laid_end_to_end():
    parts = tensors(laid=False)[:4]
    before = [p.numpy().copy() for p in parts]
    assert not are_end_to_end(parts)
    lay_end_to_end(parts)
    assert are_end_to_end(parts)
    assert not are_end_to_end(parts[::-1])
    for p, array in zip(parts, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), array)
    assert address(parts[0].numpy()) % 64 == 0


def test_what_somebody_holds_cannot_move():
    tensor = nt.Tensor(np.ones((2, 3)))
    assert can_move(tensor)
    array = tensor.numpy()
    assert not can_move(tensor)
    del array
    view = tensor.T
    assert not can_move(tensor)
    del view
    assert can_move(tensor)
    tape = nt.compile(lambda: tensor * 2.0)
    tape()
    assert not can_move(tensor)


def test_what_is_not_dense_memory_of_its_own_cannot_move():
    rows, fixed = np.ones((4, 4)), nt.Tensor(np.ones(3))
    fixed.numpy().flags.writeable = False
    # Not in the assertion, which would hold what it is made of.
    tensors = nt.Tensor(rows[1]), nt.Tensor(np.asfortranarray(np.ones((3, 4)))), fixed
    assert not any(map(can_move, tensors))


def test_end_to_end_refuses_what_is_not():
    block = reserve(64).view(np.float64)
    a, b = block[:3], block[3:8]
    assert address(end_to_end(a, b, shape=(8,))) == address(block)
    buffer = bytearray(64)
    two = np.frombuffer(buffer, count=3), np.frombuffer(buffer, offset=24)  # views of no array
    for arrays in ((b, a), (a, block[4:8]), (a, np.ones(5)), (a, b.view(np.int64)), two):
        with pytest.raises(ValueError, match="end to end"):
            end_to_end(*arrays, shape=(8,))
