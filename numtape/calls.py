"""Calls in flight: a forward tape that has run and whose reverse tape may yet.

Such a call holds its arena by a lease, so that no other call overwrites what the reverse tape
reads. The arena goes back when the reverse tape has run, or when nobody can ask for it any more.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from numtape.ir.graph import Graph
from numtape.ir.location import user_line
from numtape.ir.ops.parts import place
from numtape.ir.types import Type
from numtape.runtime.blocks import Bound
from numtape.runtime.sources import sources
from numtape.runtime.tape import Tape
from numtape.tracer.recorder import grad_enabled
from numtape.tracer.tensor import Tensor
from numtape.tracer.traced import Joint


class Lease:
    """The use of one arena by one call."""

    def __init__(self, tape: Tape, bound: Bound) -> None:
        self._tape = tape
        self._bound: Bound | None = bound

    @property
    def bound(self) -> Bound:
        if self._bound is None:
            raise RuntimeError(
                f"at {user_line()}: the reverse tape of this call has run already, and its arena "
                "serves other calls; combine the outputs, as in (a + b).backward(), give the "
                "first backward() retain_graph=True, or call the compiled function again"
            )
        return self._bound

    def reverse(self, reached: int) -> Callable[[], None]:
        """The reverse tape for gradients of these results, as bits."""
        return self._tape.reverse(self.bound, reached)

    def end(self) -> None:
        """Give the arena back; later uses are errors."""
        bound, self._bound = self._bound, None
        if bound is not None:
            self._tape.release(bound)

    def __del__(self) -> None:
        self.end()


class _Call:
    """What stands as the op of a compiled call on the eager tape."""

    name = "compiled call"
    compiled = True
    broadcasts = False
    expand = None

    def __init__(self, reverse: "Reverse", lease: Lease, leaves: int) -> None:
        self.retain = False  # whether another backward() may come: the recorder says so
        self.reached: int = 0  # the sources that this backward() came from, as bits
        self._reverse = reverse
        self._lease = lease
        self._leaves = leaves
        self._answered: Tensor | None = None
        self._gradients: list[Tensor | None] = []

    def __repr__(self) -> str:
        return "<a compiled call>"

    def vjp(self, position: int) -> Callable[..., Tensor | None] | None:
        if position >= self._leaves:
            return None

        def rule(g: Tensor, out: Tensor, *inputs: Tensor) -> Tensor | None:
            if self._answered is not g:  # the rules of all inputs share one run
                self._answered, self._gradients = g, self._pulled(g, inputs)
            return self._gradients[position]

        return rule

    def forget(self) -> None:
        """The next backward() runs the reverse tape again, be it for the same gradient."""
        self._answered, self._gradients, self.reached = None, [], 0

    def _pulled(self, g: Tensor, inputs: tuple[Tensor, ...]) -> list[Tensor | None]:
        leads = self._reverse.leads
        wanted = [not self.reached or bool(self.reached & bits) for bits in leads]
        found = [plain(a) if w else None for a, w in zip(self._run(g), wanted, strict=True)]
        for gradient in found:
            if gradient is not None and grad_enabled():
                gradient.record(_UNKNOWN, (g, *inputs), {}, copied=1 + len(inputs))
        return found

    def _run(self, g: Tensor) -> list[np.ndarray]:
        bound = self._lease.bound
        kept = bound.arena.copy() if self.retain else None  # what the reverse tape works over
        flat, parts = g.numpy().reshape(-1), self._reverse.parts
        try:
            for held, (start, stop) in zip(bound.arguments[-len(parts) :], parts, strict=True):
                held[...] = flat[start:stop].reshape(held.shape)
            self._lease.reverse(self.reached or self._reverse.all_sources)()
            return [a.copy() for a in bound.outputs[self._reverse.early :]]
        finally:  # also where it failed: half of it may be done
            if kept is None:
                self._lease.end()
            else:
                np.copyto(bound.arena, kept)


class _Part:
    """What stands as the op of one of several results of a compiled call."""

    name = "result of a compiled call"
    broadcasts = False
    expand = None

    def __init__(self, call: _Call, source: int) -> None:
        self._call = call
        self._source = source

    def __repr__(self) -> str:
        return "<a result of a compiled call>"

    def vjp(self, position: int) -> Callable[..., Tensor]:
        def rule(g: Tensor, out: Tensor, whole: Tensor, start: int, stop: int) -> Tensor:
            self._call.reached |= 1 << self._source
            bounds = ((start, stop, 1),)
            return place(g.reshape(-1), shape=whole.shape, bounds=bounds, fill=-0.0)

        return rule


class _Unknown:
    """What stands as the op of a compiled call's gradients where these are differentiated."""

    name = "gradient of a compiled call"
    broadcasts = False
    expand = None

    def vjp(self, position: int) -> Callable[..., Tensor]:
        raise RuntimeError(
            f"at {user_line()}: the gradient of a compiled call cannot be differentiated "
            "again; compile the gradient instead, as in compile(grad(f))"
        )


_UNKNOWN: Any = _Unknown()


class Reverse:
    """The reverse part of a tape: what all of its calls have in common.

    read   the captured tensors (and arrays, as tensors) that it reads where they are, which must
           not change before it runs.
    early  how many results the forward tape gives.
    """

    def __init__(self, joint: Joint, read: Sequence[Tensor], early: int) -> None:
        self.early = early
        self.leads = _leads(joint.graph)
        self.all_sources = (1 << len(joint.sources)) - 1
        self._read = tuple(read)
        self._sources = joint.sources
        types = [joint.graph.outputs[i].type for i in joint.sources]
        ends = np.cumsum([t.size for t in types]).tolist()
        self.parts = tuple(zip([0, *ends[:-1]], ends, strict=True))
        self._whole = Type(np.result_type(*(t.dtype for t in types)), (ends[-1],))

    def results(
        self,
        arrays: Sequence[np.ndarray],
        types: Sequence[Type],
        leaves: list[Tensor],
        lease: Lease,
    ) -> list[Tensor]:
        """The results of one call as tensors from which `backward()` reaches the reverse tape.

        One node stands for the whole call. With several differentiable results it stands for
        their entries laid end to end, and each result for its part.
        """
        call: Any = _Call(self, lease, len(leaves))
        inputs = (*leaves, *self._read)
        if len(self._sources) == 1:
            tensors = list(map(Tensor.wrap, arrays, types))
            tensors[self._sources[0]].record(call, inputs, {}, copied=len(leaves))
            return tensors
        nothing = np.broadcast_to(np.zeros((), self._whole.dtype), self._whole.shape)
        whole = Tensor.wrap(nothing, self._whole)
        whole.record(call, inputs, {}, copied=len(leaves))
        tensors = list(map(Tensor.wrap, arrays, types))
        for i, (source, (start, stop)) in enumerate(zip(self._sources, self.parts, strict=True)):
            part: Any = _Part(call, i)
            bounds = {"start": start, "stop": stop}
            tensors[source].record(part, (whole,), bounds, copied=1)
        return tensors


def _leads(graph: Graph) -> list[int]:
    """For each leaf, as bits, the results whose gradients reach its own."""
    assert graph.early is not None
    found = sources(graph)
    return [found.get(v, 0) for v in graph.outputs[graph.early[1] :]]


def plain(array: np.ndarray) -> Tensor:
    """A tensor without history that holds this array."""
    return Tensor.wrap(array, Type(array.dtype, array.shape))
