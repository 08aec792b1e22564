"""The tape: compiled source, bound to an arena, replayed.

A tape owns a pool of arenas. A call takes one and returns it when nobody can need it any more, so
calls in flight never overwrite each other.
"""

import itertools
import linecache
import threading
from collections.abc import Callable, Collection, Sequence
from types import CodeType
from typing import Any

import numpy as np

from numtape.ir.graph import Graph
from numtape.runtime.arena import reserve
from numtape.runtime.emit import emit
from numtape.runtime.memory import Memory
from numtape.runtime.plan import Plan, plan

_serial = itertools.count()


class Bound:
    """A tape on one arena.

    arguments  the places for the arguments, then for the gradients of a reverse tape.
    outputs    where the results are; first, second  the tapes (the second may be None).
    """

    def __init__(self, bind: Callable, nbytes: int, captured: Sequence[np.ndarray]) -> None:
        self.arena = reserve(nbytes)
        self.arguments, self.outputs, self.first, self.second = bind(self.arena, *captured)


class Tape:
    """A graph ready to run on the arrays that it reads and updates outside.

    graph   the optimised graph.        source  the program, as Python text.
    plan    order and memory.           memory  its bytes, exact before the first run.
    """

    def __init__(
        self,
        graph: Graph,
        captured: Sequence[np.ndarray | None],
        arguments: int,
        parameters: Collection[int] = (),
    ) -> None:
        """`captured` are the arrays of the inputs that follow so many `arguments`, None for one
        that is given at each call; those at the positions `parameters` have gradients."""
        inputs = graph.inputs[arguments : arguments + len(captured)]
        self.graph = graph
        bound = {v: a for v, a in zip(inputs, captured, strict=True) if a is not None}
        self.captured = tuple(bound.values())
        self.plan: Plan = plan(graph, bound, [inputs[i] for i in parameters])
        self.source, needs = emit(self.plan)
        self.filename = f"<numtape {graph.name} {next(_serial)}>"
        namespace: dict[str, Any] = {"np": np, **needs}
        _register(self.filename, self.source)
        exec(_compiled(self.source, self.filename), namespace)
        self._bind = namespace["bind"]
        self._free: list[Bound] = []
        self._lock = threading.Lock()

    @property
    def memory(self) -> Memory:
        return self.plan.memory

    def acquire(self) -> Bound:
        """An arena that nobody uses."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return Bound(self._bind, self.plan.nbytes, self.captured)

    def release(self, bound: Bound) -> None:
        """Give an arena back for the next call."""
        with self._lock:
            self._free.append(bound)

    @property
    def arenas(self) -> int:
        """Arenas now lying free."""
        return len(self._free)


def explain(error: BaseException, filename: str) -> None:
    """Add to an error the line of the tape in which it arose, with its node and user line."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == filename:
            line = linecache.getline(filename, frame.tb_lineno).strip()
            error.add_note(f"in the compiled tape, line {frame.tb_lineno}: {line}")
            return
        frame = frame.tb_next


def _compiled(source: str, filename: str) -> CodeType:
    return compile(source, filename, "exec")


def _register(filename: str, source: str) -> None:
    """Show the source to tracebacks, pdb and profilers."""
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
