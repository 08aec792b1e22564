"""The proof that plans overwrite nothing: whole plans pass, and each that is spoilt fails."""

from dataclasses import replace

import numpy as np
import pytest
from programs import chain, gpt_step, mlp_step, rows

import numtape as nt
from numtape.ir.graph import numbering
from numtape.runtime.proof import OverwrittenError, clashes, prove

X = np.linspace(-1, 1, 12).reshape(3, 4)
WIDE = np.linspace(-1, 1, 1024 * 1024).reshape(1024, 1024)


def plan_of(function, *arguments):
    return nt.compile(function).tape(*arguments).plan


def moved(plan, name, offset):
    """The plan with one value at another offset."""
    value = next(v for v, number in numbering(plan.graph).items() if number == name)
    return replace(plan, offsets={**plan.offsets, value: offset})


def test_two_slots_that_overlap_are_shown():
    plan = plan_of(chain, X)
    assert prove(plan) is plan
    with pytest.raises(OverwrittenError) as caught:
        prove(moved(plan, "%2", 64))
    first = chain.__code__.co_firstlineno
    lines = str(caught.value).splitlines()
    assert (
        lines[0] == "the plan of chain is wrong: %1, which kernel 1 needs, shares memory with %2"
    )
    assert [line.split() for line in lines[1:4]] == [
        ["value", "op", "from", "to", "offset", "bytes", "line"],
        ["%1:", "f64[3,4]", "exp", "0", "3", "0", "96", f"programs.py:{first + 1}"],
        ["%2:", "f64[3,4]", "add", "1", "2", "64", "96", f"programs.py:{first + 2}"],
    ]
    assert caught.value.clash.at == 1
    assert caught.value.line.rpartition(":")[0] == __file__


def test_every_offset_that_overlaps_is_found():
    """Each slot laid over the start of each other that lives at the same time."""
    function, arguments = mlp_step()
    plan = plan_of(function, *arguments)
    slots = [s for s in plan.slots if s.nbytes]
    tried = 0
    for one in slots:
        for other in slots:
            alive = one.start < other.stop and other.start < one.stop
            if one is not other and alive:
                tried += 1
                assert any(clashes(moved(plan, one.name, other.offset))), (one, other)
    assert tried > 100


def test_regions_are_gone_through_tile_by_tile():
    plan = plan_of(rows, WIDE)
    (tiles,) = plan.tilings
    assert tiles.count > 2
    assert plan.lives.tiles
    assert list(clashes(plan)) == []
    held = next(iter(plan.lives.tiles))
    last = plan.memory.arena - plan.lives.nbytes(held)
    for offset in range(0, last, 1024 * 1024):
        name = numbering(plan.graph)[held]
        spoilt = moved(plan, name, offset)
        assert any(clashes(spoilt)) or not _overlaps(plan, held, offset)


def _overlaps(plan, value, offset):
    """Whether a place is taken by another value while the region runs."""
    stop = offset + plan.lives.nbytes(value)
    others = (s for s in plan.slots if s.offset < stop and offset < s.offset + s.nbytes)
    start, end = plan.lives.start[value], plan.lives.stop[value]
    own = numbering(plan.graph)[value]
    return any(s.start <= end and start <= s.stop and s.name != own for s in others)


def test_numbers_in_regions_lie_where_they_lay():
    """A part of an array without axes is a copy, unless asked for as an array."""
    scale = nt.Tensor(np.array(0.5))
    plan = plan_of(lambda x: rows(x * scale), WIDE)
    assert plan.tilings
    assert list(clashes(plan)) == []


def test_a_value_that_outlives_its_tile_is_found():
    """Memory for one tile is not enough for what is read behind the region."""
    plan = plan_of(rows, WIDE)
    (tiles,) = plan.tilings
    whole = next(v for v in tiles.nodes if v not in plan.lives.tiles and v in plan.offsets)
    lives = replace(plan.lives, tiles={**plan.lives.tiles, whole: tiles})
    assert any(clashes(replace(plan, lives=lives)))


def test_updates_into_storage_that_is_still_read_are_found():
    total = nt.Tensor(np.zeros(4))

    def count(x):
        total.assign(total + x)
        return total * 2.0 + x

    plan = plan_of(count, X[0])
    assert list(clashes(plan)) == []
    early = (plan.order[1], plan.order[0], *plan.order[2:])
    assert any(clashes(replace(plan, order=early)))


def test_kernels_in_a_wrong_order_are_found():
    function, arguments = gpt_step(layers=1)
    plan = plan_of(function, *arguments)
    order = list(plan.order)
    for i in range(0, len(order) - 1, 7):
        if any(plan.places[v].root is order[i] for v in order[i + 1].inputs):
            turned = [*order[:i], order[i + 1], order[i], *order[i + 2 :]]
            assert any(clashes(replace(plan, order=tuple(turned))))
