"""What must run to its end once begun: signals and floating-point errors wait until it has.

Python raises KeyboardInterrupt between any two instructions, and NumPy a warning made an error, or
a FloatingPointError, behind any kernel. In the part of a tape that writes storage either would
leave some of it new and some of it old.
"""

import _signal  # type: ignore[import-not-found]  # `signal` looks up an enum at each call
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

# Those whose handlers raise in practice; what Python cannot catch ends the process.
_NAMES = ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2")
SIGNALS = tuple(int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name))
_shown_before: dict = {}  # by which `warnings` tells what it has shown
_SHORT = {
    "divide by zero": "divide",
    "invalid value": "invalid",
    "overflow": "over",
    "underflow": "under",
}


def uninterrupted(action: Callable[[], Any], signals: Sequence[int] = SIGNALS) -> Any:
    """The action's result; handlers of signals that arrive meanwhile run when it has ended.

    Handlers run on the main thread only, so that there is nothing to do on others.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return action()
    for i, number in enumerate(signals):
        handler = _signal.getsignal(number)
        if callable(handler):
            # One at a time: a handler of another may raise until it is held as well.
            rest = partial(uninterrupted, action, signals[i + 1 :])
            return _holding(number, handler, rest)
    return action()


def _holding(number: int, handler: Callable, action: Callable[[], Any]) -> Any:
    arrived: list[tuple] = []
    try:
        _signal.signal(number, lambda *which: arrived.append(which))
        return action()
    finally:
        _signal.signal(number, handler)
        if arrived:
            handler(*arrived[-1])


class Noted(NamedTuple):
    """A floating-point error of a kernel, and the line of the tape or kernel that it arose in."""

    kind: str
    flag: int
    filename: str
    line: int


class Quiet:
    """Calls an action with floating-point errors noted, to be reported when all is done."""

    def __init__(self, action: Callable[..., None]) -> None:
        self._noted: dict[str, Noted] = {}
        self._run = np.errstate(all="call", call=self._note)(action)

    def __call__(self, *arguments: Any) -> list[Noted]:
        """The first of each kind that arose in the action; pass them to `report`."""
        self._noted.clear()
        self._run(*arguments)
        return list(self._noted.values())

    def _note(self, kind: str, flag: int) -> None:
        if kind not in self._noted:
            frame = sys._getframe(1)
            self._noted[kind] = Noted(kind, flag, frame.f_code.co_filename, frame.f_lineno)


def report(noted: Sequence[Noted]) -> None:
    """Do about floating-point errors what `np.errstate` asks for; the first to raise ends it."""
    wanted: dict[str, Any] = {**np.geterr()} if noted else {}
    for error in noted:
        _answer(error, wanted[_SHORT[error.kind]], np.geterrcall())


def _answer(error: Noted, wanted: str, given: Any) -> None:
    text = f"{error.kind} encountered in an update"
    place = error.filename, error.line
    if wanted == "warn":
        warnings.warn_explicit(text, RuntimeWarning, *place, registry=_shown_before)
    elif wanted == "raise":
        raise FloatingPointError(f"{text} ({error.filename}, line {error.line})")
    elif wanted == "call":
        given(error.kind, error.flag)
    elif wanted in ("print", "log"):
        print(f"Warning: {text}", file=given if wanted == "log" else sys.stderr)
