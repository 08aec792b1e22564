"""The program as data: values in SSA form, the graph they make, and the builder that records it.

A `Value` is a node and its only result. Graphs are immutable; passes build new ones.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from operator import is_
from typing import Any

import numpy as np

from numtape.ir.location import Origin, Scope
from numtape.ir.methods import Methods
from numtape.ir.op import Op, scalar_dtype
from numtape.ir.types import FLOAT, NUMBER, Scalar, Shape, Type


def _no_rule(*_: Any, **__: Any) -> Type:
    raise TypeError("inputs and constants carry their own type")


INPUT = Op("input", _no_rule)
CONSTANT = Op("constant", lambda value, dtype: Type(np.dtype(dtype), ()))


class Value(Methods):
    """One node of a graph: an op on earlier values, and the type of its result."""

    # Shape, dtype and bytes are asked for so often that they are kept beside the type; so is
    # `exact`, the attributes as a key that finds equal ones.
    __slots__ = ("attrs", "dtype", "exact", "inputs", "nbytes", "op", "origin", "shape", "type")
    dtype: np.dtype
    shape: Shape
    nbytes: int
    exact: tuple

    def __init__(
        self,
        op: Op,
        inputs: tuple["Value", ...],
        attrs: Mapping[str, Any],
        type: Type,
        origin: Origin,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.attrs = attrs
        self.type = type
        self.origin = origin
        self.dtype, self.shape, _ = type
        self.nbytes = prod(self.shape) * self.dtype.itemsize
        self.exact = _exactly(attrs) if attrs else ()

    def on(self, inputs: tuple["Value", ...]) -> "Value":
        """The same computation of the same type, on other inputs."""
        other = Value.__new__(Value)
        other.op, other.inputs, other.attrs, other.type = self.op, inputs, self.attrs, self.type
        other.origin, other.dtype, other.shape = self.origin, self.dtype, self.shape
        other.nbytes, other.exact = self.nbytes, self.exact
        return other

    @property
    def is_constant(self) -> bool:
        return self.op is CONSTANT

    @property
    def rows(self) -> Shape:
        """The leading axes along which the op computes its result one by one."""
        if self.op.entrywise:
            return self.shape
        count = self.op.rows(*(v.type for v in self.inputs), **self.attrs) if self.op.rows else 0
        return self.shape[:count]

    def __bool__(self) -> bool:
        raise TypeError("a graph value has no truth value")

    def __repr__(self) -> str:
        return f"<{self.type} {self.op.name}>"


@dataclass(frozen=True, eq=False)
class Region:
    """Neighbouring nodes that run together, a tile of rows at a time.

    rows   the leading axes that all of them have, and along which each is computed one by one.
    """

    nodes: tuple[Value, ...]
    rows: Shape


def divisible(rows: Shape, deepest: int) -> Shape:
    """The rows that tiles may divide: not the last of several axes."""
    return rows[: max(1, deepest - 1)]


@dataclass(frozen=True, eq=False)
class Graph:
    """A straight-line program.

    inputs    values given from outside, in order, each with its name in `names`.
    nodes     everything else in an order in which it can be computed, constants included.
    outputs   what the program returns.
    updates   (input, value): at the end, the input's storage takes the value.
    early     (inputs, outputs): the first so many outputs are returned before the inputs after
              the first so many arrive, as for a forward and a reverse tape in one graph. None
              where there is one tape.
    regions   nodes that are run together, as `fusion` has grouped them.
    """

    name: str
    inputs: tuple[Value, ...]
    names: tuple[str, ...]
    nodes: tuple[Value, ...]
    outputs: tuple[Value, ...]
    updates: tuple[tuple[Value, Value], ...] = ()
    early: tuple[int, int] | None = None
    regions: tuple[Region, ...] = ()

    @property
    def results(self) -> tuple[Value, ...]:
        """Everything that must be computed: outputs, then updates."""
        return (*self.outputs, *(new for _, new in self.updates))

    @cached_property
    def operations(self) -> int:
        """Number of nodes that are not constants."""
        return sum([v.op is not CONSTANT for v in self.nodes])

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all results of the nodes that are not views."""
        return sum([v.nbytes for v in self.nodes if v.op.view is None and v.op is not CONSTANT])

    def __str__(self) -> str:
        return to_text(self)


