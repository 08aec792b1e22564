"""Parameters that are updated together: small ones end to end, and so their moments.

A call on a small array costs more than its entries do. The parameters are moved into one block of
memory, unless somebody holds their arrays: then they are laid end to end at each step.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from numtape.functions import concatenate
from numtape.tracer.moving import are_end_to_end, can_move, lay_end_to_end
from numtape.tracer.tensor import Tensor
from numtape.tracer.trace import tracing

Rule = Callable[..., tuple[Any, ...]]

# Entries of a parameter up to which its calls cost more than a copy of its gradient beside the
# others. Beside 2,048, steps of a perceptron of width 64 take 0.93 of the time, and of a GPT of
# width 32 0.95; at width 128, whose matrices have 16,384 and 65,536, those gain nothing.
SMALL = 4096


class Bundle:
    """Parameters of one dtype, and for each moment one tensor with that of all of them.

    The moments of a parameter that stands alone have its shape; otherwise they are flat.
    """

    def __init__(self, parameters: Sequence[Tensor], moments: int) -> None:
        self.parameters = tuple(parameters)
        first, *others = self.parameters
        shape = (sum(p.size for p in self.parameters),) if others else first.shape
        self.moments = tuple(Tensor(np.zeros(shape, first.dtype)) for _ in range(moments))

    @property
    def alone(self) -> bool:
        return len(self.parameters) == 1

    def update(self, rule: Rule) -> None:
        """Assign what the rule makes of the parameters that have a gradient."""
        if tracing() is not None:
            self._gather()
        due = [p for p in self.parameters if p.grad is not None]
        if not due:
            return
        some = len(due) < len(self.parameters)
        moments = [self._chosen(m) for m in self.moments] if some else self.moments
        gradient = self._joined([p.grad for p in due])
        new, *after = rule(self._joined(due), gradient, *moments)
        for p, value in zip(due, self._parts(new, due), strict=True):
            p.assign(value)
        for moment, value in zip(self.moments, after, strict=True):
            moment.assign(self._with_others(moment, value, due) if some else value)

    def moments_apart(self) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Each parameter with its moments: views where they lie beside others."""
        columns = (self._parts(m, self.parameters) for m in self.moments)
        for p, *moments in zip(self.parameters, *columns, strict=True):
            yield p, moments

    def _gather(self) -> None:
        """Copies of an optimizer do not begin in one block of memory."""
        if not are_end_to_end(self.parameters) and all(map(can_move, self.parameters)):
            lay_end_to_end(self.parameters)

    def _joined(self, tensors: Sequence[Any]) -> Any:
        return tensors[0] if self.alone else concatenate([t.reshape(-1) for t in tensors])

    def _parts(self, flat: Any, tensors: Sequence[Tensor]) -> list[Any]:
        """What belongs to each of these parameters, in its shape."""
        if self.alone:
            return [flat]
        bounds = pairwise(accumulate((p.size for p in tensors), initial=0))
        return [flat[a:b].reshape(p.shape) for p, (a, b) in zip(tensors, bounds, strict=True)]

    def _chosen(self, moment: Tensor) -> Any:
        """Of a moment, what belongs to the parameters that have a gradient."""
        parts = zip(self.parameters, self._parts(moment, self.parameters), strict=True)
        return self._joined([part for p, part in parts if p.grad is not None])

    def _with_others(self, moment: Tensor, new: Any, due: Sequence[Tensor]) -> Any:
        """A moment, anew for those that are due and as it was for the others."""
        fresh = iter(self._parts(new, due))
        parts = zip(self.parameters, self._parts(moment, self.parameters), strict=True)
        return self._joined([part if p.grad is None else next(fresh) for p, part in parts])


def bundles(parameters: Iterable[Tensor], moments: int) -> tuple[Bundle, ...]:
    """The parameters in bundles, small ones of one dtype together.

    What has no moments takes too few calls to be laid end to end first.
    """
    alone: list[list[Tensor]] = []
    together: dict[np.dtype, list[Tensor]] = {}
    for p in parameters:
        if moments and p.size <= SMALL:
            together.setdefault(p.dtype, []).append(p)
        else:
            alone.append([p])
    laid = [part for members in together.values() for part in _laid(members)]
    return tuple(Bundle(members, moments) for members in (*alone, *laid))


def _laid(parameters: list[Tensor]) -> list[list[Tensor]]:
    """Those that lie end to end in one block, moved there if need be, and those that cannot.

    The largest come first: their sizes are multiples of a line of cache more often.
    """
    ordered = sorted(parameters, key=lambda p: -p.size)
    if are_end_to_end(ordered):
        return [ordered]
    held = [p for p in ordered if not can_move(p)]
    moved = [p for p in ordered if can_move(p)]
    if moved:
        lay_end_to_end(moved)
    return [part for part in (moved, held) if part]
