"""The tape: compiled source, bound to a block of memory, replayed.

A call takes a block and returns it when nobody can need it any more, so calls in flight never
overwrite each other.
"""

import itertools
import linecache
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from numtape.runtime.blocks import Bind, Blocks, Bound
from numtape.runtime.emit import emit
from numtape.runtime.memory import Memory
from numtape.runtime.plan import Plan
from numtape.runtime.sources import write_for

_serial = itertools.count()
PARTIAL = 8  # reverse tapes kept for gradients that come from some of the results


class Tape:
    """A graph ready to run on the arrays that it reads and updates outside.

    graph   the optimised graph.        source  the program, as Python text.
    bind    what it defines: makes the tapes over an arena, constants and captured arrays.
    plan    order and memory.           memory  its bytes, exact before the first run.
    """

    def __init__(
        self, plan: Plan, captured: Sequence[np.ndarray], blocks: Blocks | None = None
    ) -> None:
        """`captured` are the arrays of the plan's inputs outside, in order. Tapes with the same
        `blocks` share memory."""
        self.graph, self.plan = plan.graph, plan
        self.captured = tuple(captured)
        self.filename = f"<numtape {plan.graph.name} {next(_serial)}>"
        self.source, self.bind = self.written()
        self._forgotten(self.filename)
        self._nbytes = plan.memory.arena
        self._partial: dict[int, Bind] = {}
        self._blocks = blocks if blocks is not None else Blocks()

    def _forgotten(self, filename: str) -> None:
        """The source goes with the tape."""
        weakref.finalize(self, linecache.cache.pop, filename, None)

    def written(self) -> tuple[str, Bind]:
        """The source, and the `bind` that it defines."""
        source, needs = emit(self.plan)
        return source, load(source, needs, self.filename)

    @property
    def memory(self) -> Memory:
        return self.plan.memory

    def acquire(self) -> Bound:
        """The tape on a block that nobody uses."""
        block = self._blocks.take(self._nbytes)
        bound = block.bound.get(self)
        if bound is None:
            fixed = self.memory.constants
            bound = Bound(block, self._nbytes, self.bind, fixed, self.captured)
            block.bound[self] = bound
        return bound

    def release(self, bound: Bound) -> None:
        """Give the block back for the next call."""
        self._blocks.give(bound.block)

    def reverse(self, bound: Bound, reached: int) -> Callable[[], None]:
        """The reverse tape where gradients come to these results (bits, in their order)."""
        late = len(self.graph.inputs) - (self.graph.early or (0, 0))[0]
        if reached == (1 << late) - 1:
            assert bound.second is not None
            return bound.second
        if reached not in self._partial:
            if len(self._partial) >= PARTIAL:
                self._partial.pop(next(iter(self._partial)), None)
            filename = f"{self.filename[:-1]} for {reached:b}>"
            self._partial[reached] = load(*write_for(self.plan, reached), filename)
            self._forgotten(filename)
        return bound.second_of(self._partial[reached])

    @property
    def arenas(self) -> int:
        """Blocks now lying free."""
        return self._blocks.free


def explain(error: BaseException, filename: str) -> None:
    """Add to an error the line of the tape in which it arose, with its node and user line."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == filename:
            line = linecache.getline(filename, frame.tb_lineno).strip()
            error.add_note(f"in the compiled tape, line {frame.tb_lineno}: {line}")
            return
        frame = frame.tb_next


def load(source: str, needs: Mapping[str, Any], filename: str) -> Bind:
    """The `bind` of a source, which is shown to tracebacks, pdb and profilers."""
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"np": np, **needs}
    # Not as `python -O` would: the assertion in `bind` is what makes compiling it quick.
    exec(compile(source, filename, "exec", optimize=0), namespace)
    return namespace["bind"]
