"""Turns: calls that update the same storage run one after the other, from whatever thread.

Each storage belongs to one lock, its `turn`; a tape holds the locks of all that
it updates. As a rule that is one: what a function updates first comes under one lock together.
"""

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

_giving = threading.Lock()
_serial = itertools.count()


class Turn:
    """A lock with a place in the one order in which all threads take several."""

    def __init__(self) -> None:
        self.serial = next(_serial)
        self.lock = threading.RLock()


def turns(storages: Iterable[Any]) -> tuple[Turn, ...]:
    """The locks of the storage that is updated, in order."""
    with _giving:
        new, found = Turn(), set()
        for storage in storages:
            if storage.turn is None:
                storage.turn = new
            found.add(storage.turn)
    return tuple(sorted(found, key=attrgetter("serial")))


def in_turn(held: Sequence[Turn], action: Callable[[], Any]) -> Any:
    """The action's result, all of the locks held meanwhile."""
    if not held:
        return action()
    with held[0].lock:
        return in_turn(held[1:], action)
