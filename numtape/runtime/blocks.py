"""Memory that the tapes of one function share, however many shapes they were made for.

Only tapes that run at the same time need blocks of their own. A tape takes the block that was
given back last, or else the largest free one; where none is large enough a new one is made, and
the smaller ones that lie free are given up, so that in the end one block of the largest size
serves all shapes.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from numtape.ir.memory import reserve

Bind = Callable[..., tuple]


class Block:
    """A piece of memory, and the tapes whose views have been made over it."""

    def __init__(self, nbytes: int) -> None:
        self.memory = reserve(nbytes)
        self.bound: WeakKeyDictionary[object, Bound] = WeakKeyDictionary()


class Bound:
    """A tape on one block.

    arguments  the places for the arguments, then for the gradients of a reverse tape.
    outputs    where the results are.
    first      the tape up to where it writes storage; `update` is the rest, or None.
    second     the reverse tape, or None.
    """

    def __init__(
        self, block: Block, nbytes: int, bind: Bind, fixed: int, captured: Sequence[np.ndarray]
    ) -> None:
        """`fixed` bytes are the tape's own: what is computed once must not be shared."""
        self.block = block
        self.arena = block.memory[:nbytes]
        self._outside = reserve(fixed), *captured
        made = bind(self.arena, *self._outside)
        self.arguments, self.outputs, self.first, self.update, self.second = made
        self._seconds: WeakKeyDictionary[Bind, Callable[[], None]] = WeakKeyDictionary()

    def second_of(self, bind: Bind) -> Callable[[], None]:
        """The reverse tape of another source for the same plan."""
        if bind not in self._seconds:
            *_, self._seconds[bind] = bind(self.arena, *self._outside)
        return self._seconds[bind]


class Blocks:
    """The blocks of one function, free or in use."""

    def __init__(self) -> None:
        self._free: list[Block] = []
        # A lease may end in the garbage collector, on a thread that holds the lock in `take`:
        # what comes back waits here, where it is put without a lock.
        self._returned: deque[Block] = deque()
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> Block:
        """A block of at least so many bytes that nobody uses."""
        try:
            block = self._returned.pop()  # as a rule the only one, just used by the same tape
        except IndexError:
            return self._largest(nbytes)
        if _size(block) >= nbytes:
            return block
        self._returned.append(block)
        return self._largest(nbytes)

    def _largest(self, nbytes: int) -> Block:
        with self._lock:
            self._collect()
            largest = max(self._free, key=_size, default=None)
            if largest is not None and _size(largest) >= nbytes:
                self._free.remove(largest)
                return largest
            for block in self._free:
                block.bound.clear()  # views hold memory; do not wait for the collector
            self._free.clear()
        return Block(nbytes)

    def _collect(self) -> None:
        while self._returned:
            self._free.append(self._returned.popleft())

    def shrink(self, nbytes: int) -> None:
        """Let go of free blocks that are larger than any tape needs now."""
        with self._lock:
            self._collect()
            for block in [b for b in self._free if _size(b) > nbytes]:
                block.bound.clear()
                self._free.remove(block)

    def give(self, block: Block) -> None:
        """Take a block back for the next call."""
        self._returned.append(block)

    @property
    def free(self) -> int:
        """Blocks that lie free."""
        return len(self._free) + len(self._returned)


def _size(block: Block) -> int:
    return block.memory.nbytes
