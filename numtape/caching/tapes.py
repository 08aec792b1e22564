"""The tapes of one function: found by what tells calls apart, bounded in number and in bytes."""

import threading
from collections import OrderedDict

from numtape.caching.signatures import Key
from numtape.runtime.blocks import Blocks
from numtape.tape import CompiledTape


class Tapes:
    """At most so many tapes and bytes of them; the one found or added longest ago goes first.

    For the same arguments there is a tape for each setting, such as train and eval mode. The
    bytes are those that tapes have for themselves (`CompiledTape.nbytes`), and arrays outside
    that the latest tape does not read: they may be kept alive by the others alone. The arena,
    which all tapes share, is as large as the largest needs, whatever their number. The tape that
    came last stays even if it is beyond the limit alone.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self.blocks = Blocks()
        self._used: OrderedDict[CompiledTape, Key] = OrderedDict()  # the latest at the end
        self._kept: dict[Key, tuple[CompiledTape, ...]] = {}  # likewise; read without the lock
        self._lock = threading.RLock()  # held briefly

    def find(self, key: Key) -> CompiledTape | None:
        """A tape for such calls that still holds."""
        kept = self.of(key)
        for tape in reversed(kept):
            if tape.current():
                self._use(key, tape, kept)
                return tape
        return None

    def _use(self, key: Key, tape: CompiledTape, kept: tuple[CompiledTape, ...]) -> None:
        with self._lock:
            if tape not in self._used:  # dropped in the meantime
                return
            self._used.move_to_end(tape)
            if tape is not kept[-1]:
                self._kept[key] = (*self._without(key, tape), tape)

    def _without(self, key: Key, tape: CompiledTape) -> tuple[CompiledTape, ...]:
        return tuple(t for t in self._kept[key] if t is not tape)

    def add(self, key: Key, tape: CompiledTape) -> int:
        """Keep a tape; how many others had to go for it."""
        with self._lock:
            before = len(self._used)
            self._used[tape] = key
            self._kept[key] = (*self.of(key), tape)
            while self._beyond():
                self._drop()
            left = self.all()
        if len(left) <= before:
            self.blocks.shrink(max(t.memory.arena for t in left))
        return before + 1 - len(left)

    def _beyond(self) -> bool:
        count = len(self._used)
        return count > self.most or (count > 1 and self._nbytes() > self.most_bytes)

    def _nbytes(self) -> int:
        """Of the tapes, and of the arrays that are kept for them and not for the latest."""
        *others, latest = self._used
        held = {key: size for t in others for key, size in t.held().items()}
        for key in latest.held():
            held.pop(key, None)
        return sum(t.nbytes for t in self._used) + sum(held.values())

    def _drop(self) -> None:
        tape, key = self._used.popitem(last=False)
        self._kept[key] = self._without(key, tape)
        if not self._kept[key]:
            del self._kept[key]

    def all(self) -> tuple[CompiledTape, ...]:
        """The tapes, the one used last at the end."""
        with self._lock:
            return tuple(self._used)

    def of(self, key: Key) -> tuple[CompiledTape, ...]:
        """Those for such calls, the one used last at the end, whether they still hold or not."""
        return self._kept.get(key, ())

    @property
    def keys(self) -> tuple[Key, ...]:
        """What there are tapes for, the one used last first."""
        with self._lock:
            return tuple(dict.fromkeys(reversed(self._used.values())))
