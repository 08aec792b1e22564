"""View elimination: chains of reshapes, slices and joins become short. Reassociating.

A view costs nothing at replay, but a reshape of a transposed view is a copy; so views that undo
one another are dropped, those of the same kind are joined, and sums of slices laid side by side
are one concatenation. Entries stay as they are, but not where they lie in memory, by which NumPy
and BLAS choose the order of their sums; and a -0 that is joined was added to a 0 before.
"""

from collections.abc import Mapping
from typing import Any

from numtape.ir.graph import Graph, Value
from numtape.ir.op import Op
from numtape.ir.ops.elementwise import add
from numtape.ir.ops.parts import Bounds, place, slice_
from numtape.ir.ops.shapes import concatenate_op, reshape_op, transpose_op
from numtape.ir.types import Shape
from numtape.passes.identities import IDLE
from numtape.passes.rewrite import rewrite


def views(graph: Graph) -> Graph:
    """The graph with the fewest views and copies that give the same values."""
    return rewrite(graph, _simplified)


def _simplified(op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value | None:
    if op in IDLE and (found := IDLE[op](inputs, attrs)) is not None:
        return found
    rule: Any = _RULES.get(op)
    return rule(*inputs, **attrs) if rule is not None else None


def _reshape_rule(x: Value, shape: Shape) -> Value | None:
    if x.op is reshape_op:  # reshape(reshape(x)) = reshape(x)
        return x.inputs[0].reshape(shape)
    return None


def _transpose_rule(x: Value, axes: tuple[int, ...]) -> Value | None:
    moved = [a for a in axes if x.shape[a] != 1]
    if moved == sorted(moved):  # only axes of length 1 move: a reshape
        return x.reshape(tuple(x.shape[a] for a in axes))
    return None


def _slice(x: Value, bounds: Bounds) -> Value | None:
    if x.op is place and x.attrs["bounds"] == bounds:  # what was placed there
        return x.inputs[0]
    return _part_of_join(x, bounds) if x.op is concatenate_op else None


def _part_of_join(x: Value, bounds: Bounds) -> Value | None:
    """The slice of a concatenation that lies inside one of its parts."""
    axis = x.attrs["axis"]
    start, stop, step = bounds[axis]
    offset = 0
    for part in x.inputs:
        end = offset + part.shape[axis]
        if step == 1 and offset <= start <= stop <= end:
            inner = (*bounds[:axis], (start - offset, stop - offset, 1), *bounds[axis + 1 :])
            return slice_(part, bounds=inner)
        offset = end
    return None


def _place(x: Value, shape: Shape, bounds: Bounds, fill: float = 0.0) -> Value | None:
    whole = all(b == (0, n, 1) for b, n in zip(bounds, shape, strict=True))
    return x if whole else None


def _add(x: Value, y: Value) -> Value | None:
    """place(a) + place(b) side by side = place(concatenate(a, b))."""
    if x.op is not place or y.op is not place or x.shape != y.shape:
        return None
    if x.attrs.get("fill", 0.0) != 0.0 or y.attrs.get("fill", 0.0) != 0.0:
        return None
    first, second = sorted((x, y), key=lambda v: v.attrs["bounds"])
    a, b = first.attrs["bounds"], second.attrs["bounds"]
    differing = [i for i, (p, q) in enumerate(zip(a, b, strict=True)) if p != q]
    if len(differing) != 1:
        return None
    (axis,) = differing
    if a[axis][2] != 1 or b[axis][2] != 1 or a[axis][1] != b[axis][0]:
        return None
    bounds = (*a[:axis], (a[axis][0], b[axis][1], 1), *a[axis + 1 :])
    joined = concatenate_op(*_parts(first, axis), *_parts(second, axis), axis=axis)
    return place(joined, shape=x.shape, bounds=bounds)


def _parts(placed: Value, axis: int) -> tuple[Value, ...]:
    return _joined_parts(placed.inputs[0], axis)


def _joined_parts(x: Value, axis: int) -> tuple[Value, ...]:
    return x.inputs if x.op is concatenate_op and x.attrs["axis"] == axis else (x,)


def _concatenate(*parts: Value, axis: int) -> Value | None:
    """join(reshape(x), reshape(y)) = reshape(join(x, y)) where the last axis was several before.

    What was transposed is so copied once, into its place, and not to be reshaped first.
    """
    sources = [v.inputs[0] for v in parts if _merges_last(v, axis)]
    others = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in sources}
    turned = any(x.op is transpose_op for x in sources)
    if not turned or len(sources) < len(parts) or len(others) > 1:
        return None
    length = sum(v.shape[axis] for v in parts)
    flat = (part for x in sources for part in _joined_parts(x, axis))
    return concatenate_op(*flat, axis=axis).reshape((*parts[0].shape[:axis], length))


def _merges_last(x: Value, axis: int) -> bool:
    """Whether a reshape leaves the axes before `axis` alone, and makes one of all others."""
    if x.op is not reshape_op or axis != x.ndim - 1:
        return False
    (source,) = x.inputs
    return source.ndim > axis and source.shape[:axis] == x.shape[:axis]


_RULES = {
    concatenate_op: _concatenate,
    reshape_op: _reshape_rule,
    transpose_op: _transpose_rule,
    slice_: _slice,
    place: _place,
    add: _add,
}
