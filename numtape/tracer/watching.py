"""What a function can read beyond its arguments, and a trace would freeze: each becomes a watch.

Variables, settings of objects and classes, entries of containers and small arrays: a change of one
means a new trace, never a stale answer. What the function calls is looked into in turn.
"""

import dis
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import chain
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from numtape.ir.location import is_user_file
from numtape.tracer.chance import GENERATORS
from numtape.tracer.contents import fingerprint, sample
from numtape.tracer.holder import Holder, mark
from numtape.tracer.once import UNKNOWN, is_once, position, refuse_iterator
from numtape.tracer.structure import children, flatten
from numtape.tracer.tensor import Tensor
from numtape.tracer.traced import Watch

_LEAVES = (bool, int, float, str, bytes, type(None), np.generic, Tensor)
_METHODS = (FunctionType, staticmethod, classmethod, property, cached_property)
_CONTAINERS = (list, tuple, dict, set, frozenset)
LONGEST = 1000  # entries of a container that is watched: a longer one is data, not settings
SMALL = 1 << 16  # bytes of an array of which all are compared at each call
LARGEST = 1 << 24  # bytes of an array that is gone through at each call; of others, samples

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")

_Read = Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Content(Watch):
    """The bytes of an array, which NumPy may have read while the function was traced."""

    array: np.ndarray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, eq=False)
class Items(Watch):
    """How far an iterator has gone: only a trace that takes none of its items can be replayed."""

    iterator: Any = None


@dataclass(frozen=True, eq=False)
class Entries(Watch):
    """The entries of the container in `source`; where that still is `same` they cannot differ."""

    source: _Read = lambda: None
    same: Any = None

    def holds(self) -> bool:
        return (self.same is not None and self.source() is self.same) or super().holds()


def _is_fixed(container: Any) -> bool:
    return isinstance(container, tuple) and not any(isinstance(e, _CONTAINERS) for e in container)


def watches(
    function: Callable, args: tuple = (), kwargs: Mapping | None = None
) -> tuple[list[Watch], list[Any]]:
    """Watches on all that `function` can read, and its static arguments with it; and the
    generators of random numbers among that.

    Raises `TraceError` for an iterator as argument, or one that does not tell whether the
    function takes its items, which come once; where it does, `lasting` raises.
    """
    arguments = flatten((args, dict(kwargs or {})), lambda tree: not children(tree))
    static = [value for _, value in arguments if not isinstance(value, np.ndarray)]
    for value in filter(is_once, static):
        refuse_iterator("an argument", value)
    names: set[str] = set()
    while True:
        walk = _Walk(names)
        found = list(walk.inside("the function", function))
        found += chain.from_iterable(walk.inside("an argument", value) for value in static)
        if walk.names == names:
            return found, walk.generators
        names = walk.names  # an object may be read by a function that it is passed to


def lasting(found: Iterable[Watch], captured: Iterable[Any]) -> tuple[Watch, ...]:
    """The watches that matter once a trace has `captured` the arrays that tapes read anew.

    A container that the function itself fills, such as a log, is not what it depends on. Raises
    `TraceError` where the trace took items of an iterator.
    """
    found = list(found)
    for watch in found:
        if isinstance(watch, Items) and not watch.holds():
            refuse_iterator(watch.what, watch.iterator)
    arrays = [getattr(c, "_payload", c) for c in captured if isinstance(c, Tensor | np.ndarray)]

    def read_anew(watch: Watch) -> bool:
        return isinstance(watch, Content) and any(
            np.may_share_memory(watch.array, array) for array in arrays
        )

    def changed_inside(watch: Watch) -> bool:
        return isinstance(watch.seen, tuple | bytes) and not watch.holds()

    kept = (watch for watch in found if not isinstance(watch, Items))
    return tuple(w for w in kept if not read_anew(w) and not changed_inside(w))


