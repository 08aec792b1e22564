"""Tensors that look at the same memory.

A tape takes each argument and captured tensor for memory of its own. Where the function updates
one of two that overlap, the other would be read too early or too late.
"""

from collections.abc import Container, Sequence

import numpy as np

from numtape.ir.memory import holder
from numtape.ir.types import Type


def owner(array: np.ndarray) -> int:
    """The id of what holds the memory of an array: arrays with different ones do not overlap."""
    held = holder(array)
    return id(held if held.base is None else held.base)


def shares_memory(changed: str, other: str) -> str:
    """What is wrong where a function updates one of two that overlap."""
    return (
        f"the function updates {changed}, which shares memory with {other}; take the view inside "
        "the function, or give one of them a copy of its own"
    )


def two_ways(name: str, type: Type) -> str:
    """What is wrong with a tensor that is an argument and used from outside as well."""
    return (
        f"the tensor given as {name} ({type}) is also used from outside, as a captured "
        "one; pass it one way only, as an argument or by closure"
    )


def first_alias(arrays: Sequence[np.ndarray], updated: Container[int]) -> tuple[int, int] | None:
    """Positions of an updated array and of another with which it shares memory."""
    spans = sorted((*np.lib.array_utils.byte_bounds(a), i) for i, a in enumerate(arrays) if a.size)
    open_: list[tuple[int, int]] = []
    for low, high, i in spans:
        open_ = [(end, j) for end, j in open_ if end > low]
        for _, j in open_:
            changed, other = (i, j) if i in updated else (j, i)
            if changed in updated and np.shares_memory(arrays[changed], arrays[other]):
                return changed, other
        open_.append((high, i))
    return None
