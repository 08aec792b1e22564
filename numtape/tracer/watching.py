"""What a function closes over: numbers, tensors and modules that a trace would freeze.

Each becomes a watch, so that a changed global or closure variable means a new trace, never a
stale answer. User functions called from the function are looked into in turn.
"""

from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from numtape.ir.location import PACKAGE
from numtape.tracer.tensor import Tensor
from numtape.tracer.trace import Watch

_SCALARS = (bool, int, float, str, bytes, type(None), np.generic)


def watches(function: Callable, seen: set[int] | None = None) -> Iterator[Watch]:
    """Watches on the scalars and the identity of tensors and arrays that `function` can read."""
    seen = set() if seen is None else seen
    if isinstance(function, MethodType):
        yield from _of_instance(function.__self__)
        function = function.__func__
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, FunctionType) or id(function) in seen:
        return
    if function.__code__.co_filename.startswith(PACKAGE):
        return
    seen.add(id(function))
    for name, read in _variables(function):
        value = read()
        if isinstance(value, (*_SCALARS, Tensor, np.ndarray)):
            yield Watch(f"the variable {name}", read, value)
        elif isinstance(value, FunctionType | MethodType):
            yield Watch(f"the function {name}", read, value)
            yield from watches(value, seen)


def _of_instance(instance: Any) -> Iterator[Watch]:
    for name, value in getattr(instance, "__dict__", {}).items():
        if isinstance(value, (*_SCALARS, Tensor, np.ndarray)):
            yield Watch(f"the attribute {name}", _attribute(instance, name), value)


def _attribute(instance: Any, name: str) -> Callable[[], Any]:
    return lambda: getattr(instance, name, None)


def _variables(function: FunctionType) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Closure cells and globals that the code names, each with a way to read it."""
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        yield name, _cell(cell)
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield name, _global(function.__globals__, name)


def _names(code: CodeType) -> Iterator[str]:
    """Global names that the code or a function defined in it mentions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _cell(cell: Any) -> Callable[[], Any]:
    def read() -> Any:
        try:
            return cell.cell_contents
        except ValueError:  # not yet assigned
            return None

    return read


def _global(names: dict[str, Any], name: str) -> Callable[[], Any]:
    return lambda: names.get(name)
