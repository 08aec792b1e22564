"""Packing buffers into one block: whoever lives at the same time must not overlap.

Greedy by size, best fit (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
Inference", 2020, algorithm 3): large buffers first, each at the lowest gap that is wide enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


@dataclass(frozen=True)
class Span:
    """A need for memory: so many bytes from instruction `start` up to and with `stop`."""

    nbytes: int
    start: int
    stop: int


@dataclass(frozen=True)
class Slot:
    """A span with its place in the arena; `name` is the value that it was made for."""

    name: str
    offset: int
    nbytes: int
    start: int
    stop: int


def aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def pack(spans: Sequence[Span]) -> list[int]:
    """An offset for every span, in a block as small as is found."""
    count = len(spans)
    starts = np.array([s.start for s in spans], np.int64)
    stops = np.array([s.stop for s in spans], np.int64)
    sizes = np.array([aligned(s.nbytes) for s in spans], np.int64)
    offsets = np.zeros(count, np.int64)
    placed = np.zeros(count, bool)
    for i in sorted(range(count), key=lambda i: (-sizes[i], starts[i])):
        rivals = np.flatnonzero(placed & (starts <= stops[i]) & (stops >= starts[i]))
        offsets[i] = _lowest_gap(offsets[rivals], sizes[rivals], sizes[i])
        placed[i] = True
    return offsets.tolist()


def _lowest_gap(offsets: np.ndarray, sizes: np.ndarray, wanted: int) -> int:
    """The lowest address from which `wanted` bytes are free of the rivals."""
    order = np.argsort(offsets, kind="stable")
    lows = offsets[order]
    # The end of all rivals so far is where a gap begins; the next rival is where it ends.
    ends = np.concatenate(([0], np.maximum.accumulate(lows + sizes[order])))
    fits = np.flatnonzero(lows - ends[:-1] >= wanted)
    return int(ends[fits[0]] if fits.size else ends[-1])


def reserve(nbytes: int) -> np.ndarray:
    """An uninitialised block of bytes whose address is a multiple of `ALIGNMENT`."""
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + nbytes]
