"""The tapes of one function: found by what tells calls apart, bounded in number and in bytes."""

import threading
from collections import OrderedDict

from numtape.caching.signatures import Key
from numtape.runtime.blocks import Blocks
from numtape.tape import CompiledTape

MODES = 4  # tapes kept for the same arguments


class Tapes:
    """At most so many tapes and bytes of them; the one unused for longest goes first.

    The bytes are those that tapes have for themselves (`CompiledTape.nbytes`): the arena, which
    all of them share, is as large as the largest needs, whatever their number. The tape that came
    last stays even if it is beyond the limit alone.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self.blocks = Blocks()
        self._kept: OrderedDict[Key, list[CompiledTape]] = OrderedDict()
        self._lock = threading.RLock()  # held briefly

    def find(self, key: Key) -> CompiledTape | None:
        """A tape for such calls that still holds."""
        with self._lock:
            kept = self._kept.get(key, ())
            if kept:
                self._kept.move_to_end(key)
        for tape in kept:
            if tape.current():
                return tape
        return None

    def add(self, key: Key, tape: CompiledTape) -> int:
        """Keep a tape; how many others had to go for it."""
        with self._lock:
            before = len(self.all())
            # Those for other modes, such as eval(), may serve again.
            made = [*self._kept.pop(key, ()), tape]
            self._kept[key] = made[-min(MODES, self.most) :]
            while self._beyond():
                self._drop()
            left = self.all()
        if len(left) <= before:
            self.blocks.shrink(max(t.memory.arena for t in left))
        return before + 1 - len(left)

    def _beyond(self) -> bool:
        kept = self.all()
        return len(kept) > self.most or (
            len(kept) > 1 and sum(t.nbytes for t in kept) > self.most_bytes
        )

    def _drop(self) -> None:
        key, (_, *others) = next(iter(self._kept.items()))
        if others:
            self._kept[key] = others
        else:
            del self._kept[key]

    def all(self) -> tuple[CompiledTape, ...]:
        """The tapes, the one used last at the end."""
        with self._lock:
            return tuple(tape for found in self._kept.values() for tape in found)

    def of(self, key: Key) -> tuple[CompiledTape, ...]:
        """Those for such calls, whether they still hold or not."""
        with self._lock:
            return tuple(self._kept.get(key, ()))

    @property
    def keys(self) -> tuple[Key, ...]:
        """What there are tapes for, the one used last at the end."""
        with self._lock:
            return tuple(self._kept)
