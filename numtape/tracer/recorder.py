"""Eager execution and the record that `backward()` walks.

`Recorder` is what eager mode and tracing share: gradients, assignment, the tape of tensors.
`Eager` computes each result at once with the op's own kernel.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np

from numtape.ir import interpreter
from numtape.ir.backward import backprop
from numtape.ir.location import user_line
from numtape.ir.op import Op, scalar_dtype
from numtape.ir.ops.dense import dense_array
from numtape.ir.ops.shapes import full
from numtape.ir.reading import OUT
from numtape.ir.types import FLOAT, NUMBER, DtypeError, Scalar, ShapeError, Type
from numtape.tracer.tensor import Tensor, TraceError, as_array, described


class _Mode(threading.local):
    grad = True


_mode = _Mode()


@contextmanager
def no_grad() -> Iterator[None]:
    """Nothing computed in this block is recorded for `backward()`."""
    with recording(False):
        yield


@contextmanager
def recording(on: bool) -> Iterator[None]:
    """Whether what this block computes is recorded for `backward()`."""
    previous, _mode.grad = _mode.grad, on
    try:
        yield
    finally:
        _mode.grad = previous


def grad_enabled() -> bool:
    return _mode.grad


class Recorder:
    """An interpreter on tensors. Subclasses say how a payload is computed, read and replaced."""

    def __init__(self) -> None:
        self._shared: dict[tuple, Any] | None = None

    # what subclasses define
    def compute(self, op: Op, inputs: tuple[Tensor, ...], attrs: Mapping) -> tuple[Any, Type]:
        raise NotImplementedError

    def lift_array(self, value: Any, dtype: np.dtype | None) -> Tensor:
        raise NotImplementedError

    def number(self, value: Any) -> Tensor:
        raise NotImplementedError

    def reading(self, tensor: Tensor, deed: str) -> None:
        raise NotImplementedError

    def assign(self, tensor: Tensor, value: Any) -> None:
        raise NotImplementedError

    def gradient(self, tensor: Tensor) -> Tensor | None:
        raise NotImplementedError

    def set_gradient(self, tensor: Tensor, value: Tensor | None) -> None:
        raise NotImplementedError

    def inherit(self, node: Tensor) -> AbstractContextManager:
        raise NotImplementedError

    def own(self, gradient: Tensor, given: set[int]) -> Tensor:
        """The gradient with memory of its own; `given` collects the ids handed out before."""
        return gradient

    # the interpreter
    def lift(self, value: Any, dtype: np.dtype | None = None) -> Tensor:
        if not isinstance(value, Tensor):
            return self._lift_shared(value, dtype)
        known = value.type
        if known.weak and known.is_number:
            return value.astype(FLOAT if dtype is None else dtype)
        return value if dtype is None or known.dtype == dtype else value.astype(dtype)

    def _lift_shared(self, value: Any, dtype: np.dtype | None) -> Tensor:
        if type(value) is int and dtype is not None and dtype.kind in "iu":
            _check_fits(value, dtype)
        if self._shared is None or not isinstance(value, Scalar):
            return self.lift_array(value, dtype)
        key = (type(value), repr(value), dtype)
        if key not in self._shared:
            self._shared[key] = self.lift_array(value, dtype)
        return self._shared[key]

    def run(self, op: Op, inputs: tuple[Tensor, ...], attrs: Mapping[str, Any]) -> Tensor:
        if self._shared is None:
            return self._run(op, inputs, attrs)
        # What an expansion computes unrecorded cannot stand for what is to be differentiated.
        key = (_mode.grad, op, tuple(map(id, inputs)), tuple(attrs.items()))
        if key not in self._shared:
            # The inputs are kept beside the result so that no id is given out anew.
            self._shared[key] = (self._run(op, inputs, attrs), inputs)
        return self._shared[key][0]

    def _run(self, op: Op, inputs: tuple[Tensor, ...], attrs: Mapping[str, Any]) -> Tensor:
        tracked = _mode.grad and any(t._requires_grad for t in inputs)
        if tracked and op.expand is not None and not op.differentiable:
            op.type_of([t.type for t in inputs], attrs)
            return op.expand(*inputs, **attrs)
        payload, type = self.compute(op, inputs, attrs)
        out = Tensor.wrap(payload, type, self.owner)
        if op.view is not None:
            out.look_at(inputs[0])
        if tracked and type.dtype.kind == "f" and self._reaches(op, inputs):
            out.record(op, inputs, attrs)
        return out

    owner: Any = None

    @staticmethod
    def _reaches(op: Op, inputs: tuple[Tensor, ...]) -> bool:
        return op.differentiable and any(
            t._requires_grad and op.vjp(i) is not None for i, t in enumerate(inputs)
        )

    # gradients
    def backward(
        self, output: Tensor, gradient: Any, create_graph: bool, retain_graph: bool
    ) -> None:
        if not output._requires_grad:
            raise RuntimeError(
                f"at {user_line()}: backward() of a tensor that depends on nothing with "
                "requires_grad=True (was it computed under no_grad, or detached?)"
            )
        seed = self._seed(output, gradient)
        release = not (create_graph or retain_graph)
        given: set[int] = set()
        pulled = self.pull((output,), (seed,), create_graph, release=release, retain=not release)
        for leaf, g in pulled.items():
            old = self.gradient(leaf)
            found = g if old is None else old + g
            self.set_gradient(leaf, found if create_graph else self.own(found, given))

    def _seed(self, output: Tensor, gradient: Any) -> Tensor:
        if gradient is not None:
            seed = self.lift(gradient, output.dtype)
            if seed.shape != output.shape:
                raise ShapeError(f"the gradient has shape {seed.shape}, not {output.shape}")
            return seed
        if output.shape != ():
            raise ShapeError(
                f"backward() without a gradient starts from a scalar, not from {output.type}; "
                "reduce it with sum() or mean(), or pass gradient="
            )
        return full((), 1, output.dtype)

    def pull(
        self,
        outputs: Sequence[Tensor],
        seeds: Sequence[Tensor],
        create_graph: bool,
        leaves: Sequence[Tensor] = (),
        release: bool = False,
        retain: bool = False,
    ) -> dict[Tensor, Tensor]:
        """Gradients for the leaves; recorded with `create_graph`.

        `release` frees the tape; `retain` keeps compiled calls so that they can be passed again.
        """
        needed: Callable[[Tensor], bool] = (
            _leading_to(outputs, leaves) if leaves else (lambda t: t._requires_grad)
        )
        with recording(create_graph and _mode.grad):
            around = partial(self._around, release=release, retain=retain)
            return backprop(outputs, seeds, needed, around, leaves)

    @contextmanager
    def _around(self, node: Tensor, release: bool, retain: bool = False) -> Iterator[None]:
        call: Any = node.op if getattr(node.op, "compiled", False) else None
        if call is not None:
            call.retain = retain
        # The rules of one node share what they compute alike.
        previous, self._shared = self._shared, {}
        try:
            _check_unchanged(node)
            with self.inherit(node):
                yield
        finally:
            self._shared = previous
            if call is not None:  # it lets go of its memory itself
                call.forget()
        if call is None and release:
            node.op, node.inputs, node.versions = _RELEASED, (), ()
            node.contents, node.reads = (), ()


def _leading_to(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> Callable[[Tensor], bool]:
    """Whether a tensor was computed from one of the leaves."""
    leads: dict[Tensor, bool] = dict.fromkeys(leaves, True)
    pending = list(outputs)
    while pending:
        node = pending[-1]
        unknown = [t for t in node.inputs if t not in leads]
        if node in leads:
            pending.pop()
        elif unknown:
            pending.extend(unknown)
        else:
            leads[node] = any(leads[t] for t in node.inputs)
            pending.pop()
    return lambda t: leads.get(t, False)


# What a node becomes when backward() has passed through it and let its inputs go.
_RELEASED = Op("released", lambda: None, view=lambda: None)  # type: ignore[arg-type, return-value]


def _check_fits(number: int, dtype: np.dtype) -> None:
    """`DtypeError` for a number that an integer dtype would hold as another one."""
    limits = np.iinfo(dtype)
    if not limits.min <= number <= limits.max:
        raise DtypeError(
            f"{number} does not fit into {dtype}, which goes from {limits.min} to {limits.max}; "
            "convert the tensor that it meets, as in x.astype(np.int64)"
        )


def is_released(tensor: Tensor) -> bool:
    """Whether backward() has passed and let go of what a second pass would need."""
    return tensor.op is _RELEASED


def _check_unchanged(node: Tensor) -> None:
    if node.op is _RELEASED:
        raise RuntimeError(
            f"at {user_line()}: backward() has passed here before and let go of what it needs; "
            "call the first backward() with retain_graph=True"
        )
    contents = node.contents or (None,) * len(node.inputs)
    seen = list(zip(node.inputs, node.versions, contents, strict=True))
    if node.reads is None:
        if all(t.version == version for t, version, _ in seen):
            return
        node.reads = node.read_by_rules()
    read = [seen[i] for i in node.reads if i != OUT]
    if OUT in node.reads:
        read.append((node, node.made, None))
    assert node.op is not None
    for t, version, content in read:
        if t.version != version or t.was_written(content):
            raise RuntimeError(
                f"at {user_line()}: {_shown(t)} was changed in place after the {node.op.name} had "
                "used it, so its gradient would be wrong; call backward() before the update, use "
                "a copy that stays as it is (`s * 1.0`), or compute under no_grad() what needs no "
                "gradient"
            )


def _shown(tensor: Tensor) -> str:
    """The type, and that of the tensor that it is a view of."""
    root = tensor
    while getattr(root.op, "view", None) is not None:
        (root,) = root.inputs
    return f"{tensor.type}" if root is tensor else f"{tensor.type}, a view of {root.type},"


class Eager(Recorder, threading.local):
    """Computes at once. The interpreter when no other is active, for each thread by itself."""

    def compute(self, op: Op, inputs: tuple[Tensor, ...], attrs: Mapping) -> tuple[Any, Type]:
        refuse_escaped(inputs)
        if op.expand is not None:
            op.type_of([t.type for t in inputs], attrs)
            with recording(False):
                out = op.expand(*inputs, **attrs)
            return out._payload, out.type
        return evaluate(op, [t._payload for t in inputs], [t.type for t in inputs], attrs)

    def lift_array(self, value: Any, dtype: np.dtype | None) -> Tensor:
        weak = dtype is None and isinstance(value, Scalar)
        if weak:
            dtype = scalar_dtype(value)
        array = as_array(value, dtype)
        return Tensor.wrap(array, Type(array.dtype, array.shape, weak))

    def number(self, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value
        return Tensor.wrap(np.array(value, NUMBER), Type(NUMBER, (), True))

    def reading(self, tensor: Tensor, deed: str) -> None:
        refuse_escaped((tensor,))

    def assign(self, tensor: Tensor, value: Any) -> None:
        array = value._payload if isinstance(value, Tensor) else as_array(value, tensor.dtype)
        check_assignable(tensor, array.shape, array.dtype)
        np.copyto(tensor._payload, array, casting="same_kind")
        tensor.version += 1

    def gradient(self, tensor: Tensor) -> Tensor | None:
        return usable_gradient(tensor)

    def set_gradient(self, tensor: Tensor, value: Tensor | None) -> None:
        tensor._grad = value

    @contextmanager
    def inherit(self, node: Tensor) -> Iterator[None]:
        yield

    def own(self, gradient: Tensor, given: set[int]) -> Tensor:
        array = gradient._payload
        if array.base is None and id(array) not in given:
            given.add(id(array))
            return gradient
        return Tensor.wrap(array.copy(), gradient.type)


# Stands for a gradient that a compiled step used up inside.
CONSUMED: Any = object()


def usable_gradient(tensor: Tensor) -> Tensor | None:
    """What is in `.grad`; an error where a compiled step has used it up."""
    if tensor._grad is CONSUMED:
        raise RuntimeError(
            f"at {user_line()}: this gradient was used up inside a compiled step, which keeps no "
            "copy of it; return it from the compiled function (`return loss, weight.grad`), or "
            "call zero_grad() before adding to it"
        )
    return tensor._grad


def evaluate(
    op: Op, arrays: Sequence[np.ndarray], types: Sequence[Type], attrs: Mapping[str, Any]
) -> tuple[np.ndarray, Type]:
    """The op's result on arrays, by its view or its kernel."""
    found = op.type_of(types, attrs)
    if op.view is not None:
        return op.view(arrays[0], **attrs), found
    assert op.kernel is not None
    out = np.empty(found.shape, found.dtype)
    if op.ordered is not None:
        arrays = list(map(dense_array, arrays, op.ordered(*types)))
    op.kernel(*arrays, out=out, **attrs)
    return out, found


def check_assignable(tensor: Tensor, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """An error that names the line where a tensor cannot take a value of this shape and dtype."""
    if tensor.shape != shape:
        raise ShapeError(f"a tensor of {tensor.type} cannot take the shape {shape}")
    if not np.can_cast(dtype, tensor.dtype, "same_kind"):
        raise TypeError(f"at {user_line()}: a tensor of {tensor.type} cannot take {dtype}")


def refuse_escaped(tensors: Sequence[Tensor]) -> None:
    """`TraceError` that names the line where a tensor of a trace is used after its end."""
    for t in tensors:
        if t.is_traced:
            raise TraceError(
                f"at {user_line()}: this tensor ({described(t)}) belongs to a traced "
                "function that has ended, and never had a value; return it from the function "
                "instead of storing it outside"
            )


EAGER = Eager()
interpreter.install(EAGER)
