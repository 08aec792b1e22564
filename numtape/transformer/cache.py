"""Keys and values of earlier positions, in tensors of fixed length that a tape updates in place.

Because the length never changes, one decoding step is traced once and replayed for every
position. `Transformer.step` and `GPT.step` read and fill these; `decoding` owns them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from numtape.functions import arange, where
from numtape.ir.types import ShapeError
from numtape.tracer.tensor import Tensor


class KeysValues(NamedTuple):
    """Projected keys and values, each (B, H, T, C/H), ready to be attended to."""

    keys: Any
    values: Any


@dataclass(frozen=True, eq=False)
class KeyValueCache:
    """Room for the keys and values of `length` positions, each (B, H, length, C/H)."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, batch: int, heads: int, length: int, width: int, dtype: Any) -> "KeyValueCache":
        """Zeros; positions that were never written are never attended to."""
        shape = (batch, heads, length, width)
        return cls(Tensor(np.zeros(shape, dtype)), Tensor(np.zeros(shape, dtype)))

    @property
    def length(self) -> int:
        return self.keys.shape[-2]

    def at(self, position: Any, order: Any = None) -> "CacheSlot":
        """The cache with the place where the next keys and values go.

        position: integers (1,), a run-time value. `order`: integers (B,), the row of the batch
        that each row continues (beam search); None keeps the rows.
        """
        return CacheSlot(self, position, order)


@dataclass(frozen=True, eq=False)
class CacheSlot:
    """One place of a cache."""

    cache: KeyValueCache
    position: Any
    order: Any

    def extend(self, keys: Any, values: Any) -> KeysValues:
        """All keys and values once these, (B, H, T, C/H), are written from `position` on.

        T is 1, or the cache's whole length (then position is 0).
        """
        return KeysValues(
            self._write(self.cache.keys, keys), self._write(self.cache.values, values)
        )

    def _write(self, held: Tensor, new: Any) -> Any:
        length = self.cache.length
        if new.shape[-2] not in (1, length):
            raise ShapeError(
                f"a cache of {length} positions takes 1 or all of them at once, "
                f"not {new.shape[-2]}"
            )
        if new.shape[-2] == 1:
            rows = held if self.order is None else held.take(self.order)
            here = (arange(length) == self.position).reshape(length, 1)
            new = where(here, new, rows)  # (B, H, L, C/H)
        held.assign(new)
        return new


def visible(position: Any, steps: int, length: int) -> Any:
    """Boolean (steps, length): what the positions from `position` on may attend to."""
    rows = (position + arange(steps)).reshape(steps, 1)
    return arange(length) <= rows


@dataclass(frozen=True, eq=False)
class Memory:
    """What every decoding step reads of the source: each layer's keys and values, and the mask.

    keys and values (B, H, S, C/H), mask (B, 1, 1, S).
    """

    layers: tuple[KeysValues, ...]
    mask: Any
