"""Reverse-mode differentiation: one loop for eager tapes and for graphs alike.

It sums the uses of a value, undoes broadcasting and skips what nobody asked for; the rules of the
ops do none of that. Rules are run under the current interpreter, so what they compute can itself
be recorded, compiled and differentiated.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from numtape.ir.op import Op
from numtape.ir.ops.shapes import unbroadcast
from numtape.ir.types import ShapeError

Around = Callable[[Any], Any]


def backprop(
    outputs: Sequence[Any],
    seeds: Sequence[Any],
    needed: Callable[[Any], bool],
    around: Around,
    leaves: Iterable[Any] = (),
) -> dict[Any, Any]:
    """Gradients of sum(output · seed) with respect to the leaves that `needed` says yes to.

    Nodes have `op` (None for leaves), `inputs`, `attrs` and an increasing `index`. `needed(v)`
    tells whether v leads to something differentiated; `around(node)` is a context in which the
    node's rules run. `leaves` are inner nodes at which to stop as well.
    """
    stops = set(leaves)
    gradients: dict[Any, Any] = {}
    queue: list[tuple[int, Any]] = []
    for output, seed in zip(outputs, seeds, strict=True):
        if needed(output):
            _accumulate(gradients, queue, output, seed)
    found: dict[Any, Any] = {}
    while queue:
        _, node = heapq.heappop(queue)
        g = gradients.pop(node)
        if node.op is None or node in stops:
            found[node] = g
            continue
        with around(node):
            for x, contribution in _contributions(node, g, needed):
                _accumulate(gradients, queue, x, contribution)
    return found


def _accumulate(gradients: dict[Any, Any], queue: list, node: Any, g: Any) -> None:
    if node in gradients:
        gradients[node] = gradients[node] + g
    else:
        gradients[node] = g
        heapq.heappush(queue, (-node.index, node))


def _contributions(node: Any, g: Any, needed: Callable[[Any], bool]) -> Iterable[tuple[Any, Any]]:
    op: Op = node.op
    for position, x in enumerate(node.inputs):
        if not needed(x):
            continue
        rule = op.vjp(position)
        if rule is None:
            continue
        found = rule(g, node, *node.inputs, **node.attrs)
        if found is not None:
            yield x, _fitted(found, x, op)


def _fitted(g: Any, x: Any, op: Op) -> Any:
    """A rule's answer in the shape and dtype of the input it is for."""
    if op.broadcasts:
        g = unbroadcast(g, x.shape)
    if g.shape != x.shape:
        raise ShapeError(f"a gradient rule of {op.name} gave the shape {g.shape} for {x.shape}")
    return g if g.dtype == x.dtype else g.astype(x.dtype)
