"""Which padded shapes a set of pairs gets, and the pairs padded to them: the store that `data`
takes its batches from.

Every shape is traced and planned once, so shapes must be few; every padded position is work for
nothing, so they must fit. The shapes are nested: a pair goes into the first that holds it.
"""

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from numtape.training.errors import DataError
from numtape.training.tokens import PAD, Ids

EDGES = 32

Lengths = NDArray[np.int64]
Rows = NDArray[np.int64]


class PairBatch(NamedTuple):
    """source int32[B, S]: ids, end, padding; target int32[B, T]: begin, ids, end, padding."""

    source: Ids
    target: Ids


@dataclass(frozen=True)
class Bucket:
    """The pairs of one padded shape. source int32[pairs + 1, S], target int32[pairs + 1, T]:
    the last row is all padding, and fills up the last batch of an epoch."""

    source: Ids
    target: Ids
    rows: int

    @property
    def pairs(self) -> int:
        return len(self.source) - 1

    @property
    def batches(self) -> int:
        return ceil(self.pairs / self.rows)

    @property
    def tokens(self) -> int:
        """Token positions in an epoch that are not padding."""
        return int(np.count_nonzero(self.source) + np.count_nonzero(self.target))

    @property
    def positions(self) -> int:
        """Token positions in an epoch, padding included."""
        return int(self.batches * self.rows * (self.source.shape[1] + self.target.shape[1]))

    @property
    def waste(self) -> float:
        """The fraction of the positions that is padding."""
        return 1 - self.tokens / self.positions

    def chunks(self, order: Rows) -> list[Rows]:
        """`order`, a permutation of the pairs, cut into full batches of row numbers."""
        filler = np.full(self.batches * self.rows - self.pairs, self.pairs)
        return np.split(np.concatenate([order, filler]), self.batches)

    def take(self, rows: Rows) -> PairBatch:
        return PairBatch(self.source[rows], self.target[rows])

    def __str__(self) -> str:
        return (
            f"source {self.source.shape[1]:4d}  target {self.target.shape[1]:4d}  "
            f"rows {self.rows:4d}  pairs {self.pairs:7d}  padding {self.waste:6.1%}"
        )


def fill_buckets(
    source: list[Ids], target: list[Ids], most: int, tokens_per_batch: int, multiple: int
) -> tuple[Bucket, ...]:
    """At most `most` buckets that hold all the pairs, smallest shape first.

    Raises DataError where `tokens_per_batch` cannot hold `multiple` of the longest pair.
    """
    source_lengths, target_lengths = _lengths(source), _lengths(target)
    shapes = choose_shapes(source_lengths, target_lengths, most)
    places = place(source_lengths, target_lengths, shapes)
    buckets = []
    for index, (source_length, target_length) in enumerate(shapes):
        members = np.flatnonzero(places == index)
        rows = _rows(len(members), source_length, target_length, tokens_per_batch, multiple)
        one, other = (
            _padded(source, members, source_length),
            _padded(target, members, target_length),
        )
        buckets.append(Bucket(one, other, rows))
    return tuple(buckets)


def choose_shapes(source: Lengths, target: Lengths, most: int) -> list[tuple[int, int]]:
    """At most `most` nested (source length, target length) shapes with the least padding.

    `source`, `target`: int64[n], n >= 1, the lengths of each pair. The shapes are the best there
    are with edges at the quantiles of the lengths, by f_k(c) = min over b <= c of
    f_{k-1}(b) + (pairs within c and not within b) * size(c).
    """
    corners = _corners(source, target)
    within = _pairs_within(corners, source, target)
    nested = (corners[:, None] <= corners[None]).all(-1)
    cost = np.where(nested, (within[None] - within[:, None]) * corners.sum(1)[None], np.inf)
    best = within * corners.sum(1).astype(np.float64)
    previous = []
    for _ in range(min(most, len(corners)) - 1):
        candidates = best[:, None] + cost
        previous.append(candidates.argmin(0))
        best = candidates.min(0)
    chain = [len(corners) - 1]
    for step in reversed(previous):
        chain.append(int(step[chain[-1]]))
    chosen = np.unique(chain)
    filled = np.diff(within[chosen], prepend=0) > 0
    return [(int(s), int(t)) for s, t in corners[chosen[filled]]]


def place(source: Lengths, target: Lengths, shapes: list[tuple[int, int]]) -> Lengths:
    """int64[n]: the index of the first shape that holds each pair."""
    edges = np.array(shapes)
    return np.maximum(np.searchsorted(edges[:, 0], source), np.searchsorted(edges[:, 1], target))


def _corners(source: Lengths, target: Lengths) -> NDArray[np.int64]:
    grid = np.meshgrid(_edges(source), _edges(target), indexing="ij")
    return np.stack([axis.ravel() for axis in grid], axis=1)


def _edges(lengths: Lengths) -> Lengths:
    distinct = np.unique(lengths)
    if len(distinct) <= EDGES:
        return distinct
    # Quantiles ever denser towards the longest: few pairs are long, but they cost the most.
    # On 29,000 caption pairs this finds the same shapes as a search over all lengths.
    fractions = 1 - np.linspace(1, 0, EDGES + 1)[1:] ** 2
    return np.unique(np.quantile(lengths, fractions, method="higher"))


def _pairs_within(corners: NDArray[np.int64], source: Lengths, target: Lengths) -> Lengths:
    counts = np.zeros((source.max() + 1, target.max() + 1), np.int64)
    np.add.at(counts, (source, target), 1)
    cumulative = counts.cumsum(0).cumsum(1)
    return np.asarray(cumulative[corners[:, 0], corners[:, 1]])


def _rows(pairs: int, source: int, target: int, tokens_per_batch: int, multiple: int) -> int:
    """Rows of a batch: as many as the budget holds, then fewer, so that no batch is half empty."""
    most = tokens_per_batch // (source + target) // multiple * multiple
    if not most:
        raise DataError(
            f"a batch of {tokens_per_batch} tokens cannot hold {multiple} pair(s) of {source} + "
            f"{target}; allow batches of at least {multiple * (source + target)} tokens, or a "
            "lower maximum length"
        )
    batches = ceil(pairs / most)
    return ceil(pairs / batches / multiple) * multiple


def _padded(sequences: list[Ids], members: Rows, length: int) -> Ids:
    padded = np.full((len(members) + 1, length), PAD, np.int32)
    for row, member in zip(padded, members, strict=False):
        row[: len(sequences[member])] = sequences[member]
    return padded


def _lengths(sequences: list[Ids]) -> Lengths:
    return np.array([len(sequence) for sequence in sequences], np.int64)