class Builder:
    """Records operations as nodes. The interpreter under which passes and expansions run.

    With `number`, equal computations become one value: the table is common-subexpression
    elimination. `simplify(op, inputs, attrs)` may answer with an equal value to use instead.
    """

    def __init__(self, number: bool = False, simplify: Any = None) -> None:
        self.inputs: list[Value] = []
        self.names: list[str] = []
        self.nodes: list[Value] = []
        self.scope = Scope()
        self._table: dict[Any, Value] | None = {} if number else None
        self._simplify = simplify
        self._constants: dict[tuple, Value] = {}

    def input(self, type: Type, name: str) -> Value:
        value = Value(INPUT, (), {}, type, Origin())
        self.inputs.append(value)
        self.names.append(name)
        return value

    def keep_input(self, value: Value, name: str) -> Value:
        """An input of another graph as one of this."""
        if value.type.weak:
            return self.input(_settled(value.type), name)
        self.inputs.append(value)
        self.names.append(name)
        return value

    def constant(self, number: Scalar, dtype: np.dtype, weak: bool = False) -> Value:
        key = (_exact(number), type(number), dtype, weak)
        if key not in self._constants:
            attrs = {"value": number, "dtype": dtype}
            self._constants[key] = self._append(
                CONSTANT, (), attrs, Type(dtype, (), weak), Origin()
            )
        return self._constants[key]

    def lift(self, value: Any, dtype: np.dtype | None = None) -> Value:
        if isinstance(value, Value):
            if value.type.weak and value.is_number:
                return value.astype(FLOAT if dtype is None else dtype)
            return value if dtype is None or value.dtype == dtype else value.astype(dtype)
        return self.constant(value, dtype if dtype is not None else scalar_dtype(value))

    def number(self, value: Any) -> Value:
        return value if isinstance(value, Value) else self.constant(value, NUMBER, weak=True)

    def run(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value:
        if op is CONSTANT:
            return self.constant(attrs["value"], attrs["dtype"])
        if self._simplify is not None:
            found = self._simplify(op, inputs, attrs)
            if found is not None:
                return found
        if self._table is None:
            return self._made(op, inputs, attrs)
        key = (op, inputs, _exactly(attrs) if attrs else ())
        found = self._table.get(key)
        if found is None:
            found = self._table[key] = self._made(op, inputs, attrs)
        return found

    def keep(self, node: Value, inputs: tuple[Value, ...]) -> Value:
        """A node of another graph on these inputs: the same where they are its own.

        What replaces it comes from where it does.
        """
        if node.op is CONSTANT:
            return self._keep_constant(node)
        self.scope.inherited = node.origin
        if self._simplify is not None:
            found = self._simplify(node.op, inputs, node.attrs)
            if found is not None:
                return found
        if self._table is None:
            return self._kept(node, inputs)
        key = (node.op, inputs, node.exact)
        found = self._table.get(key)
        if found is None:
            found = self._table[key] = self._kept(node, inputs)
        return found

    def _made(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value:
        result = op.type_of([v.type for v in inputs], attrs)
        return self._append(op, inputs, attrs, result, self.scope.origin())

    def _kept(self, node: Value, inputs: tuple[Value, ...]) -> Value:
        """The node on values equal to its inputs, so of the same type."""
        if node.type.weak:
            node = Value(node.op, inputs, node.attrs, _settled(node.type), node.origin)
        elif not all(map(is_, inputs, node.inputs)):
            node = node.on(inputs)
        self.nodes.append(node)
        return node

    def _keep_constant(self, node: Value) -> Value:
        number, dtype = node.attrs["value"], node.attrs["dtype"]
        if node.type.weak:
            return self.constant(number, dtype)
        key = (_exact(number), type(number), dtype, False)
        if key not in self._constants:
            self._constants[key] = node
            self.nodes.append(node)
        return self._constants[key]

    def _append(
        self,
        op: Op,
        inputs: tuple[Value, ...],
        attrs: Mapping[str, Any],
        type: Type,
        origin: Origin,
    ) -> Value:
        value = Value(op, inputs, attrs, type, origin)
        self.nodes.append(value)
        return value

    def finish(
        self,
        name: str,
        outputs: Iterable[Value],
        updates: Iterable[tuple[Value, Value]] = (),
        early: tuple[int, int] | None = None,
    ) -> Graph:
        return Graph(
            name,
            tuple(self.inputs),
            tuple(self.names),
            tuple(self.nodes),
            tuple(outputs),
            tuple(updates),
            early,
        )


def _settled(type: Type) -> Type:
    """Where Python numbers meet tensors is settled by casts: from then on they are any scalars."""
    return type._replace(weak=False)


def _exact(value: Any) -> Any:
    """A key that tells 0.0 from -0.0, and finds NaN again."""
    return repr(value) if type(value) is float else value


def _exactly(attrs: Mapping[str, Any]) -> tuple:
    return tuple([(k, _exact(v)) for k, v in attrs.items()])


def replay(graph: Graph, inputs: Sequence[Any], run: Any) -> dict[Value, Any]:
    """Every value of the graph under another meaning: `run(node, its inputs)` gives each."""
    known: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
    look_up = known.__getitem__
    for node in graph.nodes:
        known[node] = run(node, tuple(map(look_up, node.inputs)))
    return known


def ancestors(results: Iterable[Any], stops: Collection[Any] = ()) -> set[Any]:
    """The values (or tensors) from which the results are computed, themselves included; not
    those behind `stops`."""
    found: set[Any] = set()
    pending = list(results)
    while pending:
        value = pending.pop()
        if value not in found:
            found.add(value)
            pending.extend(() if value in stops else value.inputs)
    return found


def root_of(value: Value) -> Value:
    """What a view looks at in the end."""
    while value.op.view is not None:
        (value,) = value.inputs
    return value


def independent(graph: Graph) -> set[Value]:
    """The nodes that depend on no input."""
    found: set[Value] = set()
    for node in graph.nodes:
        if found.issuperset(node.inputs):
            found.add(node)
    return found


def first_part(graph: Graph, nodes: Sequence[Value]) -> int:
    """How many of the nodes, in order, belong to the first of two tapes.

    All up to the last that an early output or an update needs, or that reads storage before it
    is updated; what stands between those reads nothing that arrives late.
    """
    if graph.early is None:
        return len(nodes)
    needed = ancestors((*graph.outputs[: graph.early[1]], *(new for _, new in graph.updates)))
    updated = {old for old, _ in graph.updates}
    needed |= {v for v in nodes if not updated.isdisjoint(map(root_of, v.inputs))}
    return max((i + 1 for i, v in enumerate(nodes) if v in needed), default=0)


def users(graph: Graph) -> dict[Value, list[Value]]:
    """The nodes that read each value."""
    found: dict[Value, list[Value]] = {v: [] for v in (*graph.inputs, *graph.nodes)}
    for node in graph.nodes:
        for v in dict.fromkeys(node.inputs):
            found[v].append(node)
    return found


# ---- text ---------------------------------------------------------------------------------


def numbering(graph: Graph) -> dict[Value, str]:
    """`%0`, `%1` ... for inputs and nodes; constants are written where they are used."""
    counted = [v for v in (*graph.inputs, *graph.nodes) if v.op is not CONSTANT]
    names = {v: f"%{i}" for i, v in enumerate(counted)}
    names |= {v: str(v.attrs["value"]) for v in graph.nodes if v.op is CONSTANT}
    return names


def line(value: Value, names: Mapping[Value, str]) -> str:
    """One node as text: `%7: f32[8,4] = matmul(%3, %5)   # mlp.py:14 encoder.layers.0`."""
    arguments = [names[v] for v in value.inputs]
    arguments += [f"{k}={v}" for k, v in value.attrs.items()]
    text = f"{names[value]}: {value.type} = {value.op.name}({', '.join(arguments)})"
    note = str(value.origin)
    return f"{text}   # {note}" if note else text


def to_text(graph: Graph) -> str:
    """The whole graph, a line a node."""
    names = numbering(graph)
    lines = [f"graph {graph.name}"]
    lines += [
        f"  {names[v]}: {v.type} = input {name!r}"
        for v, name in zip(graph.inputs, graph.names, strict=True)
    ]
    lines += _body(graph, names)
    lines.append(f"  return {', '.join(names[v] for v in graph.outputs)}")
    lines += [f"  update {names[old]} <- {names[new]}" for old, new in graph.updates]
    return "\n".join(lines)


def _body(graph: Graph, names: Mapping[Value, str]) -> list[str]:
    """A line a node; those of a region behind a line of their own, and further in."""
    region_of = {v: region for region in graph.regions for v in region.nodes}
    lines = []
    for v in graph.nodes:
        region = region_of.get(v)
        if region is not None and v is region.nodes[0]:
            lines.append(f"  tiles of rows {list(region.rows)}")
        if not v.is_constant:
            lines.append(f"  {'  ' if region is not None else ''}{line(v, names)}")
    return lines
