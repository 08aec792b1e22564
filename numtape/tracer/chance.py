"""Random numbers drawn behind numtape's back while a function is traced.

What `random` or `numpy.random` gives would be frozen into the tape: every call would see the
numbers of the first. Their global states tell whether somebody drew during a trace; a line that
draws in two more runs, while other threads wait, tells that it was the function.
"""

import random
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import numpy as np

from numtape.ir.location import is_user_file
from numtape.tracer.tensor import TraceError

Result = TypeVar("Result")
PATIENCE = 1.0  # seconds for which other threads are kept from drawing while a line is sought


def without_chance(run: Callable[[], Result]) -> Result:
    """What `run()` gives; `TraceError` that names the line where it draws a random number."""
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    before = _states()
    result = run()
    line = "" if _states() == before else _drawing_line(run)
    if not line:
        return result
    random.setstate(python)
    np.random.set_state(numpy)
    raise TraceError(
        f"at {line}: a traced function cannot draw from random or numpy.random, because the tape "
        "would repeat the numbers of the first call; draw outside and pass them as an argument, "
        "or use numtape.random.default.uniform(shape)"
    )


def _states() -> tuple:
    _, keys, *rest = np.random.get_state()
    return random.getstate(), np.asarray(keys).tobytes(), *rest


def _drawing_line(run: Callable[[], Any]) -> str:
    """The line that draws each time; empty where other threads drew, and not the function."""
    drew = _lines_seen(run)
    again = _lines_seen(run) if drew else []
    return next((line for line in drew if line in again), "")


def _lines_seen(run: Callable[[], Any]) -> list[str]:
    finder = _Finder()
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

    def __init__(self) -> None:
        self.before = _states()
        self.place = ""
        self.found: list[str] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> "_Finder | None":
        if not is_user_file(frame.f_code.co_filename):
            return None
        now = _states()
        if now != self.before:
            self.found.append(self.place)
            self.before = now
        here = frame.f_back if event == "return" and frame.f_back else frame
        self.place = f"{here.f_code.co_filename}:{here.f_lineno}"
        return self
