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
_SHORT = {"divide by zero": "divide", "invalid value": "invalid", "overflow": "over"}


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
        self._noted: list[Noted] = []
        self._run = np.errstate(all="call", call=self._note)(action)

    def __call__(self, *arguments: Any) -> list[Noted]:
        """What arose in the action, once for each kernel; pass it to `report`."""
        self._noted.clear()
        self._run(*arguments)
        return list(self._noted)

    def _note(self, kind: str, flag: int) -> None:
        frame = sys._getframe(1)
        self._noted.append(Noted(kind, flag, frame.f_code.co_filename, frame.f_lineno))


def report(noted: Sequence[Noted]) -> None:
    """Do about floating-point errors what `np.errstate` asks for; the first to raise ends it."""
    wanted = np.geterr() if noted else {}
    for error in noted:
        _answer(error, wanted[_SHORT.get(error.kind, "under")])


def _answer(error: Noted, wanted: str) -> None:
    text = f"{error.kind} encountered in an update"
    if wanted == "warn":
        warnings.warn_explicit(
            text, RuntimeWarning, error.filename, error.line, registry=_shown_before
        )
    elif wanted == "raise":
        raise FloatingPointError(f"{text} ({error.filename}, line {error.line})")
    elif wanted == "call":
        np.geterrcall()(error.kind, error.flag)
    elif wanted in ("print", "log"):
        print(f"Warning: {text}", file=sys.stderr if wanted == "print" else np.geterrcall())
