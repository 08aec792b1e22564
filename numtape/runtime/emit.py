"""Writing a plan out as Python source: one line per kernel, `out=` always given.

`bind` makes every view over one arena, once; the functions inside it are the tapes. A person can
read the result, step through it with pdb and profile it by line.
"""

import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np

from numtape.ir.graph import Value, numbering
from numtape.ir.memory import end_to_end
from numtape.ir.types import Shape, dtype_name
from numtape.runtime.loops import LETTERS, Loop
from numtape.runtime.lowering import Argument, Call, function_name, lower
from numtape.runtime.plan import Plan
from numtape.runtime.tiles import Tiles


class Line(NamedTuple):
    """A line of a tape: its text, its node and what it reads, and the arrays by their names."""

    text: str
    node: Value
    reads: tuple[Value, ...]
    inputs: tuple[str, ...]
    out: str


class Hooks(Protocol):
    """What profiles and checks write round the lines of the tapes; `names` are what they call."""

    names: tuple[str, ...]

    def around(self, line: Line) -> list[str]:
        """The lines to write in place of one."""


def emit(plan: Plan, hooks: Hooks | None = None) -> tuple[str, dict[str, Any]]:
    """The source of `bind`, and the names it needs besides `np` and those that hooks call."""
    return _Emitter(plan, hooks).write()


# Views that are bound by a method, which takes half of the time of the function.
_METHODS = {np.reshape: "reshape", np.transpose: "transpose"}


