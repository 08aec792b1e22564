"""`compile(f, sanitize=True)`: the arena with a guard on every byte.

The tape is written out with a check before and behind each kernel. A shadow of the arena says of
every byte whose it is: a value's, a guard's, or nobody's. A kernel must find each input as its own
writer left it, tile by tile in regions; memory that nobody owns is filled with a pattern (NaN in
floats), which a kernel must not leave in its result. The labels follow writes, not contents, so a
NaN that was computed is never taken for one that was left there.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from numtape.ir.graph import Value, line, numbering
from numtape.ir.location import Located
from numtape.ir.memory import address
from numtape.runtime.blocks import Bind
from numtape.runtime.emit import Line, emit
from numtape.runtime.plan import Plan
from numtape.runtime.tape import Tape, load
from numtape.runtime.tiles import Tiles

GUARD = 64  # bytes behind every slot
NOBODY, GUARDED = 0, -1  # labels beside those of values, which count from 1
GUARD_BYTE, FREE_BYTE = 0xA5, 0xFF
# As unsigned integers of an entry's size. NaNs with a load that NumPy never makes, and integers
# that no program comes by in four or more bytes; smaller ones prove nothing, but truth values.
PATTERNS = {
    np.dtype(np.float16): 0x7E5A,
    np.dtype(np.float32): 0x7FC0DEAD,
    np.dtype(np.float64): 0x7FF8DEADDEADDEAD,
}


class SanitizerError(Located, RuntimeError):
    """A kernel that reads memory nobody wrote for it, or writes where it must not."""


class SanitizedTape(Tape):
    """A tape that checks its arena at every call; its plan has `GUARD` bytes behind each slot."""

    def written(self) -> tuple[str, Bind]:
        hooks = _Hooks()
        source, needs = emit(self.plan, hooks)
        facts = _Facts(self.plan, hooks.lines)

        def bind(arena: np.ndarray, constants: np.ndarray, *captured: np.ndarray) -> tuple:
            shadow = _Shadow(facts, arena)
            names = {**needs, "before": shadow.before, "after": shadow.after}
            return shadow.watched(*load(source, names, self.filename)(arena, constants, *captured))

        return source, bind


class _Hooks:
    """`before(i, inputs, out)` and `after(i, out)` round the i-th line."""

    names: tuple[str, ...] = ("before", "after")

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def around(self, line: Line) -> list[str]:
        i = len(self.lines)
        self.lines.append(line)
        inputs = "".join(f"{name}, " for name in line.inputs)
        return [f"before({i}, ({inputs}), {line.out})", line.text, f"after({i}, {line.out})"]


class _Facts:
    """What the lines read and write, and after which of them nobody reads a value any more."""

    def __init__(self, plan: Plan, lines: Sequence[Line]) -> None:
        self.plan, self.lines = plan, lines
        roots = [v for v, place in plan.places.items() if place.root is v]
        self.labels = {root: label for label, root in enumerate(roots, 1)}
        self.values = dict(enumerate(roots, 1))
        tiled = {node: tiles for tiles in plan.tilings for node in tiles.nodes}
        self.region = [None if _copies(at) else tiled.get(at.node) for at in lines]
        self.dying: dict[int, list[Value]] = {}
        kept = {plan.places[v].root for v in plan.graph.outputs}
        for root, i in self._last().items():
            if root not in kept and self.is_in_arena(root):
                self.dying.setdefault(i, []).append(root)

    def _last(self) -> dict[Value, int]:
        last: dict[Value, int] = {}
        for i, at in enumerate(self.lines):
            for v in (*at.reads, at.node):
                root = self.plan.places[v].root
                if root is not None:
                    last[root] = i
        return last

    def is_in_arena(self, root: Value) -> bool:
        owner = self.plan.owner.get(root)
        return owner in self.plan.offsets and root not in self._fixed

    @cached_property
    def _fixed(self) -> set[Value]:
        return set(self.plan.fixed)

    @cached_property
    def names(self) -> dict[Value, str]:
        return numbering(self.plan.graph)

    def stretch(self, root: Value) -> tuple[int, int]:
        """From where to where in the arena the value has memory."""
        owner = self.plan.owner[root]
        start = self.plan.offsets[owner]
        return start, start + self.plan.lives.nbytes(owner)

    def at(self, i: int) -> str:
        """A line, for messages."""
        return f"kernel {i}, {line(self.lines[i].node, self.names)}"

    def described(self, root: Value) -> str:
        start, stop = self.stretch(root)
        place = f", {root.origin}" if str(root.origin) else ""
        slot = f"{stop - start:,} bytes at offset {start:,}"
        return f"{self.names[root]} ({root.type}, {root.op.name}{place}; {slot})"


def _copies(at: Line) -> bool:
    """Whether a line copies an update to its storage."""
    return len(at.reads) == 1 and at.reads[0] is at.node


class _Shadow:
    """The labels of one arena, and the checks of a tape on it."""

    def __init__(self, facts: _Facts, arena: np.ndarray) -> None:
        self.facts, self.arena = facts, arena
        self.base = address(arena)
        self.labels = np.zeros(arena.nbytes, np.int32)
        self.filled = False  # whether the result to come was filled with the pattern
        self.region: Tiles | None = None
        self.waiting: list[Value] = []  # to be freed when the region has run
        self.after_first = self.labels

    def watched(
        self,
        arguments: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray],
        first: Callable[[], None],
        update: Callable[[], None] | None,
        second: Callable[[], None] | None,
    ) -> tuple:
        """What `bind` gives, with tapes that begin and end with checks."""
        graph = self.facts.plan.graph
        inside = [v for v in graph.inputs if v not in set(self.facts.plan.outside)]
        late = set(graph.inputs[graph.early[0] :]) if graph.early else set()
        early = graph.early[1] if graph.early else len(outputs)

        def run_first() -> None:
            self._begin([v for v in inside if v not in late])
            first()
            if update is None:
                end_first()

        def run_update() -> None:
            assert update is not None
            update()
            end_first()

        def end_first() -> None:
            self._end(graph.outputs[:early], outputs[:early])
            self.after_first = self.labels.copy()

        def run_second() -> None:
            self.labels[:] = self.after_first  # it may run again, from a copy of the arena
            for v in inside:
                if v in late:
                    self._own(v)
            assert second is not None
            second()
            self._end(graph.outputs[early:], outputs[early:])

        late_runs = (run_update if update else None, run_second if second else None)
        return arguments, outputs, run_first, *late_runs

    # ---- what the lines call ----------------------------------------------------------------

    def before(self, i: int, inputs: Sequence[Any], out: np.ndarray) -> None:
        """Every input is there; the memory of the result holds nothing that could pass for it."""
        at = self.facts.lines[i]
        if self.facts.region[i] is not self.region:
            self._free(self.waiting)
            self.region, self.waiting = self.facts.region[i], []
        for value, array in zip(at.reads, inputs, strict=True):
            self._check_read(value, array, lambda: self.facts.at(i))
        arrays = [x for x in inputs if isinstance(x, np.ndarray)]
        shared = any(np.may_share_memory(out, x) for x in arrays)
        self.filled = not shared and self._offset(out) is not None
        if self.filled:
            _bits(out)[...] = _pattern(out.dtype)
            self._guard(at.node)

    def after(self, i: int, out: np.ndarray) -> None:
        """The result is whole and nothing beside it was touched; what nobody reads is freed."""
        at = self.facts.lines[i]
        if self.filled and _telling(out.dtype) and (_bits(out) == _pattern(out.dtype)).any():
            raise SanitizerError(f"{self.facts.at(i)}, left entries of its result unwritten")
        labels = self._labels(out)
        if labels is not None:
            labels[...] = self.facts.labels[at.node]
            self._check_guards(i)
        dying = self.facts.dying.get(i, [])
        held = self.facts.plan.lives.tiles
        later = [v for v in dying if self.region and self.facts.plan.owner[v] not in held]
        self.waiting += [v for v in later if v not in set(self.waiting)]
        self._free([v for v in dying if v not in set(later)])

    # ---- the labels -------------------------------------------------------------------------

    def _begin(self, given: Sequence[Value]) -> None:
        self.labels[:] = NOBODY
        self.region, self.waiting = None, []
        for v in given:
            self._own(v)
        self.arena[self.labels == NOBODY] = FREE_BYTE

    def _own(self, value: Value) -> None:
        start, stop = self.facts.stretch(value)
        self.labels[start:stop] = self.facts.labels[value]
        self._guard(value)

    def _end(self, values: Sequence[Value], arrays: Sequence[np.ndarray]) -> None:
        self._free(self.waiting)
        self.waiting = []
        for value, array in zip(values, arrays, strict=True):
            self._check_read(value, array, lambda: "the end of the tape")
        if (self.arena[self.labels == GUARDED] != GUARD_BYTE).any():
            raise SanitizerError(
                f"a kernel of {self.facts.plan.graph.name} wrote beyond its result, far away"
            )

    def _guard(self, node: Value) -> None:
        """The guard behind the slot of a value that begins to live."""
        if self.facts.plan.owner.get(node) is node:
            low, high = self._behind(node)
            self.arena[low:high] = GUARD_BYTE
            self.labels[low:high] = GUARDED

    def _behind(self, node: Value) -> tuple[int, int]:
        _, stop = self.facts.stretch(node)
        return stop, min(-(-stop // GUARD) * GUARD + GUARD, self.arena.nbytes)

    def _check_guards(self, i: int) -> None:
        node = self.facts.lines[i].node
        start, _ = self.facts.stretch(node)
        for low, high in ((max(0, start - GUARD), start), self._behind(node)):
            guarded = self.labels[low:high] == GUARDED
            if (self.arena[low:high][guarded] != GUARD_BYTE).any():
                side = "in front of" if high == start else "behind"
                raise SanitizerError(
                    f"{self.facts.at(i)}, wrote {side} {self.facts.described(node)}"
                )

    def _check_read(self, value: Value, array: Any, reader: Callable[[], str]) -> None:
        root = self.facts.plan.places[value].root
        labels = self._labels(array) if isinstance(array, np.ndarray) else None
        if root is None or labels is None:
            return
        foreign = labels[labels != self.facts.labels[root]]
        if not foreign.size:
            return
        other = self.facts.values.get(int(foreign[0]))
        what = "was not written, or was freed already"
        if other is not None:
            what = f"was overwritten by {self.facts.described(other)}"
        raise SanitizerError(
            f"{reader()}, reads {self.facts.described(root)}, of which a part {what}"
        )

    def _free(self, roots: Sequence[Value]) -> None:
        for root in roots:
            start, stop = self.facts.stretch(root)
            own = self.labels[start:stop] == self.facts.labels[root]
            size = root.dtype.itemsize
            pattern = np.full((stop - start) // size, _pattern(root.dtype), f"u{size}")
            np.copyto(self.arena[start:stop], pattern.view(np.uint8), where=own)
            self.labels[start:stop][own] = NOBODY

    def _labels(self, array: np.ndarray) -> np.ndarray | None:
        """The labels of an array's bytes; None for what lies outside the arena."""
        offset = self._offset(array)
        if offset is None:
            return None
        size = self.labels.itemsize
        strides = (*(size * s for s in array.strides), size)
        shape = (*array.shape, array.itemsize)
        return np.ndarray(shape, np.int32, self.labels, size * offset, strides)

    def _offset(self, array: np.ndarray) -> int | None:
        offset = address(array) - self.base
        return offset if array.size and 0 <= offset < self.arena.nbytes else None


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.itemsize}")


def _pattern(dtype: np.dtype) -> int:
    """What memory for entries of a dtype is filled with while nobody owns it."""
    return PATTERNS.get(dtype, int.from_bytes(b"\xde" * dtype.itemsize))


def _telling(dtype: np.dtype) -> bool:
    """Whether an entry that holds the pattern cannot have been computed."""
    return dtype.itemsize >= 4 or dtype.kind == "b"
