"""What happens once and so cannot be replayed: iterators, and functions that yield."""

import gc
import inspect
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set, ValuesView
from functools import partial
from types import FunctionType, GeneratorType, ModuleType
from typing import Any

import numpy as np

from numtape.ir.location import user_line
from numtape.tracer.structure import children, flatten, readable
from numtape.tracer.tensor import Tensor, TraceError

UNKNOWN: Any = object()
_BUILT_IN = ("builtins", "itertools")
_COLLECTIONS = (Mapping, Set, ValuesView, deque)  # that no result is rebuilt from


def check_returns(function: Callable) -> None:
    """`TypeError` for a function (or module) that yields or awaits instead of returning."""
    while isinstance(function, partial):
        function = function.func
    run = getattr(function, "forward", function)
    if inspect.isgeneratorfunction(run):
        raise TypeError(f"{run.__qualname__} gives its results by yield; return a tuple or a list")
    if inspect.iscoroutinefunction(run) or inspect.isasyncgenfunction(run):
        raise TypeError(f"{run.__qualname__} is asynchronous; compile the part that computes")


def is_once(value: Any) -> bool:
    """Whether a value gives items once; a file may, but is as a rule a log."""
    return isinstance(value, Iterator) and not hasattr(value, "write")


def refuse_iterator(what: str, value: Any) -> None:
    """The error for an iterator whose items a trace takes, or may take."""
    raise TraceError(
        f"at {user_line()}: {what} is a {type(value).__name__}, which gives its items once, "
        "and the traced function takes them or can: the tape would repeat the first ones; pass a "
        "list or a tuple, or go through the items outside and pass each as an argument"
    )


def position(iterator: Any) -> Any:
    """What differs once an item is taken; `UNKNOWN` where nothing tells."""
    if isinstance(iterator, GeneratorType):
        state = inspect.getgeneratorstate(iterator)
        return UNKNOWN if state == inspect.GEN_SUSPENDED else state
    if isinstance(iterator, itertools.count):
        return repr(iterator)
    if isinstance(getattr(type(iterator), "__next__", None), FunctionType):
        return _counters(iterator)
    if hasattr(iterator, "__length_hint__") and not isinstance(iterator, itertools.repeat):
        return iterator.__length_hint__()
    if type(iterator).__module__ in _BUILT_IN:  # such as map: tells by what it goes through
        return _all_of([position(inner) for inner in _inner(iterator)])
    return UNKNOWN


def _counters(iterator: Any) -> Any:
    """Of an iterator of a class with its own `__next__`: the numbers and iterators it holds."""
    held = [value for value in getattr(iterator, "__dict__", {}).values() if value is not iterator]
    numbers = tuple(value for value in held if isinstance(value, int))
    return numbers, tuple(position(value) for value in held if is_once(value))


def _inner(iterator: Any) -> list[Any]:
    held = gc.get_referents(iterator)
    return [
        v for part in held for v in (part if isinstance(part, tuple) else [part]) if is_once(v)
    ]


def _all_of(positions: list[Any]) -> Any:
    return tuple(positions) if positions and UNKNOWN not in positions else UNKNOWN


def refuse_late_result(result: Any) -> None:
    """`TraceError` where a part of a traced function's result has yet to run, or hides tensors."""
    for path, leaf in flatten(result, lambda tree: not children(tree)):
        place = f" in its result{path}" if path else ""
        said = f"at {user_line()}: the traced function returns a {type(leaf).__name__}{place}, "
        if isinstance(leaf, Iterator | Awaitable):
            raise TraceError(
                said + "which would run after the trace has ended; return a tuple or a list"
            )
        if _hides_traced([leaf] if isinstance(leaf, _COLLECTIONS) else _held(leaf)):
            raise TraceError(
                said + "whose tensors have no values outside the trace; return a tuple, a list or "
                "a dict of them, or a dataclass"
            )


def _held(value: Any) -> list[Any]:
    """What an object holds in its attributes, a partial call in its arguments."""
    if isinstance(value, partial):
        return [*value.args, *value.keywords.values()]
    if isinstance(value, ModuleType | type | Tensor | np.generic | np.ndarray):
        return []
    return list(getattr(value, "__dict__", {}).values())


def contents_of(arguments: Any) -> dict[str, Any]:
    """What is in all containers among the arguments, by path."""
    return dict(flatten(arguments, lambda tree: not children(tree)))


def refuse_changes(before: dict[str, Any], arguments: Any, names: Sequence[str]) -> None:
    """`TraceError` where a traced function put a tensor into a list, dict or object that it was
    given, or took one out: those are copies, and a tape would not do it again."""
    after = contents_of(arguments)
    for path in (*before, *after):
        old, new = before.get(path), after.get(path)
        if old is not new and (isinstance(old, Tensor) or isinstance(new, Tensor)):
            raise TraceError(
                f"at {user_line()}: the traced function changes what is in its argument "
                f"{readable(path, names)}, which a tape cannot repeat; return what is new instead"
            )


def _hides_traced(collection: Any) -> bool:
    entries = list(collection.values() if isinstance(collection, Mapping) else collection)
    leaves = [leaf for _, leaf in flatten(entries, lambda tree: not children(tree))]
    return any(
        _hides_traced(leaf)
        if isinstance(leaf, _COLLECTIONS)
        else getattr(leaf, "is_traced", False)
        for leaf in leaves
    )