class _Emitter:
    def __init__(self, plan: Plan, hooks: Hooks | None) -> None:
        self.plan = plan
        self.hooks = hooks
        self.places, self.owner, self.tiles = plan.places, plan.owner, plan.lives.tiles
        self.numbers = numbering(plan.graph)
        self.names: dict[Value, str] = {}
        self.bound: list[str] = []
        self.needs: dict[str, Any] = {}
        self.functions: dict[Callable, str] = {}
        self.makers: dict[np.dtype, str] = {}  # of arrays over the arena
        self.reshaped: dict[tuple[str, Shape], str] = {}
        self.fixed = set(plan.fixed)
        self.tiled = {node: tiles for tiles in plan.tilings for node in tiles.nodes}
        self.loops = {tiles: f"tiles_{i}" for i, tiles in enumerate(plan.tilings, 1)}
        self.lines: dict[tuple[str, int], str] = {}  # of the model, as text
        self.section: tuple[str, bool] = "", False  # module, and whether of the gradient
        self.parts = ("forward" if plan.graph.early else "step", "None", "None")
        self.used = {
            "arena",
            "constants",
            "np",
            "bind",
            "step",
            "forward",
            "update",
            "reverse",
            "arguments",
            "outputs",
            "range",
            *LETTERS,
            *(f"tiles_{i}" for i in range(1, len(plan.tilings) + 1)),
            *(hooks.names if hooks else ()),
        }

    # ---- the whole -------------------------------------------------------------------------

    def write(self) -> tuple[str, dict[str, Any]]:
        plan, graph = self.plan, self.plan.graph
        self._name_inputs()
        self._bind_nodes()
        tapes = self._tapes()  # may bind further views, so before `bound` is written
        outside = set(plan.outside)
        arguments = [self.names[v] for v in graph.inputs if v not in outside]
        names = ", ".join(self.parts)
        lines = [
            f'"""{plan.summary}."""',
            "",
            "import numpy as np",
            "",
            "",
            *_signature(["arena", "constants", *(self.names[v] for v in plan.outside)]),
            # Also for Python's compiler, which puts an instruction for each name that tapes share
            # in front of the first stretch without jumps: one by one, and all of it moves on.
            f"    assert arena.nbytes >= {plan.memory.arena}",
            *self._indented(self._makers()),
            "",
            *self._indented(self.bound),
            "",
            *self._indented(tapes),
            "",
            f"    arguments = {_tuple(arguments)}",
            f"    outputs = {_tuple([self._array(v) for v in graph.outputs])}",
            f"    return arguments, outputs, {names}",
            "",
        ]
        return "\n".join(lines), self.needs

    def _bind_nodes(self) -> None:
        """Views over the arena for all results, and the nodes that are computed only once."""
        fixed, work = self.fixed, set(self.plan.order)
        for node in self.plan.graph.nodes:
            if node in fixed or node in work:
                self._bind_result(node)
            elif not node.is_constant and node not in self.plan.joins:
                self._bind_view(node)
            if node in fixed:
                self.bound.append(self._line(node))

    def _tapes(self) -> list[str]:
        """The function that writes no storage, the one that does, and that of the reverse part."""
        plan, (name, *_) = self.plan, self.parts
        copies = [pair for pair in plan.graph.updates if pair[0] not in plan.direct]
        lines = self._function(name, plan.order[: plan.commit])
        update = reverse = "None"
        if plan.graph.updates:
            update = "update"
            lines += ["", *self._function(update, plan.order[plan.commit : plan.first], copies)]
        if plan.graph.early:
            reverse = "reverse"
            lines += ["", *self._function(reverse, plan.order[plan.first :])]
        self.parts = name, update, reverse
        return lines

    def _function(
        self, name: str, nodes: Iterable[Value], copies: Iterable[tuple[Value, Value]] = ()
    ) -> list[str]:
        lines, self.section = [], ("", False)
        for tiles, part in groupby(nodes, self.tiled.get):
            lines += self._section(part) if tiles is None else self._loop(tiles)
        for old, new in copies:
            lines += self._copy_update(old, new)
        return [f"def {name}():", *self._indented(lines or ["pass"])]

    def _loop(self, tiles: Tiles) -> list[str]:
        """The lines of a region, run for every tile."""
        loop = Loop(self.loops[tiles], tiles, self.names, self._part, self._held)
        lines = self._section(tiles.nodes, loop)
        self.bound += loop.bound
        return [loop.head, *self._indented(lines)]

    def _section(self, nodes: Iterable[Value], loop: Loop | None = None) -> list[str]:
        """The lines of nodes, with a heading wherever another module begins."""
        lines = []
        for node in nodes:
            if node.origin[2:] != self.section:
                self.section = module, reverse = node.origin[2:]
                here = f"{module} {'grad' if reverse else ''}".strip()
                lines.append(f"# ---- {here or 'outside any module'}")
            lines += self._kernel(node, loop)
        return lines

    def _kernel(self, node: Value, loop: Loop | None) -> list[str]:
        text = self._line(node, loop)
        if self.hooks is None:
            return [text]
        call = lower(node, self.places)
        operand = self._operand if loop is None else _in_tiles(loop, node)
        inputs = tuple(map(operand, call.inputs))
        return self.hooks.around(Line(text, node, node.inputs, inputs, operand(call.out)))

    @staticmethod
    def _indented(lines: Iterable[str]) -> list[str]:
        return [f"    {line}" if line else "" for line in lines]

    # ---- names and views -------------------------------------------------------------------

    def _name_inputs(self) -> None:
        outside = set(self.plan.outside)
        for value, given in zip(self.plan.graph.inputs, self.plan.graph.names, strict=True):
            self.names[value] = _identifier(given, self.used)
            if value not in outside:
                self.bound.append(self._memory(value, self.plan.offsets[value]))
        for node, parts in self.plan.joins.items():
            self.names[node] = self._fresh(node)
            joined = [self.names[v] for v in parts]
            call = self._call_text(end_to_end, joined, {"shape": node.shape})
            self.bound.append(f"{self.names[node]} = {call}")

    def _memory(self, value: Value, offset: int) -> str:
        tiles = self.tiles.get(self.owner[value])
        shape = value.shape if tiles is None else tiles.shape(value.shape)
        if value in self.fixed:
            where = f"np.ndarray({shape}, {_literal(value.dtype)}, constants, {offset})"
        else:
            where = f"{self._maker(value.dtype)}({', '.join(map(str, (offset, *shape)))})"
        return f"{self.names[value]} = {where}"

    def _maker(self, dtype: np.dtype) -> str:
        """The function of the source that makes arrays over the arena: a tape has so many that
        Python takes a tenth less time for the shorter lines."""
        if dtype not in self.makers:
            self.makers[dtype] = _identifier(f"arena_{dtype_name(dtype)}", self.used)
        return self.makers[dtype]

    def _makers(self) -> list[str]:
        lines = []
        for dtype, name in self.makers.items():
            lines += ["", f"def {name}(offset, *shape):"]
            lines.append(f"    return np.ndarray(shape, {_literal(dtype)}, arena, offset)")
        return lines

    def _bind_result(self, node: Value) -> None:
        owner = self.owner[node]
        taken = self._same_memory(node, owner)
        if taken is not None:
            self.names[node] = self.names[taken]
            return
        self.names[node] = self._fresh(node)
        self.bound.append(self._memory(node, self.plan.offsets[owner]))

    def _same_memory(self, node: Value, owner: Value) -> Value | None:
        """What is bound already to the memory that the result takes, in the same shape."""
        for v in (*node.inputs, owner):
            place = self.places[v]
            if v is node or v not in self.names or place.root is None:
                continue
            same = self.owner.get(place.root) is owner and v.type[:2] == node.type[:2]
            if same and place.contiguous and place.writeable and v.nbytes == owner.nbytes:
                return v
        return None

    def _fresh(self, node: Value) -> str:
        return "v" + self.numbers[node][1:]

    def _part(self, name: str) -> str:
        """A name for the tiles of what has the name, and for nothing else."""
        found, count = name, 1
        while found in self.used:
            count += 1
            found = f"{name}{count}"
        self.used.add(found)
        return found

    def _held(self, value: Value) -> bool:
        """Whether there is memory for one tile of the value only."""
        root = self.places[value].root
        return root is not None and self.owner.get(root) in self.tiles

    def _bind_view(self, node: Value) -> None:
        assert node.op.view is not None
        name = self.names[node] = self._fresh(node)
        source = self._array(node.inputs[0])
        root = self.places[node].root
        tiles = None if root is None else self.tiles.get(self.owner[root])
        attrs = node.attrs if tiles is None else tiles.attrs(node.attrs)
        method = _METHODS.get(node.op.view)
        if method is None:
            call = self._call_text(node.op.view, [source], attrs)
        else:
            call = f"{source}.{method}({_listed(*attrs.values())})"
        self.bound.append(f"{name} = {call}")

    def _array(self, x: Value) -> str:
        if not x.is_constant:
            return self.names[x]
        return f"np.asarray({_literal(x.attrs['value'])}, np.{x.dtype.name})"

    # ---- lines -----------------------------------------------------------------------------

    def _line(self, node: Value, loop: Loop | None = None) -> str:
        call = lower(node, self.places)
        text = self._call(call, self._operand if loop is None else _in_tiles(loop, node))
        place = self.lines.get(node.origin[:2])
        if place is None:
            place = str(node.origin._replace(module="", reverse=False))
            self.lines[node.origin[:2]] = place
        return f"{text}  # {self.numbers[node]} {node.type} {place}".rstrip()

    def _call(self, call: Call, operand: Callable[[Argument], str]) -> str:
        inputs = [operand(a) for a in call.inputs]
        out = operand(call.out)
        if call.function is np.copyto:
            return f"np.copyto({out}, {inputs[0]})"
        return self._call_text(call.function, inputs, call.attrs, f"out={out}")

    def _call_text(
        self, function: Callable, inputs: list[str], attrs: Mapping[str, Any], *end: str
    ) -> str:
        pairs = [f"{k}={_literal(v)}" for k, v in attrs.items()]
        return f"{self._function_name(function)}({', '.join([*inputs, *pairs, *end])})"

    def _function_name(self, function: Callable) -> str:
        """NumPy's functions by their own names; others are handed in under a name each."""
        name = self.functions.get(function)
        if name is None:
            name = function_name(function)
            if not name.startswith("np."):
                name = _identifier(name, self.used)
                self.needs[name] = function
            self.functions[function] = name
        return name

    def _operand(self, argument: Argument) -> str:
        value, shape = argument
        if value.is_constant:
            return _literal(value.attrs["value"])
        name = self.names[value]
        if shape is None or shape == value.shape:
            return name
        key = (name, shape)
        if key not in self.reshaped:
            self.reshaped[key] = f"{name}_{'x'.join(map(str, shape))}"
            self.bound.append(f"{self.reshaped[key]} = {name}.reshape({_listed(shape)})")
        return self.reshaped[key]

    def _copy_update(self, old: Value, new: Value) -> list[str]:
        source, target = self._operand((new, None)), self.names[old]
        copy = f"np.copyto({target}, {source})"
        if self.hooks is None:
            return [copy]
        return self.hooks.around(Line(copy, new, (new,), (source,), target))


