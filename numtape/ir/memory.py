"""The memory of arrays: who holds it, and what lies end to end in it."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from numtape.ir.types import Shape

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


def aligned(nbytes: int) -> int:
    """Whole cache lines."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def reserve(nbytes: int) -> np.ndarray:
    """An uninitialised block of bytes whose address is a multiple of `ALIGNMENT`."""
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -address(block) % ALIGNMENT
    return block[start : start + nbytes]


def address(array: np.ndarray) -> int:
    """Where the first entry of an array lies."""
    return array.__array_interface__["data"][0]


def holder(array: np.ndarray) -> np.ndarray:
    """The array whose memory an array is a view of; itself, where it is none."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def lie_end_to_end(arrays: Sequence[np.ndarray]) -> bool:
    """Whether the arrays are dense stretches of one block, each where the one before ends."""
    held = holder(arrays[0])
    return (
        held.flags.c_contiguous
        and all(a.flags.c_contiguous and a.dtype == arrays[0].dtype for a in arrays)
        and all(holder(a) is held for a in arrays)
        and all(address(a) + a.nbytes == address(b) for a, b in pairwise(arrays))
    )


def end_to_end(*arrays: np.ndarray, shape: Shape) -> np.ndarray:
    """One array over the memory of arrays that lie end to end; others are a ValueError.

    It is read-only where one of them is.
    """
    if not lie_end_to_end(arrays):
        raise ValueError("the arrays do not lie end to end in one block of memory")
    held = holder(arrays[0])
    joined = np.ndarray(shape, arrays[0].dtype, held, address(arrays[0]) - address(held))
    joined.flags.writeable = all(a.flags.writeable for a in (held, *arrays))
    return joined
