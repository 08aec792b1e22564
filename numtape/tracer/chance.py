"""Random numbers drawn behind numtape's back while a function is traced.

What `random` or `numpy.random` gives would be frozen into the tape: every call would see the
numbers of the first. The states of their generators tell whether somebody drew during a trace; a
line that draws in two more runs, while other threads wait, tells that it was the function.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

import numpy as np

from numtape.ir.location import is_user_file
from numtape.tracer.tensor import TraceError

Result = TypeVar("Result")
PATIENCE = 1.0  # seconds for which other threads are kept from drawing while a line is sought
GENERATORS = (
    random.Random,
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
)


def without_chance(run: Callable[[], Result], generators: Sequence[Any] = ()) -> Result:
    """What `run()` gives; `TraceError` that names the line where it draws a random number.

    `generators` are those that it can reach, beside the global ones.
    """
    sources = (random, np.random, *generators)
    saved = [_state(source) for source in sources]
    before = _states(sources)
    result = run()
    line = "" if _states(sources) == before else _drawing_line(run, sources)
    if not line:
        return result
    for source, state in zip(sources, saved, strict=True):
        _restore(source, state)
    raise TraceError(
        f"at {line}: a traced function cannot draw from random, numpy.random or a generator of "
        "theirs, because the tape would repeat the numbers of the first call; draw outside and "
        "pass them as an argument, or use numtape.random.default.uniform(shape)"
    )


def _state(source: Any) -> Any:
    if hasattr(source, "getstate"):
        return source.getstate()
    if hasattr(source, "get_state"):
        return source.get_state(legacy=False)
    return getattr(source, "bit_generator", source).state


def _restore(source: Any, state: Any) -> None:
    if hasattr(source, "setstate"):
        source.setstate(state)
    elif hasattr(source, "set_state"):
        source.set_state(state)
    else:
        getattr(source, "bit_generator", source).state = state


def _states(sources: Sequence[Any]) -> list[Any]:
    return [_comparable(_state(source)) for source in sources]


def _comparable(state: Any) -> Any:
    """Arrays as bytes: `==` gives a truth value."""
    if isinstance(state, dict):
        return {key: _comparable(value) for key, value in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state


def _drawing_line(run: Callable[[], Any], sources: Sequence[Any]) -> str:
    """The line that draws each time; empty where other threads drew, and not the function."""
    drew = _lines_seen(run, sources)
    again = _lines_seen(run, sources) if drew else []
    return next((line for line in drew if line in again), "")


def _lines_seen(run: Callable[[], Any], sources: Sequence[Any]) -> list[str]:
    finder = _Finder(sources)
    previous, interval = sys.gettrace(), sys.getswitchinterval()
    sys.setswitchinterval(PATIENCE)
    time.sleep(2 * interval)  # threads that wait already do so by the old interval
    sys.settrace(finder)
    try:
        run()
    except Exception:
        pass  # the lines have been found, or not; the first run went through
    finally:
        sys.settrace(previous)
        sys.setswitchinterval(interval)
    return finder.found


class _Finder:
    """A trace function that looks at the states before each line of user code."""

    def __init__(self, sources: Sequence[Any]) -> None:
        self.sources = sources
        self.before = _states(sources)
        self.place = ""
        self.found: list[str] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> "_Finder | None":
        if not is_user_file(frame.f_code.co_filename):
            return None
        now = _states(self.sources)
        if now != self.before:
            self.found.append(self.place)
            self.before = now
        here = frame.f_back if event == "return" and frame.f_back else frame
        self.place = f"{here.f_code.co_filename}:{here.f_lineno}"
        return self
