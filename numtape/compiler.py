"""`compile`: trace, passes, plan and source on the first call of a shape; replay on the next.

The cache is keyed by the nesting, shapes and dtypes of the arguments and by static arguments; an
entry also watches everything else that its trace depended on (train or eval mode, the structure
of modules, globals), so that a change means a new trace and never a stale answer.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache, update_wrapper
from typing import Any

import numpy as np

from numtape.lazy import lazy
from numtape.options import DEFAULT, Options
from numtape.passes import EXACT, PIPELINE, Pass
from numtape.runtime.blocks import Blocks
from numtape.tape import CompiledTape
from numtape.tracer.recorder import grad_enabled
from numtape.tracer.structure import (
    Skeleton,
    changed_static,
    flatten,
    parameter_names,
    readable,
    skeleton,
)
from numtape.tracer.tensor import Tensor
from numtape.tracer.trace import input_type, is_array, tracing

budgets = lazy("numtape.budget")
threadpoolctl = lazy("threadpoolctl")

Key = tuple[Any, ...]
MODES = 4  # tapes kept for the same arguments
REASONS = 256  # kept for `explain()`
METHODS = "_compiled_methods"


class Compiled:
    """A function that is traced once per shape of its arguments and replayed from then on.

    `passes` rewrite what was traced. Called like the function; while another function is being
    traced it is simply part of it.
    """

    def __init__(
        self,
        function: Callable,
        passes: tuple[Pass, ...],
        threads: int | None,
        max_tapes: int,
        options: Options = DEFAULT,
    ) -> None:
        self.function = function
        self.passes = passes
        self.max_tapes = max_tapes
        self.options = options
        self.misses: deque[str] = deque(maxlen=REASONS)  # why the latest traces were made
        self.traces = 0
        self._tapes: OrderedDict[Key, list[CompiledTape]] = OrderedDict()
        self._latest: tuple[Key, CompiledTape] | None = None  # found without a search
        self._blocks = Blocks()
        self._making = threading.RLock()  # one trace at a time; a trace may compile in turn
        self._lock = threading.RLock()  # of the cache, held briefly
        self._threads = threads
        self._controller = threadpoolctl.ThreadpoolController() if threads is not None else None
        update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if tracing() is not None:
            return self.function(*args, **kwargs)
        nesting, leaves = _flattened(args, kwargs)
        if self._controller is None:
            return self._find(args, kwargs, nesting, leaves).run(leaves)
        with self._controller.limit(limits=self._threads, user_api="blas"):
            return self._find(args, kwargs, nesting, leaves).run(leaves)

    def __get__(self, instance: Any, owner: type | None = None) -> "Compiled":
        """A method compiled for each object; the object keeps it, so both go together."""
        if instance is None or not hasattr(self.function, "__get__"):
            return self
        methods = vars(instance).get(METHODS)
        if methods is None or methods.instance is not instance:
            methods = vars(instance)[METHODS] = _Methods(instance)
        found = methods.compiled.get(self)
        if found is None:
            bound = self.function.__get__(instance, owner)
            made = Compiled(bound, self.passes, self._threads, self.max_tapes, self.options)
            found = methods.compiled.setdefault(self, made)
        return found

    def tape(self, *args: Any, **kwargs: Any) -> CompiledTape:
        """The tape for these arguments, compiled if need be, without running it."""
        return self._find(args, kwargs, *_flattened(args, kwargs))

    @property
    def tapes(self) -> tuple[CompiledTape, ...]:
        """All tapes in the cache, the one used last at the end."""
        with self._lock:
            return tuple(tape for found in self._tapes.values() for tape in found)

    def explain(self) -> str:
        """Why each of the latest traces was made, a line each."""
        return "\n".join(self.misses) or "nothing has been traced yet"

    def _find(self, args: tuple, kwargs: dict, nesting: Skeleton, leaves: list) -> CompiledTape:
        key = (nesting, grad_enabled(), _repeats(leaves), *map(_signature, leaves))
        latest = self._latest
        if latest is not None and latest[0] == key and latest[1].current():
            return latest[1]
        found = self._usable(key)
        if found is None:
            with self._making:  # another thread may have made it in the meantime
                found = self._usable(key) or self._miss(key, args, kwargs)
        self._latest = key, found
        return found

    def _usable(self, key: Key) -> CompiledTape | None:
        with self._lock:
            kept = self._tapes.get(key, ())
            if kept:
                self._tapes.move_to_end(key)
        for tape in kept:
            if tape.current():
                return tape
        return None

    def _miss(self, key: Key, args: tuple, kwargs: dict) -> CompiledTape:
        reason = self._reason(key)
        tape = CompiledTape(self.function, args, kwargs, self.passes, self._blocks, self.options)
        self.traces += 1
        with self._lock:
            before = len(self.tapes)
            # Those for other modes, such as eval(), may serve again.
            made = [*self._tapes.pop(key, ()), tape]
            self._tapes[key] = made[-min(MODES, self.max_tapes) :]
            while len(self.tapes) > self.max_tapes:
                self._tapes.popitem(last=False)
            dropped = before + 1 - len(self.tapes)
        note = f", and {dropped} dropped" if dropped else ""
        self.misses.append(f"trace {self.traces}: {reason} ({tape.milliseconds:.0f} ms){note}")
        return tape

    def _reason(self, key: Key) -> str:
        """What differs from the nearest tape there is."""
        with self._lock:
            kept = self._tapes.get(key, ())
            keys = tuple(self._tapes)
        if not keys:
            return "the first call"
        if kept:
            return "; ".join(_gathered(kept[-1].changed()))
        names = parameter_names(self.function)
        nearest = min([_differences(k, key, names) for k in reversed(keys)], key=len)
        return "; ".join(nearest)


class _Methods:
    """The compiled methods of an object; a copy of the object starts without any."""

    def __init__(self, instance: Any = None) -> None:
        self.instance = instance
        self.compiled: dict[Compiled, Compiled] = {}

    def __reduce__(self) -> tuple:
        return _Methods, ()


def compile(
    function: Callable,
    *,
    exact: bool = False,
    threads: int | None = None,
    max_tapes: int = 64,
    memory: int | str | None = None,
    validate: bool = False,
    sanitize: bool = False,
) -> Compiled:
    """`function` (or module) as a program traced once per shape and replayed with NumPy kernels.

    Also usable as a decorator. `exact` keeps to passes that change no bit, so that the result
    equals the eager one with `==` at the same number of BLAS threads. `threads` limits BLAS
    during calls. The cache holds `max_tapes` tapes and drops the one unused for longest.

    `memory` is the most that the arena of a call may take: bytes, or text such as "512MB"
    (millions) or "1.5GiB" (2^30). What would be held longest for the time it costs to compute is
    then computed again where it is read, which changes no bit; `tape.recomputed` says what that
    costs. Where no plan keeps to the budget, the call (or `.tape`) raises a `MemoryError` with
    the least that one takes, before anything runs.

    `validate` checks the compiler whenever a tape is made: each pass and the emitted program
    against the reference, on copies of the arguments, and the plan by proof. A step that changes
    a result raises an error with the smallest graph that shows it, before anything runs. The
    call that makes a tape then takes several times as long; those after it run as ever.

    `sanitize` checks memory at every call: each kernel must find its inputs as they were written,
    and must not write beyond its result. Such calls take many times as long and more memory, which
    no budget counts (a ValueError).
    """
    if not callable(function):
        raise TypeError(f"compile takes a function or module, not {type(function).__name__}")
    if max_tapes < 1:
        raise ValueError(f"max_tapes is at least 1, not {max_tapes}")
    if sanitize and memory is not None:
        raise ValueError(
            "sanitize=True keeps guards between values, which no budget counts: leave out "
            f"sanitize, or memory={memory!r} while memory is checked"
        )
    budget = None if memory is None else budgets.as_bytes(memory)
    options = Options(budget, validate, sanitize)
    return Compiled(function, EXACT if exact else PIPELINE, threads, max_tapes, options)


def _flattened(args: tuple, kwargs: dict) -> tuple[Skeleton, list[Any]]:
    """The nesting of the arguments, and the leaves in it."""
    if not kwargs and _LEAVES.issuperset(map(type, args)):  # as a rule: nothing need be walked
        return _flat_nesting(len(args)), list(args)
    tree = (args, kwargs)
    return skeleton(tree, is_array), [leaf for _, leaf in flatten(tree, is_array)]


_LEAVES = frozenset((np.ndarray, Tensor))


@cache
def _flat_nesting(count: int) -> Skeleton:
    """The nesting of so many positional arguments that are leaves."""
    return skeleton(((0.0,) * count, {}), is_array)


def _repeats(leaves: list) -> tuple[tuple[int, int], ...]:
    """Which tensors are given more than once: the place of each again, and its first place."""
    if len(set(map(id, leaves))) == len(leaves):
        return ()
    tensors = [(i, id(leaf)) for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    first: dict[int, int] = {}
    pairs = ((i, first.setdefault(key, i)) for i, key in tensors)
    return tuple((i, j) for i, j in pairs if i != j)


def _signature(leaf: Any) -> tuple:
    """dtype, shape, whether it is a number, wants a gradient, and has none yet."""
    if type(leaf) is np.ndarray:
        return leaf.dtype, leaf.shape, False, False, True
    if isinstance(leaf, Tensor):
        return *leaf.type, leaf.requires_grad, leaf._grad is None
    return input_type(leaf)


def _differences(old: Key, new: Key, names: Sequence[str]) -> list[str]:
    leaves = [readable(path, names) for path, entry in new[0] if entry is None]
    found = []
    if old[0] != new[0]:
        found.append(changed_static(old[0], new[0], names))
    if old[1] != new[1]:
        found.append("gradients are " + ("wanted" if new[1] else "not wanted"))
    for i, j in sorted({*old[2]} ^ {*new[2]}):
        same = "" if (i, j) in new[2] else " not"
        found.append(f"argument {leaves[i]} is{same} argument {leaves[j]}")
    for name, a, b in zip(leaves, old[3:], new[3:], strict=False):
        if a != b:
            found.append(f"argument {name} is {_shown(b)}, it was {_shown(a)}")
    return found


def _gathered(changes: list[str]) -> Iterator[str]:
    """One for each kind of setting: train() and eval() change it in every module below."""
    kinds: dict[str, list[str]] = {}
    for change in changes:
        kinds.setdefault(change.rpartition(".")[2], []).append(change)
    for first, *others in kinds.values():
        yield f"{first} (and {len(others)} more like it)" if others else first


def _shown(signature: tuple) -> str:
    dtype, shape, _, *gradient = signature
    notes = {(True, True): " with requires_grad", (True, False): " with a gradient in .grad"}
    return f"{dtype}{list(shape)}{notes.get(tuple(gradient), '')}"