def _in_tiles(loop: Loop, node: Value) -> Callable[[Argument], str]:
    """How the arguments of a region's node are called."""
    deepest = max(v.ndim for v in node.inputs)

    def operand(argument: Argument) -> str:
        value, _ = argument
        if value.is_constant:
            return _literal(value.attrs["value"])
        return loop.operand(value, node.ndim if value is node else deepest)

    return operand


def _signature(names: list[str]) -> list[str]:
    """The head of `bind`, broken where it gets long."""
    short = f"def bind({', '.join(names)}):"
    return [short] if len(short) < 99 else ["def bind(", *(f"    {n}," for n in names), "):"]


def _identifier(name: str, used: set[str]) -> str:
    text = re.sub(r"\W+", "_", name).strip("_") or "x"
    # A leading v and a number is what results are called.
    reserved = text[0].isdigit() or keyword.iskeyword(text) or re.match(r"v\d", text)
    text = f"_{text}" if reserved else text
    found, count = text, 1
    while found in used:
        count += 1
        found = f"{text}_{count}"
    used.add(found)
    return found


def _literal(value: Any) -> str:
    """A Python expression for an attribute or number."""
    if isinstance(value, np.dtype):
        return f"np.{value.name}" if value != np.bool_ else "np.bool_"
    if isinstance(value, float) and not np.isfinite(value):
        return f"np.{value}" if value > 0 or value != value else "-np.inf"
    return repr(value)


def _listed(shape: Shape) -> str:
    """A shape, or axes, as the arguments of a method."""
    return ", ".join(map(str, shape)) or "()"


def _tuple(names: list[str]) -> str:
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"
