"""Calls in flight: a forward tape that has run and whose reverse tape may yet.

Such a call holds its arena by a lease, so that no other call overwrites what the reverse tape
reads. The arena goes back when the reverse tape has run, or when nobody can ask for it any more.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from numtape.ir.location import user_line
from numtape.ir.types import Type
from numtape.runtime.blocks import Bound
from numtape.runtime.tape import Tape
from numtape.tracer.recorder import grad_enabled
from numtape.tracer.tensor import Tensor


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
                "serves other calls; combine the outputs, as in (a + b).backward(), or call the "
                "compiled function again before another backward()"
            )
        return self._bound

    def end(self) -> None:
        """Give the arena back; later uses are errors."""
        bound, self._bound = self._bound, None
        if bound is not None:
            self._tape.release(bound)

    def __del__(self) -> None:
        self.end()


class _Reverse:
    """What stands as the op of a compiled call's result on the eager tape."""

    name = "compiled call"
    once = True
    broadcasts = False
    expand = None

    def __init__(self, lease: Lease, early: int, seeds: int, leaves: int) -> None:
        self._lease = lease
        self._early = early
        self._seeds = seeds
        self._leaves = leaves
        self._answered: Tensor | None = None
        self._gradients: list[Tensor] = []

    def __repr__(self) -> str:
        return "<a compiled call>"

    def vjp(self, position: int) -> Callable[..., Tensor] | None:
        if position >= self._leaves:
            return None

        def rule(g: Tensor, out: Tensor, *inputs: Tensor, parts: Any) -> Tensor:
            if self._answered is not g:  # the rules of all inputs share one run
                self._gradients = self._run(g, parts)
                self._answered = g
                if grad_enabled():
                    for found in self._gradients:
                        found.record(_UNKNOWN, (g, *inputs), {})
            return self._gradients[position]

        return rule

    def _run(self, g: Tensor, parts: Sequence[tuple[int, int]]) -> list[Tensor]:
        bound = self._lease.bound
        flat = g.numpy().reshape(-1)
        for place, (start, stop) in zip(bound.arguments[-self._seeds :], parts, strict=True):
            place[...] = flat[start:stop].reshape(place.shape)
        assert bound.second is not None
        bound.second()
        found = [_plain(place.copy()) for place in bound.outputs[self._early :]]
        self._lease.end()
        return found


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


def differentiable(
    arrays: Sequence[np.ndarray],
    sources: Sequence[int],
    leaves: Sequence[Tensor],
    read: Sequence[Tensor],
    lease: Lease,
    early: int,
) -> list[Tensor]:
    """The outputs of a call as tensors from which `backward()` reaches the reverse tape.

    One node stands for the whole call. With several differentiable outputs it is their entries
    laid end to end, and each output is a view of its part. What the reverse tape will `read` must
    not change before.
    """
    ends = np.cumsum([arrays[i].size for i in sources]).tolist()
    parts = tuple(zip([0, *ends[:-1]], ends, strict=True))
    reverse: Any = _Reverse(lease, early, len(sources), len(leaves))
    inputs = (*leaves, *read)
    tensors = [_plain(a) for a in arrays]
    if len(sources) == 1:
        tensors[sources[0]].record(reverse, inputs, {"parts": parts})
        return tensors
    whole = _plain(np.concatenate([arrays[i].reshape(-1) for i in sources]))
    whole.record(reverse, inputs, {"parts": parts})
    for i, (start, stop) in zip(sources, parts, strict=True):
        tensors[i] = whole[start:stop].reshape(arrays[i].shape)
    return tensors


def _plain(array: np.ndarray) -> Tensor:
    return Tensor.wrap(array, Type(array.dtype, array.shape))
