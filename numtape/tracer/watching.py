"""What a function closes over: numbers, tensors, containers and objects a trace would freeze.

Each becomes a watch, so that a changed global, closure variable or attribute means a new trace,
never a stale answer. User functions called from the function are looked into in turn.
"""

from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from numtape.ir.location import PACKAGE, is_user_file
from numtape.tracer.holder import _entries
from numtape.tracer.tensor import Tensor
from numtape.tracer.traced import Watch

_NUMBERS = (bool, int, float, str, bytes)
_LEAVES = (*_NUMBERS, type(None), np.generic, Tensor, np.ndarray)
LONGEST = 1000  # entries of a container that is watched: a longer one is data, not settings

_Read = Callable[[], Any]
_Seen = set[tuple[int, str]]


def watches(function: Callable, seen: _Seen | None = None) -> Iterator[Watch]:
    """Watches on the scalars and the identity of tensors and arrays that `function` can read."""
    seen = set() if seen is None else seen
    instance, plain = _plain(function)
    if plain is None or (id(plain), "") in seen:
        return
    seen.add((id(plain), ""))
    mentioned = sorted(set(_names(plain.__code__)))
    for name, read in _variables(plain):
        yield from _watched(f"the variable {name}", read, mentioned, seen)
    if instance is not None:
        yield from _attributes("the attribute self", instance, mentioned, seen)


def _plain(function: Any) -> tuple[Any, FunctionType | None]:
    """The user's function behind methods, partial calls and wrappers, and the method's object."""
    instance = None
    while True:
        if isinstance(function, MethodType):
            instance, function = function.__self__, function.__func__
        elif isinstance(function, partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            break
    own = isinstance(function, FunctionType)
    return instance, function if own and not _is_package(function) else None


def _is_package(function: FunctionType) -> bool:
    return function.__code__.co_filename.startswith(PACKAGE)


def _watched(what: str, read: _Read, mentioned: list[str], seen: _Seen) -> Iterator[Watch]:
    value = read()
    if isinstance(value, _LEAVES):
        yield Watch(what, read, value)
    elif isinstance(value, list | tuple | dict):
        if len(value) <= LONGEST:
            yield Watch(what, lambda: _entries(read()), _entries(value))
    elif _plain(value)[1] is not None:
        yield Watch(what, lambda: _plain(read())[1], _plain(value)[1])
        yield from watches(value, seen)
    else:
        yield from _attributes(what, value, mentioned, seen)


def _attributes(what: str, instance: Any, mentioned: list[str], seen: _Seen) -> Iterator[Watch]:
    """Those attributes of an object, or of a module of the user's, that the code mentions."""
    if not _may_change(instance):
        return
    for name in mentioned:
        if (id(instance), name) in seen:
            continue
        seen.add((id(instance), name))
        inherited = getattr(type(instance), name, None)
        if name in vars(instance) or isinstance(inherited, _NUMBERS):
            read = _attribute(instance, name)
            yield from _watched(f"{what}.{name}", read, mentioned, seen)
        elif isinstance(inherited, FunctionType):
            yield from watches(getattr(instance, name), seen)


def _may_change(instance: Any) -> bool:
    """Whether it has attributes that users set: installed modules and classes do not change."""
    if isinstance(instance, ModuleType):
        file = getattr(instance, "__file__", None) or ""
        return is_user_file(file) and "site-packages" not in file and bool(file)
    return hasattr(instance, "__dict__") and not isinstance(instance, type)


def _attribute(instance: Any, name: str) -> _Read:
    return lambda: getattr(instance, name, None)


def _variables(function: FunctionType) -> Iterator[tuple[str, _Read]]:
    """Closure cells and globals that the code names, each with a way to read it."""
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        yield name, _cell(cell)
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield name, _global(function.__globals__, name)


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes that the code or a function defined in it mentions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _cell(cell: Any) -> _Read:
    def read() -> Any:
        try:
            return cell.cell_contents
        except ValueError:  # not yet assigned
            return None

    return read


def _global(names: dict[str, Any], name: str) -> _Read:
    return lambda: names.get(name)
