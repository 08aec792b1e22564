"""Random programs beside PyTorch: values and gradients of what was traced, by its functions.

A program is traced in float64 and its graph, before any pass, run node by node on tensors of
PyTorch's (`fuzz.peers`), with gradients by its autograd. Eager mode has to give the same, as near
as `fuzz.check` asks of compiled programs; where a value on the way is float32 after all (a mean
of integers), that is asked of results in float32. Random numbers are taken from numtape.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import numtape as nt
from fuzz.check import Arrays, Found, close, difference, ill_conditioned, in_float64
from fuzz.generator import REFUSALS
from fuzz.peers import PEERS, as_torch, pulled, torch_dtype
from fuzz.program import Instance, Program
from numtape.ir.graph import Value, replay
from numtape.tracer.traced import Traced

Tensors = tuple[torch.Tensor, ...]


class Skipped(Exception):
    """There is nothing to compare, and why."""


def compare(program: Program) -> Found:
    """Whether PyTorch gives the values and gradients of a program; `skipped` says why not."""
    found, program = Found(), as_compared(program)
    try:
        expected = _by_numtape(program)
        beside = Beside(program)
        found.ops = {node.op.name for node in beside.traced.graph.nodes}
        got = beside.results()
    except Skipped as reason:
        found.skipped = str(reason)
        return found
    except Exception as error:  # whatever PyTorch raises where numtape does not
        found.failure, found.detail = type(error).__name__, str(error)[:400]
        return found
    if beside.coarse:
        got, expected = _in_float32(got), _in_float32(expected)
    if difference(got, expected, close) is not None:
        if beside.odd:  # a matter of conventions
            found.skipped = beside.odd
        elif differs := ill_conditioned(program, got, expected, found):
            found.failure, found.detail = "torch", differs
    return found


def as_compared(program: Program) -> Program:
    """In float64 throughout; what trains is differentiated for its parameters instead."""
    steps = tuple(replace(s, text=s.text.replace("float32", "float64")) for s in program.steps)
    program = replace(program, inputs=in_float64(program), steps=steps)
    if program.mode not in ("training", "split"):
        return program
    inputs = {
        n: replace(given, role="argument") if given.role == "parameter" else given
        for n, given in program.inputs.items()
    }
    return replace(program, inputs=inputs, outputs=program.floats, mode="gradient")


def _by_numtape(program: Program) -> Arrays:
    try:
        made = Instance(program)
        return made.run(made.function, calls=1)
    except REFUSALS as error:
        changed = "changed in place" in str(error)
        what = "a value changed in place" if changed else type(error).__name__
        raise Skipped(f"no gradient in eager mode: {what}") from None


class Beside:
    """A program on PyTorch.

    odd     from what operation on it may differ by convention, and how.
    coarse  whether a value on the way was float32.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.odd = ""
        self.coarse = False
        made = Instance(program)
        given = made.arguments(0)
        self.traced = _traced(made, given, program.seed)
        self.sources = [*given, *self.traced.captured]
        self.stored = [*given, *made.held.values()]
        nested = program.mode != "values"
        self.inputs = [
            as_torch(_array(x), nested and i < len(given)) for i, x in enumerate(self.sources)
        ]

    def results(self) -> Arrays:
        """What a call returns and leaves behind, in the order of `Instance.run`."""
        known = self._run(*self.inputs)
        outputs = self.traced.graph.outputs
        if self.program.mode == "values":
            returned = [known[outputs[o.position]] for o in self.traced.result]
        else:
            returned = self._differentiated()
        return [_array(x) for x in (*returned, *self._left(known))]

    def _differentiated(self) -> list[torch.Tensor]:
        """The value and its gradients; in mode "second" of the squares of the first ones."""
        (output,) = self.traced.graph.outputs
        loss = lambda *xs: self._run(*xs)[output]
        slope = lambda *xs: sum((g * g).sum() for g in pulled(loss, xs))
        function: Callable[..., Any] = slope if self.program.mode == "second" else loss
        return [function(*self.inputs), *pulled(function, self.inputs)]

    def _left(self, known: dict[Value, torch.Tensor]) -> list[Any]:
        """Arguments and state as the call leaves them; what the trace never met as it was."""
        new, inputs = dict(self.traced.graph.updates), self.traced.graph.inputs
        met = {id(x): known[new.get(v, v)] for x, v in zip(self.sources, inputs, strict=True)}
        return [met.get(id(t), t) for t in self.stored]

    def _run(self, *inputs: torch.Tensor) -> dict[Value, torch.Tensor]:
        return replay(self.traced.graph, inputs, self._node)

    def _node(self, node: Value, inputs: Tensors) -> torch.Tensor:
        name = node.op.name
        if node.is_constant:
            return torch.tensor(node.attrs["value"], dtype=torch_dtype(node.dtype))
        if name not in PEERS:
            drawn = node.op(*[nt.Tensor(x.numpy()) for x in inputs], **node.attrs)
            return as_torch(drawn.numpy())
        try:
            out = PEERS[name](*inputs, **node.attrs)
        except NotImplementedError:
            raise Skipped(f"no {name} of {node.inputs[0].dtype}") from None
        self.coarse |= node.dtype == np.float32
        self.odd = self.odd or self._oddity(name, inputs, out)
        return out

    def _oddity(self, name: str, inputs: Tensors, out: torch.Tensor) -> str:
        twice = self.program.mode == "second"
        if name == "copysign" and twice:  # PyTorch divides by the argument: rounded, NaN at 0
            return "second gradient of copysign"
        if name == "power" and twice and bool((inputs[1] == 0).any()):  # PyTorch's is 0
            return "second gradient of x ** 0"
        if name == "copysign" and bool((inputs[1] == 0).any()):
            return "the sign of a zero"
        return "" if out.isfinite().all() else f"not finite from {name} on"


def _traced(made: Instance, given: list[nt.Tensor], seed: int) -> Traced:
    nt.random.seed(seed)
    try:
        with np.errstate(all="ignore"):
            return nt.trace(made.loss or made.function, *given)
    except nt.TraceError:
        raise Skipped("the trace is refused") from None


def _in_float32(arrays: Arrays) -> Arrays:
    return [a.astype(np.float32) if a.dtype == np.float64 else a for a in arrays]


def _array(x: Any) -> np.ndarray:
    if isinstance(x, torch.Tensor):
        return x.numpy(force=True)  # of the zeros without memory too
    return x.numpy() if isinstance(x, nt.Tensor) else x
