"""Random numbers drawn behind numtape's back while a function is traced.

What `random` or `numpy.random` gives would be frozen into the tape: every call would see the
numbers of the first. Their global states tell whether a trace has drawn from them.
"""

import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import numpy as np

from numtape.ir.location import is_user_file
from numtape.tracer.tensor import TraceError

Result = TypeVar("Result")


def without_chance(run: Callable[[], Result]) -> Result:
    """What `run()` gives; `TraceError` that names the line where it draws a random number."""
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    before = _states()
    result = run()
    if _states() == before:
        return result
    random.setstate(python)
    np.random.set_state(numpy)
    line = _drawing_line(run)
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
    finder = _Finder()
    previous = sys.gettrace()
    sys.settrace(finder)
    try:
        run()
    except Exception:
        pass  # the line has been found, or not; the first run went through
    finally:
        sys.settrace(previous)
    return finder.found or "an unknown line"


class _Finder:
    """A trace function that looks at the states before each line of user code."""

    def __init__(self) -> None:
        self.before = _states()
        self.place = ""
        self.found = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> "_Finder | None":
        if self.found or not is_user_file(frame.f_code.co_filename):
            return None
        if _states() != self.before:
            self.found = self.place
        here = frame.f_back if event == "return" and frame.f_back else frame
        self.place = f"{here.f_code.co_filename}:{here.f_lineno}"
        return self
