"""Where a model keeps its compiled decoding sessions (`sessions`) between calls."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any


class SessionPool:
    """Idle sessions by their shape. One in use is out of the pool, so nobody else can take it.

    `limit` bounds how many are kept, since each holds caches; the one unused for longest goes.
    """

    def __init__(self, limit: int = 8) -> None:
        self._limit = limit
        self._idle: OrderedDict[Hashable, Any] = OrderedDict()

    @contextmanager
    def lend(self, key: Hashable, make: Callable[[], Any]) -> Iterator[Any]:
        """A session for `key`: an idle one, or what `make` returns."""
        session = self._idle.pop(key, None) or make()
        yield session  # after an error it does not come back
        self._idle[key] = session
        while len(self._idle) > self._limit:
            self._idle.popitem(last=False)

    def __len__(self) -> int:
        return len(self._idle)

    def __reduce__(self) -> tuple:
        # A copy of a model compiles its own: tapes hold the original's tensors.
        return SessionPool, (self._limit,)
