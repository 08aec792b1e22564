"""Where each value lives: a number in the source, memory from outside, a buffer, or a view.

View elimination happens here: reshape, transpose, slice, split and broadcast are bound once, over
the memory of what they look at, wherever strides allow it. Layouts are worked out on prototypes,
arrays over memory that is reserved but never touched.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from numtape.ir.graph import Graph, Value, ancestors, first_part, independent
from numtape.ir.memory import address, end_to_end
from numtape.ir.ops.dense import dense, lies_dense
from numtape.ir.ops.indexing import wrap_index
from numtape.runtime.joins import Joins


class Place(NamedTuple):
    """The memory of one value.

    root       the value that owns the memory; None for numbers written into the source.
    prototype  an array with the shape, strides and offset of the value, never read.
    outside    whether it is memory that lies outside the arena, bound by reference.
    """

    root: Value | None
    prototype: np.ndarray
    outside: bool = False

    @property
    def contiguous(self) -> bool:
        return self.prototype.flags.c_contiguous

    @property
    def writeable(self) -> bool:
        return self.prototype.flags.writeable


Places = Mapping[Value, Place]


def layouts(graph: Graph, outside: Mapping[Value, np.ndarray], joins: Joins) -> dict[Value, Place]:
    """The place of every value; `outside` gives the arrays of inputs bound by reference.

    What lies end to end has its place in what joins it.
    """
    largest = max([v.nbytes for v in (*graph.inputs, *graph.nodes)], default=0)
    reserved = np.empty(largest + 8, np.uint8)
    whole = {part: node for node, parts in joins.items() for part in parts}
    places: dict[Value, Place] = {}
    for value in graph.inputs:
        if value in outside:
            places[value] = Place(whole.get(value, value), outside[value], outside=True)
        else:
            places[value] = Place(value, _fresh(value, reserved))
    for node in graph.nodes:
        if node in joins:
            joined = end_to_end(*(outside[v] for v in joins[node]), shape=node.shape)
            places[node] = Place(node, joined, outside=True)
        else:
            places[node] = _place(node, places, reserved)
    return places


def home(value: Value, places: Places) -> Value:
    """What owns the memory of a value, which is no number."""
    root = places[value].root
    assert root is not None
    return root


def offset(value: Value, places: Places) -> int:
    """Bytes from the start of the memory that a value lies in."""
    start = places[home(value, places)].prototype
    return address(places[value].prototype) - address(start)


def _fresh(value: Value, reserved: np.ndarray) -> np.ndarray:
    return np.ndarray(value.shape, value.dtype, buffer=reserved)


def _place(node: Value, places: Places, reserved: np.ndarray) -> Place:
    if node.is_constant:
        return Place(None, np.asarray(node.attrs["value"], node.dtype))
    if node.op.view is not None:
        source = places[node.inputs[0]]
        seen = _view(node, source.prototype)
        if seen is not None:
            return source._replace(prototype=seen)
    return Place(node, _fresh(node, reserved))


def _view(node: Value, prototype: np.ndarray) -> np.ndarray | None:
    """The view, or None where only a copy gives the result."""
    assert node.op.view is not None
    if node.op is dense and not lies_dense(prototype, **node.attrs):
        return None
    if node.op.kernel is None or node.op is dense:
        return node.op.view(prototype, **node.attrs)
    try:
        return prototype.reshape(node.shape, copy=False)
    except ValueError:
        return None


def is_work(node: Value, places: Places) -> bool:
    """Whether the node computes something at replay, rather than being a number or a view."""
    return places[node].root is node and not places[node].outside


def hoisted(graph: Graph, places: Places) -> list[Value]:
    """The nodes that depend on no input: computed once, when a tape is bound to its memory."""
    fixed = independent(graph)
    return [v for v in graph.nodes if v in fixed and is_work(v, places)]


def checks_first(graph: Graph, work: Sequence[Value]) -> list[Value]:
    """The work, led by the checks of indices and the integer arithmetic that they depend on.

    An index out of range is so found before anything is written.
    """
    known = set(graph.inputs if graph.early is None else graph.inputs[: graph.early[0]])
    for node in graph.nodes:
        if node.dtype.kind in "iub" and known.issuperset(node.inputs):
            known.add(node)
    leading = known & ancestors(v for v in work if v.op is wrap_index and v in known)
    return sorted(work, key=lambda v: v not in leading)


SMALL = 512  # bytes: counters and random states, whose updates wait for the end of a tape


def updates_last(graph: Graph, order: Sequence[Value], places: Places) -> list[Value]:
    """The order, with small updates that nobody reads moved to the end of the first tape.

    A counter drawn on in the forward part would otherwise be written there, and all that follows
    belong to the part of the tape that must run to its end.
    """
    read = {places[v].root for node in order for v in node.inputs}
    new = {v for old, v in graph.updates if v is not old}
    moved = {v for v in new - read if sum(x.nbytes for x in (v, *v.inputs)) <= SMALL}
    end = first_part(graph, order)
    early, late = order[:end], order[end:]
    return [*(v for v in early if v not in moved), *(v for v in early if v in moved), *late]


def may_fail(node: Value) -> bool:
    """Whether the kernel can raise for some values: a check of indices, or one of the user's."""
    return node.op is wrap_index or not _is_known(node.op.kernel)


def _is_known(kernel: Callable | None) -> bool:
    """Whether a kernel is NumPy's or numtape's own, which raise for no values."""
    if kernel is None or isinstance(getattr(kernel, "__self__", kernel), np.ufunc):
        return True
    return kernel.__module__.partition(".")[0] in ("numpy", "numtape")
