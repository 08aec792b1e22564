"""Captured tensors that look at the same memory.

A tape takes each captured tensor for memory of its own. Where the function updates one of two that
overlap, the other would be read too early or too late.
"""

from collections.abc import Container, Sequence

import numpy as np


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
