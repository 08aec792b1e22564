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
    sizes = [aligned(s.nbytes) for s in spans]
    order = sorted(range(len(spans)), key=lambda i: (-sizes[i], spans[i].start))
    starts = np.array([spans[i].start for i in order], np.int64)
    stops = np.array([spans[i].stop for i in order], np.int64)
    lows, ends = np.zeros((2, len(spans)), np.int64)
    offsets = [0] * len(spans)
    for count, i in enumerate(order):  # the leading `count` are placed
        before, behind = starts[:count] <= stops[count], stops[:count] >= starts[count]
        rivals = (before & behind).nonzero()[0]
        offsets[i] = _lowest_gap(lows[rivals], ends[rivals], sizes[i])
        lows[count], ends[count] = offsets[i], offsets[i] + sizes[i]
    return offsets


def _lowest_gap(lows: np.ndarray, ends: np.ndarray, wanted: int) -> int:
    """The lowest address from which `wanted` bytes are free of what lies from lows to ends."""
    if not lows.size:
        return 0
    order = lows.argsort()
    lows = lows[order]
    if lows[0] >= wanted:
        return 0
    # The end of all so far is where a gap begins; the next one is where it ends.
    ends = np.maximum.accumulate(ends[order])
    fits = (lows[1:] - ends[:-1] >= wanted).nonzero()[0]
    return int(ends[fits[0] if fits.size else -1])


def reserve(nbytes: int) -> np.ndarray:
    """An uninitialised block of bytes whose address is a multiple of `ALIGNMENT`."""
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + nbytes]
