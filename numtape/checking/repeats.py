"""Whether a function gives the same program when it is traced again.

What a clock, a generator that the function makes itself or anything else outside gives while
tracing is frozen into the tape. A second trace meets another value, and shows where.
"""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

from numtape.checking.compare import same_bits
from numtape.ir.graph import Graph, Value
from numtape.ir.location import user_line
from numtape.tracer.structure import flatten
from numtape.tracer.tensor import Tensor, TraceError
from numtape.tracer.traced import Gradient, Traced, is_place

STATIC = (bool, int, float, complex, str, bytes)  # results that compare by what they are


def check_repeats(first: Traced, again: Callable[[], Traced]) -> Traced:
    """The trace to compile: one that the trace after it equals.

    `TraceError` with the line of the first value that differs, or the static result. The first
    trace may fill caches, which makes the second another program: then a third must equal that.
    """
    second = again()
    if _difference(first, second):
        first, second = second, again()
    if found := _difference(first, second):
        raise TraceError(
            f"at {found} is not the same when the function is traced again: it depends on "
            "something that changes by itself, such as a clock or a random generator made "
            "inside, whose value the tape would repeat; read that outside and pass it as an "
            "argument"
        )
    return first


def _difference(first: Traced, second: Traced) -> str:
    """The line of the first difference and what differs; empty where nothing does."""
    value = next(_differing(first.graph, second.graph), None)
    if value is None:
        value = _other_array(first, second)
    if value is not None:
        return f"{_used_at(value, first.graph)}: {value.op.name} ({value.type})"
    places = [_places(t.graph) for t in (first, second)]
    if _ends(first.graph, places[0]) != _ends(second.graph, places[1]):
        return f"{user_line()}: the choice of what the function returns or assigns"
    return _other_static(first.result, second.result)


def _other_static(first: Any, second: Any) -> str:
    """The first result that is no tensor and differs, with the line of the call."""
    results = [dict(flatten(r, _is_static)) for r in (first, second)]
    for path in dict.fromkeys((*results[0], *results[1])):
        a, b = (found.get(path) for found in results)  # None where there is none
        if type(a) is not type(b) or (a != b and a == a):
            return f"{user_line()}: result{path} ({_said(a)}, then {_said(b)})"
    return ""


def _said(result: Any) -> str:
    return "a tensor" if is_place(result) else repr(result)


def _is_static(result: Any) -> bool:
    return is_place(result) or isinstance(result, STATIC)


def _places(graph: Graph) -> dict[Value, int]:
    return {v: i for i, v in enumerate((*graph.inputs, *graph.nodes))}


def _ends(graph: Graph, places: dict[Value, int]) -> list[int]:
    updated = (v for update in graph.updates for v in update)
    return [places[v] for v in (*graph.outputs, *updated)]


def _differing(first: Graph, second: Graph) -> Iterator[Value]:
    """The values that are computed otherwise, by either graph, in order."""
    places = [_places(g) for g in (first, second)]
    for a, b in zip_longest(first.nodes, second.nodes):
        if a is None or b is None:
            yield b if a is None else a
        elif (a.op, a.type, a.exact) != (b.op, b.type, b.exact) or [
            places[0][x] for x in a.inputs
        ] != [places[1][x] for x in b.inputs]:
            yield a


def _other_array(first: Traced, second: Traced) -> Value | None:
    """The first user of an array or tensor that is another one, with other values, in `second`:
    it was made while tracing, or the function exchanged it for another of its own."""
    inputs = first.graph.inputs[first.arguments :]
    for value, a, b in zip(inputs, first.captured, second.captured, strict=False):
        if a is b or isinstance(a, Gradient) or isinstance(b, Gradient):
            continue
        if not same_bits(*(c._payload if isinstance(c, Tensor) else c for c in (a, b))):
            return value
    return None


def _used_at(value: Value, graph: Graph) -> str:
    """The line of a value; inputs and constants have that of who reads them first, if anyone."""
    users = (n for n in graph.nodes if any(x is value for x in n.inputs))
    return next((str(n.origin) for n in (value, *users) if n.origin.file), user_line())
