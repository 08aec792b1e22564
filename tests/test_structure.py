"""Containers of arguments and results: they keep their types and settings in a trace."""

from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field

import numpy as np
import pytest

import numtape as nt

Pair = namedtuple("Pair", "x y")


@dataclass
class Batch:
    x: np.ndarray
    y: np.ndarray
    size: int = field(init=False)

    def __post_init__(self):
        self.size = len(self.x)


@dataclass(frozen=True, slots=True)
class Frozen:
    x: np.ndarray
    y: np.ndarray


class Items(list):
    pass


ONES = np.ones(3)
CONTAINERS = [
    defaultdict(list, x=ONES, y=2 * ONES),
    OrderedDict(x=ONES, y=2 * ONES),
    Pair(ONES, 2 * ONES),
    Items([ONES, 2 * ONES]),
    Batch(ONES, 2 * ONES),
    Frozen(ONES, 2 * ONES),
]


def parts(given):
    if isinstance(given, dict):
        return given["x"], given["y"]
    return (given.x, given.y) if hasattr(given, "x") else given


@pytest.mark.parametrize("given", CONTAINERS, ids=lambda c: type(c).__name__)
def test_container_keeps_its_type(given):
    seen = []

    def same(container):
        x, y = parts(container)
        seen.append(type(container))
        return container, x + y

    returned, total = nt.compile(same)(given)
    assert seen == [type(given)]
    assert type(returned) is type(given)
    assert [part.tolist() for part in parts(returned)] == [[1.0] * 3, [2.0] * 3]
    assert total.tolist() == [3.0] * 3
    assert all(type(part) is np.ndarray for part in parts(given))


def test_settings_of_a_container_are_kept():
    groups = nt.compile(lambda given: (given["absent"], given["x"] * 2)[1])
    assert groups(defaultdict(list, x=ONES)).tolist() == [2.0] * 3
    sizes = nt.compile(lambda batch: batch.x * batch.size)
    assert sizes(Batch(ONES, ONES)).tolist() == [3.0] * 3


def test_empty_containers_are_new_at_each_call():
    found = nt.compile(lambda x: (x, [], {}))
    first, second = found(ONES), found(ONES)
    first[1].append(1)
    first[2]["a"] = 1
    assert second[1:] == found(ONES)[1:] == ([], {})
