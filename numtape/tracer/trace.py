"""`trace(function, arguments)`: one run of a function on tensors that have no values yet.

What the function reads beyond its arguments (parameters, optimizer state, random counters, arrays
of a closure) becomes an input, read anew at each call; what it assigns becomes an update.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from inspect import getattr_static
from typing import Any

import numpy as np

from numtape.ir.graph import Builder, Graph, Value
from numtape.ir.interpreter import active, current
from numtape.ir.location import user_line
from numtape.ir.op import Op, scalar_dtype
from numtape.ir.types import NUMBER, Scalar, Type
from numtape.tracer.aliases import first_alias, shares_memory, two_ways
from numtape.tracer.chance import without_chance
from numtape.tracer.once import contents_of, refuse_changes, refuse_late_result
from numtape.tracer.recorder import (
    Recorder,
    check_assignable,
    is_released,
    refuse_escaped,
    usable_gradient,
)
from numtape.tracer.structure import flatten, parameter_names, readable, rebuild
from numtape.tracer.tensor import Tensor, TraceError, as_array, indices, refuse, refuse_outside
from numtape.tracer.traced import USED_UP, Gradient, Joint, Output, Traced, Watch


class Trace(Recorder):
    """Records the operations of a function into a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.builder = Builder()
        self.owner = self
        self.watches: dict[Any, Watch] = {}
        self._settings: dict[Any, tuple[Any, Any]] = {}  # that the function sets, as they were
        self._captured: dict[Any, tuple[Any, Value]] = {}
        self._assigned: dict[int, tuple[Tensor, Value]] = {}
        self._gradients: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._arguments: dict[int, int] = {}
        self._given: dict[int, Tensor] = {}  # arguments as they are outside
        self._inside: dict[int, Tensor] = {}  # and the other way round
        self._reached: dict[int, Tensor] = {}  # what is used without being an argument
        self._versions: dict[Tensor, int] = {}  # before the trace
        self._began = next(indices)  # what is made inside has higher ones
        self.refused: TraceError | None = None
        self.module_names: dict[int, str] = {}  # of the root module now running
        self._names: dict[int, str] = {}
        self._lines: dict[int, str] = {}  # where each captured one was used first

    # ---- the recorder's part ---------------------------------------------------------------

    def compute(self, op: Op, inputs: tuple[Tensor, ...], attrs: Mapping) -> tuple[Value, Type]:
        value = self.builder.run(op, tuple(map(self.value_of, inputs)), attrs)
        return value, value.type

    def lift_array(self, value: Any, dtype: np.dtype | None) -> Tensor:
        if isinstance(value, np.generic) and not isinstance(value, float):
            return self._constant(value, dtype or as_array(value).dtype, weak=False)
        if isinstance(value, Scalar):
            return self._constant(value, dtype or scalar_dtype(value), weak=dtype is None)
        array = value if isinstance(value, np.ndarray) else as_array(value)
        held = Tensor.wrap(
            self._capture(array, Type(array.dtype, array.shape)),
            Type(array.dtype, array.shape),
            self,
        )
        return held if dtype is None or dtype == array.dtype else held.astype(dtype)

    def number(self, value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else self._constant(value, NUMBER, weak=True)

    def _constant(self, value: Any, dtype: np.dtype, weak: bool) -> Tensor:
        number = value.item() if isinstance(value, np.generic) else value
        constant = self.builder.constant(number, dtype, weak)
        return Tensor.wrap(constant, constant.type, self)

    def value_of(self, tensor: Tensor) -> Value:
        """The graph value that a tensor stands for at this point of the trace."""
        assigned = self._assigned.get(id(tensor))
        if assigned is not None:
            return assigned[1]
        if tensor.is_traced:
            if tensor.owner is not self:
                refuse_escaped((tensor,))
            if tensor.version != tensor.made:
                raise TraceError(
                    f"at {user_line()}: this view ({tensor.type}, made at "
                    f"{tensor._payload.origin}) is of a tensor that was assigned since; use it "
                    "before assign(), or take it again after"
                )
            return tensor._payload
        return self._capture(tensor, tensor.type)

    def _capture(self, source: Any, type: Type) -> Value:
        found = self._captured.get(id(source))
        if found is None:
            self._refuse_history(source)
            name = f"captured{len(self._captured)}"
            found = self._captured[id(source)] = (source, self.builder.input(type, name))
            line = self._lines[id(source)] = user_line()
            if isinstance(source, Tensor):
                self._reach(source)
                what = f"requires_grad of the {type} at {line}"
                self.watch(what, source, "_requires_grad", counted=True)
        return found[1]

    def _reach(self, tensor: Tensor) -> None:
        """Note a tensor from outside; as an argument as well it would be two inputs."""
        self._reached[id(tensor)] = tensor
        inside = self._inside.get(id(tensor))
        if inside is not None:
            name = self.builder.names[self._arguments[id(inside)]]
            raise TraceError(f"at {user_line()}: {two_ways(name, tensor.type)}")

    @staticmethod
    def _refuse_history(source: Any) -> None:
        if isinstance(source, Tensor) and source.op is not None:
            raise TraceError(
                f"at {user_line()}: the traced function uses a tensor ({source.type}) that was "
                "computed outside with gradients; pass it as an argument, or detach() it"
            )

    def reading(self, tensor: Tensor, deed: str) -> None:
        try:
            (refuse if tensor.is_traced else refuse_outside)(tensor, deed)
        except TraceError as error:
            self.refused = self.refused or error  # who catches it would go on without the value
            raise

    def assign(self, tensor: Tensor, value: Any) -> None:
        new = self.lift(value, tensor.dtype)
        check_assignable(tensor, new.shape, new.dtype)
        if tensor.is_traced and id(tensor) not in self._arguments:
            raise TraceError(
                f"at {user_line()}: assign() changes tensors that live outside the traced "
                "function; give the new value a name instead"
            )
        self.value_of(tensor)  # so that it is an input before it becomes an update
        self._assigned[id(tensor)] = (tensor, self.value_of(new))
        self._versions.setdefault(tensor, tensor.version)
        tensor.version += 1

    def gradient(self, tensor: Tensor) -> Tensor | None:
        if id(tensor) in self._gradients:
            return self._gradients[id(tensor)][1]
        outside = self._given.get(id(tensor), tensor)
        if outside.is_traced:
            return tensor._grad
        if outside is tensor:
            self._reach(tensor)
            self.watch(f".grad of {tensor.type}", tensor, "_grad", _kind)
        old = usable_gradient(outside)
        return None if old is None else self._captured_gradient(tensor, old.type)

    def _captured_gradient(self, tensor: Tensor, type: Type) -> Tensor:
        key = ("gradient", id(tensor))
        if key not in self._captured:
            value = self.builder.input(type, f"captured{len(self._captured)}")
            self._captured[key] = (Gradient(self._outside(tensor)), value)
        return Tensor.wrap(self._captured[key][1], type, self)

    def set_gradient(self, tensor: Tensor, value: Tensor | None) -> None:
        if tensor.is_traced and id(tensor) not in self._arguments:
            tensor._grad = value
        else:
            if not tensor.is_traced:
                self._reach(tensor)
            self._gradients[id(tensor)] = (tensor, value)

    def inherit(self, node: Tensor) -> AbstractContextManager:
        # Of a view of what was assigned since as well: that it was made is all that counts here.
        value = node._payload if node.is_traced else self.value_of(node)
        return self.builder.scope.inherit(value.origin._replace(reverse=True))

    def watch(
        self,
        what: str,
        holder: Any,
        name: str,
        view: Callable[[Any], Any] = lambda v: v,
        counted: bool = False,
    ) -> None:
        """Trace anew when `view(holder.name)` is no longer what it is now."""
        key = (id(holder), name)
        if key not in self.watches:

            def read() -> Any:
                return view(getattr(holder, name, None))  # None where it was deleted

            self.watches[key] = Watch(what, read, read(), counted)

    def changing(self, holder: Any, name: str) -> None:
        """Note an attribute that the function is about to set."""
        before = getattr_static(holder, name, None)  # of a property, no value
        self._settings.setdefault((id(holder), name), (holder, before))

    def _settled(self, key: Any, watch: Watch) -> Watch:
        """Of a setting that was changed and put back, such as `training`, the value outside.

        The trace may have met it in between; from outside, a call leaves it as it was.
        """
        holder, before = self._settings.get(key, (None, None))
        put_back = holder is not None and getattr(holder, key[1], None) is before
        return replace(watch, seen=watch.read()) if put_back else watch

    def name(self, tensor: Tensor, name: str) -> None:
        """Call a captured tensor by this name in graphs and source."""
        self._names.setdefault(id(tensor), name)

    def name_of(self, tensor: Tensor) -> str:
        """The name given to a tensor so far."""
        return self._names.get(id(tensor), "parameter")

    def _name_captured(self) -> None:
        """Give the captured inputs their names, which may be known only after they were read."""
        inputs = {id(v): i for i, v in enumerate(self.builder.inputs)}
        for source, value in self._captured.values():
            name = self._names.get(id(source))
            if name is not None:
                self.builder.names[inputs[id(value)]] = name

    # ---- the beginning and the end ----------------------------------------------------------

    def argument(self, given: Any, name: str) -> Tensor:
        position, type = len(self.builder.inputs), input_type(given)
        tensor = Tensor.wrap(self.builder.input(type, name), type, self)
        if id(given) in self._inside:  # the first one is read, this one is left alone
            return self._inside[id(given)]
        if isinstance(given, Tensor):
            refuse_escaped((given,))
            tensor._requires_grad = given._requires_grad
            self._given[id(tensor)] = given
            self._inside[id(given)] = tensor
        self._arguments[id(tensor)] = position
        return tensor

    def leave(self) -> None:
        """Tracing changed no tensor: only calls do."""
        for tensor, version in self._versions.items():
            tensor.version = version

    def _refuse_aliases(self) -> None:
        """Captured sources of which one is updated must not share memory."""
        sources = [s for s, _ in self._captured.values() if not isinstance(s, Gradient)]
        arrays = [s._payload if isinstance(s, Tensor) else s for s in sources]
        updated = {i for i, s in enumerate(sources) if id(s) in self._assigned}
        found = first_alias(arrays, updated) if updated else None
        if found is not None:
            changed, other = (self._described(sources[i]) for i in found)
            raise TraceError(shares_memory(changed, other))

    def _described(self, source: Any) -> str:
        type = input_type(source)
        name = self._names.get(id(source), "a captured tensor")
        return f"{name} ({type}, used at {self._lines[id(source)]})"

    def finish(self, name: str, result: Any, arguments: list[Tensor]) -> Traced:
        if self.refused is not None:
            raise self.refused
        self._refuse_aliases()
        refuse_late_result(result)
        outputs: list[Tensor] = []

        def place(tensor: Any) -> Output:
            outputs.append(tensor if isinstance(tensor, Tensor) else self.lift(tensor))
            return Output(len(outputs) - 1)

        placed: dict[int, Output] = {}

        def place_once(tensor: Any) -> Output:  # what is returned twice is one tensor outside
            if id(tensor) not in placed:
                placed[id(tensor)] = place(tensor)
            return placed[id(tensor)]

        shape = rebuild(result, _is_output, place_once)
        gradients = tuple(self._left_gradient(t, g, place) for t, g in self._gradients.values())
        targets = tuple(self._outside(t) for t, _ in self._assigned.values())
        updates = [
            (t._payload if t.is_traced else self._captured[id(t)][1], new)
            for t, new in self._assigned.values()
        ]
        values = [self.value_of(t) for t in outputs]
        self._name_captured()
        graph = self.builder.finish(name, values, updates)
        return Traced(
            graph,
            self._joint(graph, outputs),
            len(arguments),
            tuple(source for source, _ in self._captured.values()),
            targets,
            gradients,
            shape,
            tuple(self._settled(key, watch) for key, watch in self.watches.items()),
            self._reached,
            self._began,
        )

    def _joint(self, graph: Graph, outputs: list[Tensor]) -> Joint | None:
        """The reverse part, recorded behind the forward one by the loop of eager mode."""
        sources = [i for i, t in enumerate(outputs) if t.requires_grad and not is_released(t)]
        if not sources:
            return None
        early = (len(graph.inputs), len(graph.outputs))
        chosen = [outputs[i] for i in sources]
        with active(self):
            seeds = [
                Tensor.wrap(self.builder.input(t.type, f"gradient{i}"), t.type, self)
                for i, t in zip(sources, chosen, strict=True)
            ]
            pulled = self.pull(chosen, seeds, create_graph=False)
        results = [*graph.outputs, *(self.value_of(g) for g in pulled.values())]
        return Joint(
            self.builder.finish(graph.name, results, graph.updates, early),
            tuple(sources),
            tuple(self._outside(t) for t in pulled),
        )

    def _outside(self, tensor: Tensor) -> Any:
        return ("argument", self._arguments[id(tensor)]) if tensor.is_traced else tensor

    def _left_gradient(self, tensor: Tensor, g: Tensor | None, place: Callable) -> tuple:
        """Whether a gradient is kept: not where the function went on to update its tensor."""
        if g is None:
            return self._outside(tensor), None
        if id(tensor) in self._assigned:
            return self._outside(tensor), USED_UP
        return self._outside(tensor), place(g).position


def _kind(gradient: Any) -> Any:
    return gradient.type if isinstance(gradient, Tensor) else gradient


def _is_output(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray | np.generic)


def is_array(value: Any) -> bool:
    """Arguments that become inputs: tensors, arrays, and Python floats as run-time scalars."""
    return isinstance(value, Tensor | np.ndarray | np.generic | float)


def tracing() -> Trace | None:
    """The trace now recording on this thread, if any."""
    top = current()
    return top if isinstance(top, Trace) else None


def input_type(value: Any) -> Type:
    """The type of an argument; a Python float is a weak scalar."""
    if isinstance(value, float):
        return Type(NUMBER, (), True)
    if isinstance(value, Tensor):
        return value.type
    array = as_array(value)
    return Type(array.dtype, array.shape)


def trace(function: Callable, *args: Any, **kwargs: Any) -> Traced:
    """The graph of `function` for arguments of these shapes and dtypes.

    Raises `TraceError` where the function depends on values that are not known while tracing.
    """
    return trace_call(function, args, kwargs, ())


def trace_call(function: Callable, args: tuple, kwargs: dict, generators: Sequence) -> Traced:
    """`trace`; what draws from one of the `generators` is refused as well."""
    return without_chance(lambda: _trace(function, args, kwargs), generators)


def _trace(function: Callable, args: tuple, kwargs: dict) -> Traced:
    recorder = Trace()
    leaves: list[Tensor] = []
    names = parameter_names(function)
    paths = iter(path for path, _ in flatten((args, kwargs), is_array))

    def enter(value: Any) -> Tensor:
        leaves.append(recorder.argument(value, readable(next(paths), names)))
        return leaves[-1]

    inner_args, inner_kwargs = inner = rebuild((args, kwargs), is_array, enter)
    before = contents_of(inner)
    name = getattr(function, "__name__", type(function).__name__)
    try:
        with active(recorder):
            result = function(*inner_args, **inner_kwargs)
        refuse_changes(before, inner, names)
        return recorder.finish(name, result, leaves)
    finally:
        recorder.leave()
