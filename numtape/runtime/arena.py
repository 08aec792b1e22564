"""Packing buffers into one block: whoever lives at the same time must not overlap.

Greedy: one buffer after the other, each at the lowest gap that is wide enough (Pisarchyk and Lee,
"Efficient Memory Management for Deep Neural Net Inference", 2020, algorithms 2 and 3).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from numtape.ir.memory import aligned


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


def pack(spans: Sequence[Span]) -> list[int]:
    """An offset for every span, in a block as small as is found.

    Each order puts the widest of what is alike first; none is best for all programs. What is in
    use at the fullest moment is the least that any can reach.
    """
    if not spans:
        return []
    sizes, starts, stops = _columns(spans)
    used = in_use(spans)
    least, tried = used.max(), []
    for order in _orders(sizes, starts, stops, used):
        lows = _packed(sizes[order], starts[order], stops[order])
        tried.append((int((lows + sizes[order]).max()), order, lows))
        if tried[-1][0] == least:
            break
    _, order, lows = min(tried, key=lambda found: found[0])
    offsets = np.empty_like(lows)
    offsets[order] = lows
    return offsets.tolist()


def in_use(spans: Sequence[Span | Slot]) -> np.ndarray:
    """The bytes in use at each instruction, from the one numbered -1 on."""
    sizes, starts, stops = _columns(spans)
    change = np.zeros(stops.max(initial=-1) + 3, np.int64)
    np.add.at(change, starts + 1, sizes)
    np.add.at(change, stops + 2, -sizes)
    return np.cumsum(change)


def _columns(spans: Sequence[Span | Slot]) -> np.ndarray:
    """Sizes in whole cache lines, starts and stops."""
    rows = [(aligned(s.nbytes), s.start, s.stop) for s in spans]
    return np.array(rows, np.int64).reshape(-1, 3).T


def _orders(
    sizes: np.ndarray, starts: np.ndarray, stops: np.ndarray, used: np.ndarray
) -> Iterator[np.ndarray]:
    """Orders to place spans in: by the fullest moment that each sees, then by size or by length
    of life; by size alone; and by how near each comes to the fullest moment of all."""
    pressure = np.array([used[a + 1 : b + 2].max() for a, b in zip(starts, stops, strict=True)])
    moment = used.argmax() - 1
    yield np.lexsort((starts, -sizes, -pressure))
    yield np.lexsort((starts, -sizes))
    yield np.lexsort((-sizes, starts - stops, -pressure))
    yield np.lexsort((starts, -sizes, np.maximum(starts - moment, moment - stops).clip(0)))


def _packed(sizes: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Each span in turn at the lowest gap among those placed that live when it does."""
    lows, ends = np.zeros((2, len(sizes)), np.int64)
    for i, size in enumerate(sizes):  # those before i are placed
        rivals = ((starts[:i] <= stops[i]) & (stops[:i] >= starts[i])).nonzero()[0]
        lows[i] = _lowest_gap(lows[rivals], ends[rivals], size)
        ends[i] = lows[i] + size
    return lows


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
