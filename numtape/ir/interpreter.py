"""Who carries out an operation: a stack of interpreters, chosen by context.

The same line `x @ w + b` computes at once under the eager interpreter, records under a graph
builder, and rewrites under a pass. `Op.__call__` asks `current()`; nobody inspects arguments.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np


class Interpreter(Protocol):
    """What `Op.__call__` needs of whoever carries it out."""

    def lift(self, value: Any, dtype: np.dtype | None = None) -> Any:
        """A number or array as a value of this interpreter, in `dtype` where one is given.

        Without, a Python float becomes float32, also one that is known only at run time.
        """

    def number(self, value: Any) -> Any:
        """A Python number, or one known at run time, as a float64 that stays a number."""

    def run(self, op: Any, inputs: tuple, attrs: Mapping[str, Any]) -> Any:
        """The result of an `Op` on values that `lift` returned."""


class _Stack(threading.local):
    def __init__(self) -> None:
        self.frames: list[Interpreter] = []


_stack = _Stack()
_base: list[Interpreter] = []


def install(interpreter: Interpreter) -> None:
    """Make `interpreter` the one that serves when no other is active (the tracer calls this)."""
    _base[:] = [interpreter]


def current() -> Interpreter:
    return _stack.frames[-1] if _stack.frames else _base[0]


@contextmanager
def active(interpreter: Interpreter) -> Iterator[None]:
    """Let `interpreter` carry out the operations of this block, on this thread."""
    _stack.frames.append(interpreter)
    try:
        yield
    finally:
        _stack.frames.pop()
