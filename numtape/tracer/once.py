"""What happens once and so cannot be replayed: iterators, and functions that yield."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from numtape.ir.location import user_line
from numtape.tracer.structure import children, flatten
from numtape.tracer.tensor import TraceError


def check_returns(function: Callable) -> None:
    """`TypeError` for a function (or module) that yields or awaits instead of returning."""
    run = getattr(function, "forward", function)
    if inspect.isgeneratorfunction(run):
        raise TypeError(f"{run.__qualname__} gives its results by yield; return a tuple or a list")
    if inspect.iscoroutinefunction(run) or inspect.isasyncgenfunction(run):
        raise TypeError(f"{run.__qualname__} is asynchronous; compile the part that computes")


def refuse_iterator(what: str, value: Any) -> None:
    """`TraceError` where what a traced function can read is an iterator."""
    if isinstance(value, Iterator) and not hasattr(value, "write"):  # a file may be a log
        raise TraceError(
            f"at {user_line()}: {what} is a {type(value).__name__}, which gives its items once, "
            "and the traced function can read it: the tape would repeat the first ones; pass a "
            "list or a tuple, or go through the items outside and pass each as an argument"
        )


def refuse_late_result(result: Any) -> None:
    """`TraceError` where a part of a traced function's result has yet to run."""
    for path, leaf in flatten(result, lambda tree: not children(tree)):
        if isinstance(leaf, Iterator | Awaitable):
            place = f" in its result{path}" if path else ""
            raise TraceError(
                f"at {user_line()}: the traced function returns a {type(leaf).__name__}{place}, "
                "which would run after the trace has ended; return a tuple or a list"
            )
