"""One compiled tape: how it was made, what it says of itself, and a call of it.

Stands between the graph world (passes, plan, source) and the tensors of a call: arguments go in,
outputs are copied out, updates and gradients reach their tensors.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numtape.calls import Lease, Reverse, plain
from numtape.inspect.report import PassReport
from numtape.ir.graph import Graph
from numtape.ir.interpreter import active
from numtape.ir.location import user_line
from numtape.ir.types import Type
from numtape.lazy import lazy
from numtape.options import DEFAULT, Options
from numtape.passes import Pass, optimise
from numtape.runtime.blocks import Blocks, Bound
from numtape.runtime.commit import Noted, Quiet, report, uninterrupted
from numtape.runtime.cost import Cost, cost
from numtape.runtime.memory import Memory
from numtape.runtime.plan import Plan, plan
from numtape.runtime.tape import Tape, explain
from numtape.tracer.aliases import first_alias, owner, shares_memory, two_ways
from numtape.tracer.recorder import CONSUMED, EAGER
from numtape.tracer.structure import flatten, rebuild
from numtape.tracer.tensor import Structure, Tensor, TraceError
from numtape.tracer.trace import input_type, is_array, trace_call
from numtape.tracer.traced import USED_UP, Gradient, Traced, Watch, is_place, parted, settled
from numtape.tracer.watching import lasting, watches
from numtape.turns import in_turn, turns

if TYPE_CHECKING:
    from numtape.runtime.profile import Profile

pictures = lazy("numtape.inspect.draw")  # graphviz takes as long to load as NumPy
budgets = lazy("numtape.budget")
repeats = lazy("numtape.checking.repeats")
validation = lazy("numtape.checking.validation")
sanitizer = lazy("numtape.runtime.sanitizer")
profiling = lazy("numtape.runtime.profile")

_HOLDS = methodcaller("holds")
PER_NODE = 3_000  # bytes, as measured on models
STAGES = ("traced", "joint", "optimized")


class CompiledTape:
    """A function compiled for one shape of arguments.

    source        the program, as Python text.
    memory        its bytes, exact before the first run.
    passes        what passes and planner did, `PassRecord`s in order; printed, a table.
    recomputed    what keeping to a budget of memory costs at every replay.
    milliseconds  what making it took, in all; `phases` by phase.
    """

    def __init__(
        self,
        function: Callable,
        args: tuple,
        kwargs: dict,
        passes: tuple[Pass, ...],
        blocks: Blocks,
        options: Options = DEFAULT,
    ) -> None:
        self._options = options
        self.phases: dict[str, float] = {}
        self._seen = Structure.changes  # before: what changes from here on is looked at again
        with active(EAGER):
            found, generators = watches(function, args, kwargs)
        with _uncollected():
            again = partial(trace_call, function, args, kwargs, generators)
            with self._timed("trace"):
                self._traced: Traced = again()
            if options.validate:
                self._traced = repeats.check_repeats(self._traced, again)
            self._make((args, kwargs), passes, blocks)
        kept = lasting(found, self._traced.captured)
        self._watches: tuple[Watch, ...] = settled(kept, self._traced)
        self._prepare_call()

    def _make(self, given: tuple, passes: tuple[Pass, ...], blocks: Blocks) -> None:
        program = self._traced.program
        checks = None
        if self._options.validate:
            checks = validation.Validation(self._inputs(program, given))
        with self._timed("passes"):
            run = optimise if checks is None else checks.optimise
            optimised = budgets.within(self._options.memory, program, passes, self._planned, run)
        with self._timed("plan and emit"):
            make = sanitizer.SanitizedTape if self._options.sanitize else Tape
            self._tape = make(optimised.plan, self._outside(), blocks)
            if checks is not None:
                checks.check_tape(self._tape, all(p.exact for p in passes))
        self.recomputed = optimised.recomputed
        self.passes = PassReport((*optimised.report, *self.plan.records))

    def _planned(self, graph: Graph) -> Plan:
        captured = self._traced.captured
        inputs = graph.inputs[self._traced.arguments :]
        given = [
            (v, c) for v, c in zip(inputs, captured, strict=False) if not isinstance(c, Gradient)
        ]
        parameters = [v for v, c in given if isinstance(c, Tensor) and c.requires_grad]
        guard = sanitizer.GUARD if self._options.sanitize else 0
        return plan(graph, {v: _array(c) for v, c in given}, parameters, guard)

    def _inputs(self, program: Graph, given: tuple) -> list[np.ndarray]:
        """Copies of what a call with these arguments gives to the inputs of the program.

        The gradients that a reverse tape starts from, which nobody knows yet, are drawn.
        """
        leaves = [leaf for _, leaf in flatten(given, is_array)]
        captured = (
            _tensor_at(c.target, leaves)._grad if isinstance(c, Gradient) else c
            for c in self._traced.captured
        )
        known = [*map(_array, leaves), *map(_array, captured)]
        rng = np.random.default_rng(0)
        drawn = (rng.normal(size=v.shape) for v in program.inputs[len(known) :])
        every = zip(program.inputs, (*known, *drawn), strict=True)
        return [np.array(array, v.dtype) for v, array in every]

    def _outside(self) -> list[np.ndarray]:
        """The arrays that are read and updated where they are."""
        return [_array(c) for c in self._traced.captured if not isinstance(c, Gradient)]

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.phases[phase] = 1e3 * (time.perf_counter() - start)

    # ---- what it says of itself ------------------------------------------------------------

    @property
    def arguments(self) -> tuple[Type, ...]:
        """The types of the arguments, in order."""
        return tuple(v.type for v in self._traced.graph.inputs[: self._traced.arguments])

    @property
    def milliseconds(self) -> float:
        return sum(self.phases.values())

    @property
    def source(self) -> str:
        return self._tape.source

    @property
    def filename(self) -> str:
        """The name under which pdb, tracebacks and profilers know the source."""
        return self._tape.filename

    @property
    def memory(self) -> Memory:
        return self._tape.memory

    @property
    def nbytes(self) -> int:
        """What a cache holds for this tape alone, about: constants, graphs, plan and program."""
        return self.memory.constants + PER_NODE * len(self._tape.graph.nodes)

    def held(self) -> dict[int, int]:
        """The bytes of each array outside that it reads and so keeps alive, by id."""
        return {id(array): array.nbytes for array in self._outside()}

    @property
    def plan(self) -> Plan:
        """The order of the kernels and the memory of every value; printed, a table."""
        return self._tape.plan

    @property
    def cost(self) -> Cost:
        """Floating-point operations and bytes moved by one replay."""
        return cost(self.plan.order)

    def graph(self, stage: str = "optimized") -> Graph:
        """The graph as `"traced"`, with its reverse part (`"joint"`), or `"optimized"`."""
        if stage not in STAGES:
            raise ValueError(f"a stage is one of {', '.join(STAGES)}, not {stage!r}")
        if stage == "traced":
            return self._traced.graph
        joint = self._traced.joint
        if stage == "joint":
            return joint.graph if joint else self._traced.graph
        return self._tape.graph

    def profile(self, *args: Any, rounds: int = 5, **kwargs: Any) -> "Profile":
        """Where one replay spends its time: each kernel's best of so many rounds.

        Takes arguments as a call does, of the shapes and dtypes that the tape was made for;
        others are a ValueError. Works on copies: no parameter and no other state changes.
        """
        leaves = [leaf for _, leaf in flatten((args, kwargs), is_array)]
        given = [str(input_type(leaf)) for leaf in leaves]
        wanted = [str(v.type) for v in self._traced.graph.inputs[: self._traced.arguments]]
        if given != wanted:
            raise ValueError(
                f"at {user_line()}: this tape was made for arguments {', '.join(wanted)}, not "
                f"{', '.join(given)}; compiled.tape(*arguments) gives the one for these"
            )
        if rounds < 1:
            raise ValueError(f"at {user_line()}: a profile takes 1 round or more, not {rounds}")
        return profiling.profile(self._tape, self._given(leaves), rounds)

    def draw(self, path: str | Path, stage: str = "optimized", **options: Any) -> Path:
        """A picture of a stage: SVG, PNG, PDF or DOT by the ending of `path`."""
        graph = self.graph(stage)
        options = {"title": f"{graph.name}, {stage}", **options}
        return pictures.draw(graph, path, arguments=self._traced.arguments, **options)

    def __repr__(self) -> str:
        graph, notes = self._tape.graph, str(self._options)
        facts = (f"{graph.operations} nodes", f"{self.memory.arena:,} bytes", notes)
        return f"<tape of {graph.name}: {', '.join(filter(None, facts))}>"

    # ---- whether it still holds ------------------------------------------------------------

    def current(self) -> bool:
        """Whether everything static that the trace depended on is as it was."""
        if self._seen == Structure.changes:
            return all(map(_HOLDS, self._unnoticed))
        if all(map(_HOLDS, self._watches)):
            self._seen = Structure.changes
            return True
        return False

    def changed(self) -> list[str]:
        """What no longer is as the trace found it."""
        return [f"{w.what} changed" for w in self._watches if not w.holds()]

    # ---- a call ----------------------------------------------------------------------------

    def _prepare_call(self) -> None:
        traced = self._traced
        self._unnoticed = [w for w in self._watches if not w.counted]
        self._updated = [t for t in traced.targets if isinstance(t, Tensor)]
        self._returned = [t[1] for t in traced.targets if not isinstance(t, Tensor)]
        captured = traced.captured
        self._storages = [t.storage for t in self._updated]
        self._turns = turns(self._storages)
        self._changes = bool(traced.targets or traced.gradients)
        self._commit = Quiet(self._write)
        self._used_up, self._left = parted(traced.gradients)
        self._read_gradients = [c.target for c in captured if isinstance(c, Gradient)]
        self._early = len(traced.graph.outputs) + len(self._returned)
        self._types = [v.type for v in traced.graph.outputs]
        self._owners = {owner(_array(c)) for c in captured if not isinstance(c, Gradient)}
        self._reverse = self._reverse_part()

    def _reverse_part(self) -> Reverse | None:
        joint = self._traced.joint
        return None if joint is None else Reverse(joint, self._read_late(), self._early)

    def _read_late(self) -> list[Tensor]:
        """The captured tensors and arrays that the reverse tape reads where they are."""
        traced, late = self._traced, self.plan.read_late
        captured = zip(traced.captured, self.plan.graph.inputs[traced.arguments :], strict=False)
        found = [c for c, v in captured if v in late and not isinstance(c, Gradient)]
        return [c if isinstance(c, Tensor) else plain(c) for c in found]

    def run(self, leaves: Sequence[Any]) -> Any:
        """The result for these argument leaves; what the function assigns is assigned."""
        if not self._traced.reached.keys().isdisjoint(map(id, leaves)):
            self._refuse_captured(leaves)
        if self._traced.targets:
            self._refuse_shared(leaves)
        bound = self._tape.acquire()
        try:
            arrays, noted = in_turn(self._turns, partial(self._replay, leaves, bound))
        except BaseException as error:
            explain(error, self._tape.filename)
            self._tape.release(bound)
            raise
        outputs = self._outputs(leaves, arrays, bound)
        report(noted)
        return rebuild(self._traced.result, is_place, lambda o: outputs[o.position])

    def _replay(self, leaves: Sequence[Any], bound: Bound) -> tuple[list[np.ndarray], list[Noted]]:
        """Copies of the results; an error leaves all state either as it was or as it shall be."""
        for place, given in zip(bound.arguments, self._given(leaves), strict=False):
            place[...] = given
        bound.first()
        places = bound.outputs[: self._early]
        if not self._changes:
            return [place.copy() for place in places], []
        arrays = [np.empty(place.shape, place.dtype) for place in places]
        return arrays, uninterrupted(partial(self._commit, leaves, bound, arrays))

    def _write(self, leaves: Sequence[Any], bound: Bound, arrays: list[np.ndarray]) -> None:
        """All that a call changes outside. From here on nothing fails."""
        for storage in self._storages:
            storage.version += 1
        if bound.update is not None:
            bound.update()
        for array, place in zip(arrays, bound.outputs, strict=False):
            np.copyto(array, place)
        for position, array in zip(self._returned, arrays[-len(self._returned) :], strict=False):
            leaf = leaves[position]
            np.copyto(_array(leaf), array)
            if isinstance(leaf, Tensor):
                leaf.version += 1
        self._leave_gradients(leaves, arrays)

    def _refuse_captured(self, leaves: Sequence[Any]) -> None:
        for name, leaf in zip(self._traced.graph.names, leaves, strict=False):
            if id(leaf) in self._traced.reached:
                raise TraceError(f"at {user_line()}: {two_ways(name, leaf.type)}")

    def _refuse_shared(self, leaves: Sequence[Any]) -> None:
        """What the function updates can be written to, and comes in by no other way as well."""
        for i in self._returned:
            array = _array(leaves[i])
            if not isinstance(array, np.ndarray) or not array.flags.writeable:
                raise TypeError(
                    f"at {user_line()}: the function assigns to {self._traced.graph.names[i]}, "
                    "which cannot be changed in place; pass a tensor or an array that is writeable"
                )
        owners = [owner(a) for a in map(_array, leaves) if isinstance(a, np.ndarray)]
        if len(set(owners)) == len(owners) and self._owners.isdisjoint(owners):
            return
        held, outside = self._held(leaves), {id(t) for t in self._updated}
        updated = {n for n, (i, s) in enumerate(held) if i in self._returned or id(s) in outside}
        found = first_alias([_array(source) for _, source in held], updated)
        if found is not None:
            names = self._traced.graph.names
            pair = (f"{names[i]} ({input_type(s)})" for i, s in (held[n] for n in found))
            raise TraceError(f"at {user_line()}: {shares_memory(*pair)}")

    def _held(self, leaves: Sequence[Any]) -> list[tuple[int, Any]]:
        """What has arrays, by its place among the inputs; a tensor that is given twice once."""
        held: dict[tuple, tuple[int, Any]] = {}
        for i, source in enumerate((*leaves, *self._traced.captured)):
            if isinstance(_array(source), np.ndarray):
                held.setdefault((id(source), isinstance(source, Tensor) or i), (i, source))
        return list(held.values())

    def _given(self, leaves: Sequence[Any]) -> list[Any]:
        """What is copied in: the arguments, then the gradients that the function reads."""
        given = list(map(_array, leaves))
        for target in self._read_gradients:
            given.append(_tensor_at(target, leaves)._grad._payload)
        return given

    def _leave_gradients(self, leaves: Sequence[Any], arrays: list[np.ndarray]) -> None:
        for tensor in self._used_up:
            tensor._grad = CONSUMED
        for target, position in self._left:
            tensor = _tensor_at(target, leaves)
            if not isinstance(tensor, Tensor):
                continue
            if position is None:
                tensor._grad = None
            else:
                tensor._grad = CONSUMED if position == USED_UP else plain(arrays[position])

    def _outputs(
        self, leaves: Sequence[Any], arrays: list[np.ndarray], bound: Bound
    ) -> list[Tensor]:
        joint = self._traced.joint
        if joint is None or self._reverse is None:
            self._tape.release(bound)
            return list(map(Tensor.wrap, arrays, self._types))
        sources = [_tensor_at(leaf, leaves) for leaf in joint.leaves]
        return self._reverse.results(arrays, self._types, sources, Lease(self._tape, bound))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Compiling makes many objects that stay: looking for garbage among them takes as long as
    a pass or two."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _tensor_at(target: Any, leaves: Sequence[Any]) -> Any:
    """A tensor, or the one that `("argument", i)` stands for."""
    return leaves[target[1]] if isinstance(target, tuple) else target


def _array(leaf: Any) -> np.ndarray:
    return leaf._payload if isinstance(leaf, Tensor) else leaf
