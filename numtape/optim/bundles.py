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

    def update(self, rule: Rule) -> None:
        """Assign what the rule makes of the parameters that have a gradient."""
        if tracing() is not None:
            self._gather()
        due = [p for p in self.parameters if p.grad is not None]
        if not due:
            return
        some = len(due) < len(self.parameters)
        moments = [self._chosen(m) for m in self.moments] if some else self.moments
        gradient = joined([p.grad for p in due])
        new, *after = rule(joined(due), gradient, *moments)
        for p, value in zip(due, parted(new, due), strict=True):
            p.assign(value)
        for moment, value in zip(self.moments, after, strict=True):
            moment.assign(self._with_others(moment, value, due) if some else value)

    def moments_apart(self) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Each parameter with its moments: views where they lie beside others."""
        columns = (parted(m, self.parameters) for m in self.moments)
        for p, *moments in zip(self.parameters, *columns, strict=True):
            yield p, moments

    def _gather(self) -> None:
        """Copies of an optimizer do not begin in one block of memory."""
        if not are_end_to_end(self.parameters) and all(map(can_move, self.parameters)):
            lay_end_to_end(self.parameters)

    def _chosen(self, moment: Tensor) -> Any:
        """Of a moment, what belongs to the parameters that have a gradient."""
        parts = zip(self.parameters, parted(moment, self.parameters), strict=True)
        return joined([part for p, part in parts if p.grad is not None])

    def _with_others(self, moment: Tensor, new: Any, due: Sequence[Tensor]) -> Any:
        """A moment, anew for those that are due and as it was for the others."""
        fresh = iter(parted(new, due))
        parts = zip(self.parameters, parted(moment, self.parameters), strict=True)
        return joined([part if p.grad is None else next(fresh) for p, part in parts])


def joined(tensors: Sequence[Any]) -> Any:
    """The entries of all, end to end; one tensor alone stays as it is."""
    return tensors[0] if len(tensors) == 1 else concatenate([t.reshape(-1) for t in tensors])


def parted(flat: Any, tensors: Sequence[Tensor]) -> list[Any]:
    """What belongs to each of the tensors, in its shape: the other way round."""
    if len(tensors) == 1:
        return [flat]
    bounds = pairwise(accumulate((t.size for t in tensors), initial=0))
    return [flat[a:b].reshape(t.shape) for t, (a, b) in zip(tensors, bounds, strict=True)]


def together(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Small parameters of one dtype together, the others alone.

    The largest come first: their sizes are multiples of a line of cache more often.
    """
    alone: list[list[Tensor]] = []
    small: dict[np.dtype, list[Tensor]] = {}
    for p in sorted(parameters, key=lambda p: -p.size):
        if p.size <= SMALL:
            small.setdefault(p.dtype, []).append(p)
        else:
            alone.append([p])
    return [*alone, *small.values()]


def bundles(parameters: Iterable[Tensor], moments: int) -> tuple[Bundle, ...]:
    """The parameters in bundles, in memory as well where that can be.

    What has no moments takes too few calls to be laid end to end first.
    """
    if not moments:
        return tuple(Bundle([p], moments) for p in parameters)
    laid = (part for members in together(parameters) for part in _laid(members))
    return tuple(Bundle(members, moments) for members in laid)


def _laid(parameters: list[Tensor]) -> list[list[Tensor]]:
    """Those that lie end to end in one block, moved there if need be, and those that cannot."""
    if are_end_to_end(parameters):
        return [parameters]
    moved: list[Tensor] = []
    held: list[Tensor] = []
    for p in parameters:
        (moved if can_move(p) else held).append(p)
    if moved:
        lay_end_to_end(moved)
    return [part for part in (moved, held) if part]
