"""`compile`: trace, passes, plan and source on the first call of a shape; replay on the next.

The cache is keyed by the nesting, shapes and dtypes of the arguments and by static arguments; an
entry also watches everything else that its trace depended on (train or eval mode, the structure
of modules, globals), so that a change means a new trace and never a stale answer.
"""

import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any, SupportsIndex

from numtape.caching.signatures import Key, differences, flattened, gathered, key_of
from numtape.caching.storms import TRACES, Made, Miss, RetraceWarning, calls_of, is_storm, storm
from numtape.caching.tapes import Tapes
from numtape.ir.location import user_line, user_place
from numtape.lazy import lazy
from numtape.options import DEFAULT, Options
from numtape.passes import EXACT, PIPELINE, Pass
from numtape.tape import CompiledTape
from numtape.tracer.once import check_returns
from numtape.tracer.structure import Skeleton, parameter_names
from numtape.tracer.trace import tracing

budgets = lazy("numtape.budget")
threadpoolctl = lazy("threadpoolctl")

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
        threads: int | None = None,
        options: Options = DEFAULT,
    ) -> None:
        self.function = function
        self.passes = passes
        self.options = options
        self.misses: deque[Miss] = deque(maxlen=REASONS)  # the latest
        self.traces = 0
        self.calls = 0
        self._cache = Tapes(options.max_tapes, options.max_bytes)
        self._made: deque[Made] | None = deque(maxlen=TRACES)  # until there was a warning
        self._latest: tuple[Key, CompiledTape] | None = None  # found without a search
        self._making = threading.RLock()  # one trace at a time; a trace may compile in turn
        self._threads = threads
        self._controller = threadpoolctl.ThreadpoolController() if threads is not None else None
        update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if tracing() is not None:
            return self.function(*args, **kwargs)
        nesting, leaves = flattened(args, kwargs)
        if self._controller is None:
            return self._find(args, kwargs, nesting, leaves).run(leaves)
        with self._controller.limit(limits=self._threads, user_api="blas"):
            return self._find(args, kwargs, nesting, leaves).run(leaves)

    def __get__(self, instance: Any, owner: type | None = None) -> "Compiled":
        """A method compiled for each object; the object keeps it, so both go together."""
        if instance is None or not hasattr(self.function, "__get__"):
            return self
        held = getattr(instance, "__dict__", None)
        if held is None:
            raise TypeError(
                f"at {user_line()}: a compiled method is kept in the object's __dict__, which a "
                f'{type(instance).__name__} has not; add "__dict__" to its __slots__'
            )
        methods = held.get(METHODS)
        if methods is None or methods.instance is not instance:
            methods = held[METHODS] = _Methods(instance)
        found = methods.compiled.get(self)
        if found is None:
            bound = self.function.__get__(instance, owner)
            made = Compiled(bound, self.passes, self._threads, self.options)
            found = methods.compiled.setdefault(self, made)
        return found

    def tape(self, *args: Any, **kwargs: Any) -> CompiledTape:
        """The tape for these arguments, compiled if need be, without running it."""
        return self._search(key_of(*flattened(args, kwargs)), args, kwargs, ahead=True)

    @property
    def tapes(self) -> tuple[CompiledTape, ...]:
        """All tapes in the cache, the one used last at the end."""
        return self._cache.all()

    def explain(self) -> str:
        """Why each of the latest traces was made, a line each."""
        return "\n".join(map(str, self.misses)) or "nothing has been traced yet"

    def _find(self, args: tuple, kwargs: dict, nesting: Skeleton, leaves: list) -> CompiledTape:
        self.calls += 1
        key = key_of(nesting, leaves)
        latest = self._latest
        if latest is not None and latest[0] == key and latest[1].current():
            return latest[1]
        return self._search(key, args, kwargs)

    def _search(self, key: Key, args: tuple, kwargs: dict, ahead: bool = False) -> CompiledTape:
        """The tape for such calls, made if need be; `ahead` of the first call of the kind."""
        found = self._cache.find(key)
        if found is None:
            with self._making:  # another thread may have made it in the meantime
                found = self._cache.find(key) or self._miss(key, args, kwargs, ahead)
        self._latest = key, found
        return found

    def _miss(self, key: Key, args: tuple, kwargs: dict, ahead: bool) -> CompiledTape:
        reason, setting = self._reason(key), bool(self._cache.of(key))
        blocks = self._cache.blocks
        tape = CompiledTape(self.function, args, kwargs, self.passes, blocks, self.options)
        self.traces += 1
        dropped = self._cache.add(key, tape)
        miss = Miss(self.traces, reason, tape.milliseconds, dropped)
        self.misses.append(miss)
        if self._made is not None and not ahead:
            self._made.append(Made(self.calls, key, miss, setting))
            self._warn_of_storm(self._made)
        return tape

    def _reason(self, key: Key) -> str:
        """What differs from the nearest tape there is."""
        kept, keys = self._cache.of(key), self._cache.keys
        if not keys:
            return "the first call"
        if kept:
            return "; ".join(gathered(kept[-1].changed()))
        names = parameter_names(self.function)
        nearest = min([differences(k, key, names) for k in keys], key=len)
        return "; ".join(nearest)

    def _warn_of_storm(self, made: Sequence[Made]) -> None:
        """Once, where traces are many for so few calls."""
        if not is_storm(made):
            return
        self._made = None
        found = storm(made, parameter_names(self.function))
        spent = sum(m.miss.milliseconds for m in made) / 1000
        name = getattr(self.function, "__name__", type(self.function).__name__)
        warnings.warn_explicit(
            f"at {user_line()}: {name} was traced {len(made)} times in the last {calls_of(made)} "
            f"calls, which took {spent:.1f} s: {'; '.join(found)}. explain() tells why each trace "
            "was made; this is said once",
            RetraceWarning,
            *user_place(),
        )


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
    max_bytes: int | str = "1GiB",
    memory: int | str | None = None,
    validate: bool = False,
    sanitize: bool = False,
) -> Compiled:
    """`function` (or module) as a program traced once per shape and replayed with NumPy kernels.

    Also usable as a decorator. `exact` keeps to passes that change no bit, so that the result
    equals the eager one with `==` at the same number of BLAS threads. `threads` limits BLAS
    during calls.

    The cache holds at most `max_tapes` tapes, each setting counted, and `max_bytes` of what they
    have for themselves (`tape.nbytes`) and of arrays outside that the latest does not read. It
    drops the one unused for longest; the latest always stays. Bytes are a number or text such as
    "512MB" (millions) or "1.5GiB" (2^30). A function that is traced again and again gives a
    `RetraceWarning`, once, that tells what varies.

    `memory` is the most that the arena of a call may take, in bytes. What would be held longest
    for the time it costs to compute is then computed again where it is read, which changes no
    bit; `tape.recomputed` says what that costs. Compiling takes up to ten times as long. Where no
    plan keeps to the budget, it raises a `MemoryError` with the least that one takes.

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
    check_returns(function)
    _check_count(max_tapes)
    if sanitize and memory is not None:
        raise ValueError(
            "sanitize=True keeps guards between values, which no budget counts: leave out "
            f"sanitize, or memory={memory!r} while memory is checked"
        )
    budget = None if memory is None else budgets.as_bytes(memory)
    kept = budgets.as_bytes(max_bytes, "max_bytes")
    options = Options(budget, validate, sanitize, max_tapes, kept)
    return Compiled(function, EXACT if exact else PIPELINE, threads, options)


def _check_count(max_tapes: int) -> None:
    if not isinstance(max_tapes, SupportsIndex):
        raise TypeError(f"max_tapes is a whole number, not {max_tapes!r}")
    if max_tapes < 1:
        raise ValueError(f"max_tapes is at least 1, not {max_tapes}")
