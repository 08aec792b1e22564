"""Whether a function gives the same program when it is traced again.

What a clock, a generator that the function makes itself or anything else outside gives while
tracing is frozen into the tape. A second trace meets another value, and shows where.
"""

from collections.abc import Callable, Iterator
from itertools import zip_longest

import numpy as np

from numtape.checking.compare import same_bits
from numtape.ir.graph import Graph, Value
from numtape.ir.location import Origin
from numtape.tracer.tensor import TraceError
from numtape.tracer.traced import Traced


def check_repeats(traced: Traced, again: Callable[[], Traced]) -> None:
    """`TraceError` with the line of the first value that differs between two traces.

    The first trace may fill caches, which makes the second another program: then a third decides.
    """
    second = again()
    if next(_differing(traced.graph, second.graph), None) is not None:
        traced, second = second, again()
    value = next(_differing(traced.graph, second.graph), None)
    if value is None:
        value = _other_array(traced, second)
    if value is not None:
        raise TraceError(
            f"at {_used_at(value, traced.graph)}: {value.op.name} ({value.type}) is not the same "
            "when the function is traced again: it depends on something that changes by itself, "
            "such as a clock or a random generator made inside, whose value the tape would "
            "repeat; read that outside and pass it as an argument"
        )


def _differing(first: Graph, second: Graph) -> Iterator[Value]:
    """The values that are computed otherwise, by either graph, in order."""
    places = [{v: i for i, v in enumerate((*g.inputs, *g.nodes))} for g in (first, second)]
    for a, b in zip_longest(first.nodes, second.nodes):
        if a is None or b is None:
            yield b if a is None else a
        elif (a.op, a.type, a.exact) != (b.op, b.type, b.exact) or [
            places[0][x] for x in a.inputs
        ] != [places[1][x] for x in b.inputs]:
            yield a


def _other_array(first: Traced, second: Traced) -> Value | None:
    """The first user of an array that NumPy made while tracing, and made otherwise again."""
    inputs = first.graph.inputs[first.arguments :]
    for value, a, b in zip(inputs, first.captured, second.captured, strict=False):
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and not same_bits(a, b):
            return value
    return None


def _used_at(value: Value, graph: Graph) -> Origin:
    """The line of a value; inputs and constants have that of who reads them first."""
    users = (n for n in graph.nodes if any(x is value for x in n.inputs))
    return next((n.origin for n in (value, *users) if n.origin.file), value.origin)
