"""What gradient rules read: a rule that does not read a value does not mind that it changed."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from numtape.ir.graph import Builder, ancestors
from numtape.ir.interpreter import active
from numtape.ir.op import Op
from numtape.ir.types import Type

OUT = -1


def reads(
    op: Op, wanted: Sequence[bool], types: Sequence[Type], out: Type, attrs: Mapping[str, Any]
) -> frozenset[int]:
    """The positions of the inputs whose values the rules of the wanted inputs read, and OUT for
    the result's. What depends on shapes alone reads nothing."""
    if op.view is not None:
        return frozenset()
    return _reads(op, tuple(wanted), tuple(types), out, tuple(attrs.items()))


@lru_cache(maxsize=4096)
def _reads(op: Op, wanted: tuple, types: tuple, out: Type, attrs: tuple) -> frozenset[int]:
    builder = Builder()
    given = {i: builder.input(t, "x") for i, t in enumerate(types)} | {OUT: builder.input(out, "")}
    rules = [op.vjp(i) for i, w in enumerate(wanted) if w]
    with active(builder):
        g = builder.input(out, "g")
        xs = [given[i] for i in range(len(types))]
        found = [rule(g, given[OUT], *xs, **dict(attrs)) for rule in rules if rule is not None]
    met = ancestors(v for v in found if v is not None)
    return frozenset(i for i, value in given.items() if value in met)
