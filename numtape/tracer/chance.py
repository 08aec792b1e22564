"""Random numbers drawn behind numtape's back while a function is traced.

What `random` or `numpy.random` gives would be frozen into the tape: every call would see the
numbers of the first. The states of their generators tell whether somebody drew during a trace.
Whether it was the function, and where, is then seen in another run: NumPy's generators are locked
for other threads meanwhile, and a draw from one of Python's is a call that this thread makes.
"""

import dis
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, TypeVar

import numpy as np

from numtape.ir.location import is_user_file, user_line
from numtape.tracer.tensor import TraceError

Result = TypeVar("Result")
GENERATORS = (
    random.Random,
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
)
# Whose methods the functions of the modules `random` and `numpy.random` are.
_GLOBAL: Any = (random.random.__self__, np.random.rand.__self__)  # type: ignore[attr-defined]
_DRAWS = ("random", "getrandbits")  # all others of Python's go through these
_ENTERS = dis.opmap.get("BEFORE_WITH")  # from Python 3.14 on, a call like others
_WAITS = ("_thread", "_queue")  # the modules of what one thread waits for another with


def without_chance(run: Callable[[], Result], generators: Sequence[Any] = ()) -> Result:
    """What `run()` gives; `TraceError` that names the line where it draws a random number.

    `generators` are those that it can reach, beside the global ones.
    """
    sources = [source for source in (*_GLOBAL, *generators) if _has_state(source)]
    saved = list(map(_state, sources))
    result = run()
    line = "" if _states(sources) == _comparable(saved) else _drawing_line(run, sources)
    if not line:
        return result
    for source, state in zip(sources, saved, strict=True):
        _restore(source, state)
    raise TraceError(
        f"at {line}: a traced function cannot draw from random, numpy.random or a generator of "
        "theirs, because the tape would repeat the numbers of the first call; draw outside and "
        "pass them as an argument, or use numtape.random.default.uniform(shape)"
    )


def _has_state(source: Any) -> bool:
    """Not so `random.SystemRandom`, which asks the operating system."""
    try:
        _state(source)
    except NotImplementedError:
        return False
    return True


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
    if isinstance(state, list):
        return list(map(_comparable, state))
    return state.tobytes() if isinstance(state, np.ndarray) else state


def _drawing_line(run: Callable[[], Any], sources: Sequence[Any]) -> str:
    """The first line that draws; empty where other threads drew, and not the function."""
    if not _Onlooker(sources).lines_of(run):  # many times faster than line by line
        return ""
    lines = _Onlooker(sources, line_by_line=True).lines_of(run)
    return lines[0] if lines else ""


class _Onlooker:
    """Notes which lines of user code draw: by the states before and after, and by calls of C."""

    def __init__(self, sources: Sequence[Any], line_by_line: bool = False) -> None:
        self.pythons = [source for source in sources if isinstance(source, random.Random)]
        numpys = [source for source in sources if not isinstance(source, random.Random)]
        alone = len(sys._current_frames()) == 1
        self.compared = sources if alone else numpys
        self.locks = _locks(numpys)
        self.line_by_line = line_by_line
        self.lines: list[str] = []
        self.place = user_line()
        self.before: list[Any] = []
        self.held: list[Any] = []
        self.away = True

    def lines_of(self, run: Callable[[], Any]) -> list[str]:
        with self._looking_on(), suppress(Exception):  # the first run went through
            run()
        return self.lines

    @contextmanager
    def _looking_on(self) -> Iterator[None]:
        tracer, profiler = sys.gettrace(), sys.getprofile()
        try:
            self._hold()
            sys.setprofile(self._on_call)
            sys.settrace(self._on_line)
            yield
        finally:
            sys.settrace(tracer)
            _resume(profiler)
            self._let_go()

    def _hold(self) -> None:
        if self.away:
            for lock in self.locks:
                lock.acquire()
                self.held.append(lock)  # one by one: an interrupt may come while it waits
            self.before = _states(self.compared)
            self.away = False

    def _let_go(self) -> None:
        """Let other threads draw: what the function waits for may be one of them."""
        if not self.away:
            self._look()
            self.away = True
        while self.held:
            self.held.pop().release()

    def _look(self) -> None:
        now = _states(self.compared)
        if now != self.before:
            self.lines.append(self.place)
            self.before = now

    def _on_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        self._hold()
        if not is_user_file(frame.f_code.co_filename):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if _opcodes(frame.f_code)[frame.f_lasti] == _ENTERS:  # perhaps a lock
                self._let_go()
            return self._on_line
        if self.line_by_line:
            self._look()
        here = frame.f_back if event == "return" and frame.f_back else frame
        self.place = f"{here.f_code.co_filename}:{here.f_lineno}"
        return self._on_line

    def _on_call(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in ("c_call", "c_return", "c_exception"):
            return
        owner = arg.__self__
        if type(owner).__module__ in _WAITS:
            (self._let_go if event == "c_call" else self._hold)()
        elif event == "c_call" and arg.__name__ in _DRAWS and _is_in(owner, self.pythons):
            self.lines.append(self.place)


@lru_cache(maxsize=1024)
def _opcodes(code: CodeType) -> bytes:
    return code.co_code


def _resume(profiler: Any) -> None:
    """Those in C, such as `cProfile`, cannot be given back as functions."""
    if profiler is None or callable(profiler):
        sys.setprofile(profiler)
    else:
        profiler.enable()


def _is_in(thing: Any, things: Sequence[Any]) -> bool:
    return any(thing is other for other in things)


def _locks(numpys: Sequence[Any]) -> list[Any]:
    """What NumPy holds while it draws, in the one order in which all threads take several.

    Before NumPy 2.4 a thread cannot hold such a lock and draw: what others draw counts as well.
    """
    inner = [getattr(s, "_bit_generator", getattr(s, "bit_generator", s)) for s in numpys]
    found = {id(bits.lock): bits.lock for bits in inner}
    reentrant = type(threading.RLock())
    return [found[key] for key in sorted(found) if isinstance(found[key], reentrant)]