class _Walk:
    """One walk over what a function can reach; of objects, the attributes with these names."""

    def __init__(self, names: set[str]) -> None:
        self._mentioned = names
        self.names = set(names)
        self.generators: list[Any] = []
        self._seen: set[tuple[int, int | str]] = set()

    def _first_time(self, value: Any, key: int | str = "") -> bool:
        before = len(self._seen)
        self._seen.add((id(value), key))
        return len(self._seen) > before

    def watched(self, what: str, read: _Read, counted: bool = False) -> Iterator[Watch]:
        """A watch on the value that is read, and those on what is inside it."""
        value = read()
        if isinstance(value, ModuleType) and not _is_own(value):
            return  # numpy stays numpy
        if isinstance(value, _CONTAINERS) and len(value) <= LONGEST:
            same = value if _is_fixed(value) else None
            yield Entries(what, lambda: mark(read()), mark(value), source=read, same=same)
        elif isinstance(value, MethodType | partial):
            yield Watch(what, lambda: _parts(read()), _parts(value))
        else:
            yield Watch(what, read, value, counted)
        yield from self.inside(what, value)

    def inside(self, what: str, value: Any) -> Iterator[Watch]:
        """Watches on what can change while the value stays the same object."""
        if isinstance(value, _LEAVES):
            return
        if is_once(value):
            yield _items(what, value)
        if isinstance(value, np.ndarray):
            if self._first_time(value):
                yield _content(what, value)
        elif isinstance(value, GENERATORS):
            self.generators.append(value)
        elif isinstance(value, _CONTAINERS):
            if len(value) <= LONGEST and self._first_time(value):
                yield from self._entries(what, value)
        else:
            yield from self._called(value)
            if not isinstance(value, ModuleType | type) or _is_own(value):
                yield from self._attributes(what, value)
            if isinstance(value, Holder) and self._first_time(value, "held"):
                # Modules of the user's may lie below one of numtape's, which calls them.
                for held in _holders(list(vars(value).values())):
                    yield from self.inside(what, held)

    def _entries(self, what: str, container: Any) -> Iterator[Watch]:
        pairs = container.items() if isinstance(container, dict) else enumerate(container)
        for key, entry in pairs:
            yield from self.inside(f"{what}[{key!r}]", entry)

    def _called(self, value: Any, instance: Any = None) -> Iterator[Watch]:
        """What the functions read that run where the value is called."""
        if isinstance(value, partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                yield from self.inside("the partial call", part)
        for owner, function in _functions(value, instance):
            if self._first_time(function, id(owner)):
                yield from self._function(function)
                if owner is not None:
                    yield from self.inside("self", owner)

    def _function(self, function: FunctionType) -> Iterator[Watch]:
        self.names.update(_names(function.__code__))
        for name, read in _variables(function):
            if self._first_time(function, name):
                yield from self.watched(f"the variable {name}", read)
        for default in (function.__defaults__ or ()), (function.__kwdefaults__ or {}).values():
            for value in default:
                yield from self.inside("a default", value)

    def _attributes(self, what: str, instance: Any) -> Iterator[Watch]:
        cls = instance if isinstance(instance, type) else type(instance)
        own = {} if instance is cls else getattr(instance, "__dict__", {})
        inherited = _inherited(cls)
        for name in sorted(self._mentioned & (own.keys() | inherited.keys())):
            if not self._first_time(instance, name):
                continue
            if name in own or _is_setting(inherited[name]):
                counted = isinstance(instance, Holder) and (name in own or not _is_own(cls))
                read = _attribute(instance, name)
                yield from self.watched(f"{what}.{name}", read, counted)
            else:
                yield from self._called(inherited[name], instance)


def _content(what: str, array: np.ndarray) -> Content:
    """A watch on the entries: on all bytes, on their sum, or on samples, by the size."""
    read: _Read = array.tobytes
    if array.nbytes > SMALL:
        summed = array.nbytes <= LARGEST and array.dtype.kind in "fiub" and array.itemsize <= 8
        read = partial(fingerprint if summed else sample, array)
    return Content(f"the content of {what}", read, read(), array=array)


def _items(what: str, iterator: Any) -> Items:
    now = position(iterator)
    if now is UNKNOWN:
        refuse_iterator(what, iterator)
    return Items(what, partial(position, iterator), now, iterator=iterator)


def _holders(value: Any) -> Iterator[Holder]:
    if isinstance(value, Holder):
        yield value
    elif isinstance(value, list | tuple | dict):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _holders(entry)


def _functions(value: Any, instance: Any) -> Iterator[tuple[Any, FunctionType]]:
    """The user's functions that a call of the value runs, each with the object it is bound to."""
    if isinstance(value, MethodType | staticmethod | classmethod):
        instance = value.__self__ if isinstance(value, MethodType) else instance
        yield from _functions(value.__func__, instance)
        return
    if isinstance(value, property | cached_property):
        value = value.fget if isinstance(value, property) else value.func
    if isinstance(value, FunctionType):
        if is_user_file(value.__code__.co_filename):
            yield instance, value
    elif not isinstance(value, type):
        for name in ("forward", "__call__"):
            bases = (vars(base) for base in type(value).__mro__)
            method = next((own[name] for own in bases if name in own), None)
            if isinstance(method, FunctionType):
                yield from _functions(method, value)
    wrapped = getattr(value, "__dict__", {}).get("__wrapped__")
    if wrapped is not None:
        yield from _functions(wrapped, instance)


def _is_own(value: Any) -> bool:
    """Whether a module or class is the user's: those of installed packages do not change."""
    name = value.__name__ if isinstance(value, ModuleType) else value.__module__
    return name == "__main__" or _is_own_module(name)


def _is_own_module(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return bool(file) and is_user_file(file) and "site-packages" not in file


def _is_setting(inherited: Any) -> bool:
    """Whether a class's attribute is a value, and none that runs code when it is read."""
    return not hasattr(type(inherited), "__get__") or isinstance(inherited, MemberDescriptorType)


def _inherited(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(vars(base))
    return found


def _parts(value: Any) -> Any:
    """What tells a bound method or partial call from another: they are made anew so easily."""
    if isinstance(value, MethodType):
        return mark((value.__func__, value.__self__))
    if isinstance(value, partial):
        return mark((value.func, value.args, value.keywords))
    return value


def _attribute(instance: Any, name: str) -> _Read:
    return lambda: getattr(instance, name, None)


def _variables(function: FunctionType) -> Iterator[tuple[str, _Read]]:
    """Closure cells and globals that the code names, each with a way to read it."""
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        yield name, _cell(cell)
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield name, _global(function.__globals__, name)


@lru_cache(maxsize=1024)
def _global_names(code: CodeType) -> tuple[str, ...]:
    """Names that the code or a function defined in it reads as variables, not as attributes."""
    own = (i.argval for i in dis.get_instructions(code) if i.opname in _LOADS)
    inner = (n for c in code.co_consts if isinstance(c, CodeType) for n in _global_names(c))
    return tuple(dict.fromkeys((*own, *inner)))


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes that the code or a function defined in it mentions."""
    yield from code.co_names
    if "getattr" in code.co_names:  # whatever text there is may name an attribute
        yield from (c for c in code.co_consts if isinstance(c, str) and c.isidentifier())
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
