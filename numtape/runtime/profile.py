"""Where the time of a replay goes: the same source with a clock behind each kernel.

The timed program comes from the emitter that wrote the tape and runs on an arena and on state of
its own, so that no parameter changes. Every kernel's time is its best of several rounds, each of
which begins from the same state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np

from numtape.ir.graph import Value, numbering
from numtape.ir.text import columns
from numtape.runtime.causes import CAUSES, OVERHEAD, PRODUCTS, cause
from numtape.runtime.cost import cost
from numtape.runtime.emit import Line, emit
from numtape.runtime.runs import Runs
from numtape.runtime.tape import Tape, load

LONGEST = 15  # rows of a printed table


@dataclass(frozen=True)
class Spent:
    """The time of one kernel, or of several together, in one replay.

    name     the line of the tape, or what the kernels have in common.
    seconds  in all calls.           calls  of kernels: as many as tiles for one in a loop.
    nbytes   read and written.       flops  floating-point operations.
    """

    name: str
    seconds: float
    calls: int
    nbytes: int
    flops: int

    @property
    def gigabytes(self) -> float:
        """GB read and written in a second."""
        return self.nbytes / max(self.seconds, 1e-9) / 1e9

    @property
    def gigaflops(self) -> float:
        """Thousand million floating-point operations in a second."""
        return self.flops / max(self.seconds, 1e-9) / 1e9


@dataclass(frozen=True)
class Kernel(Spent):
    """The time of one line of a tape.

    number  of its node in `tape.source`.      place   the user's line.
    module  the module's path, with `grad` for the reverse part.
    cause   one of `CAUSES`.                   region  the loop that it stands in, if any.
    """

    number: str
    place: str
    module: str
    cause: str
    region: str


@dataclass(frozen=True, eq=False)
class Profile:
    """What one replay spends where; printed, tables.

    kernels  one for each line of the tape, in order.
    replay   seconds of a replay without clocks, at best.
    call     seconds of a call of a kernel that has next to nothing to do.
    """

    name: str
    kernels: tuple[Kernel, ...]
    replay: float
    call: float

    @property
    def seconds(self) -> float:
        """Inside kernels altogether: the sum of each table."""
        return sum(k.seconds for k in self.kernels)

    @cached_property
    def modules(self) -> tuple[Spent, ...]:
        """By module path, the reverse part apart, the dearest first."""
        return self._by(lambda k: k.module)

    @cached_property
    def regions(self) -> tuple[Spent, ...]:
        """By fused region, and what stands in none."""
        return self._by(lambda k: k.region or "outside regions")

    @cached_property
    def causes(self) -> tuple[Spent, ...]:
        """The floor, which is the matrix products, then the gap to it by cause.

        Without what the calls of the other kernels cost even where there is nothing to do.
        """
        found = {spent.name: spent for spent in self._by(lambda k: k.cause, self._work)}
        calls = [k for k in self.kernels if k.cause != PRODUCTS]
        overhead = sum(k.seconds - self._work(k) for k in calls)
        found[OVERHEAD] = Spent(OVERHEAD, overhead, sum(k.calls for k in calls), 0, 0)
        return tuple(found[c] for c in CAUSES if c in found)

    def _work(self, kernel: Kernel) -> float:
        if kernel.cause == PRODUCTS:
            return kernel.seconds
        return max(0.0, kernel.seconds - kernel.calls * self.call)

    def _by(
        self,
        key: Callable[[Kernel], str],
        seconds: Callable[[Kernel], float] = lambda k: k.seconds,
    ) -> tuple[Spent, ...]:
        groups: dict[str, list[Kernel]] = {}
        for kernel in self.kernels:
            groups.setdefault(key(kernel), []).append(kernel)
        found = [
            Spent(
                name,
                sum(map(seconds, kernels)),
                sum(k.calls for k in kernels),
                sum(k.nbytes for k in kernels),
                sum(k.flops for k in kernels),
            )
            for name, kernels in groups.items()
        ]
        return tuple(sorted(found, key=lambda spent: -spent.seconds))

    def __str__(self) -> str:
        kernels = sorted(self.kernels, key=lambda k: -k.seconds)
        whole = f"{1e3 * self.seconds:.3f} ms in kernels, {1e3 * self.replay:.3f} ms a replay"
        return "\n\n".join(
            (
                f"{self.name}: {whole}",
                self._table("cause", self.causes),
                self._table("module", self.modules),
                self._table("region", self.regions),
                self._table("kernel", kernels),
            )
        )

    def _table(self, head: str, spent: Sequence[Spent]) -> str:
        titles = (head, "ms", "%", "calls", "GB/s", "GFLOP/s")
        lines = columns([titles, *map(self._row, spent[:LONGEST])], left=(0,))
        if len(spent) > LONGEST:
            rest = sum(s.seconds for s in spent[LONGEST:])
            lines.append(f"and {len(spent) - LONGEST} more in {1e3 * rest:.3f} ms")
        return "\n".join(lines)

    def _row(self, spent: Spent) -> tuple[str, ...]:
        return (
            spent.name,
            f"{1e3 * spent.seconds:.3f}",
            f"{100 * spent.seconds / max(self.seconds, 1e-9):.1f}",
            f"{spent.calls:,}",
            f"{spent.gigabytes:.1f}" if spent.nbytes else "",
            f"{spent.gigaflops:.1f}" if spent.flops else "",
        )


class _Clock:
    """What the timed tape calls behind each line: `clock(line)`."""

    def __init__(self, lines: int) -> None:
        self.seconds, self.calls = [0.0] * lines, [0] * lines
        self._then = 0.0

    def start(self) -> None:
        """Forget the round before."""
        count = len(self.seconds)
        self.seconds[:], self.calls[:] = [0.0] * count, [0] * count
        self._then = perf_counter()

    def __call__(self, line: int) -> None:
        self.seconds[line] += perf_counter() - self._then
        self.calls[line] += 1
        self._then = perf_counter()


class _Clocks:
    """`clock(i)` behind the i-th line."""

    names: tuple[str, ...] = ("clock",)

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def around(self, line: Line) -> list[str]:
        self.lines.append(line)
        return [line.text, f"clock({len(self.lines) - 1})"]


def profile(tape: Tape, arguments: Sequence[Any], rounds: int) -> Profile:
    """The time of each kernel of a tape, on arguments given in the order of its inputs.

    The late inputs of a reverse tape, which follow the arguments, are filled with ones.
    """
    hooks = _Clocks()
    source, needs = emit(tape.plan, hooks)
    lines = hooks.lines
    clock = _Clock(len(lines))
    timed = load(source, {**needs, "clock": clock}, f"{tape.filename[:-1]} timed>")
    runs = Runs(tape, arguments)
    best = [np.inf] * len(lines)
    replay = np.inf
    for _ in range(rounds):
        replay = min(replay, runs.run(tape.bind, tape.filename))
        runs.run(timed, tape.filename, clock.start)
        best = list(map(min, best, clock.seconds))
    kernels = _kernels(tape, lines, best, clock.calls)
    return Profile(tape.graph.name, kernels, replay, _call_overhead())


def _kernels(
    tape: Tape, lines: Sequence[Line], seconds: Sequence[float], calls: Sequence[int]
) -> tuple[Kernel, ...]:
    regions = {v: f"tiles_{i}" for i, t in enumerate(tape.plan.tilings, 1) for v in t.nodes}
    numbers, order = numbering(tape.graph), set(tape.plan.order)
    found, seen = [], set()
    for (line, node, *_), spent, count in zip(lines, seconds, calls, strict=True):
        copied = node in seen or node not in order  # into the storage that it updates
        seen.add(node)
        work = cost([node])
        found.append(
            Kernel(
                line.split("  # ")[0],
                spent,
                count,
                2 * node.nbytes if copied else work.nbytes,
                0 if copied else work.flops,
                number=numbers[node],
                place=str(node.origin._replace(module="", reverse=False)),
                module=_module(node),
                cause=cause(node),
                region="" if copied else regions.get(node, ""),
            )
        )
    return tuple(found)


def _module(node: Value) -> str:
    reverse = " grad" if node.origin.reverse else ""
    return f"{node.origin.module or 'outside any module'}{reverse}"


def _call_overhead() -> float:
    """Seconds of a call with a single entry to work on, by the same clock."""
    clock, x, best = _Clock(1), np.zeros(1, np.float32), np.inf
    for _ in range(20):
        clock.start()
        for _ in range(50):
            np.add(x, x, out=x)
            clock(0)
        best = min(best, clock.seconds[0] / 50)
    return best
