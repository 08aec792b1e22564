"""A program as data: inputs, and lines of Python that the eager and the compiled run share.

The lines are what runs and what is printed: a failure is the script that shows it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import CodeType
from typing import Any

import numpy as np

import numtape as nt
from numtape import optim
from numtape.nn import functional as F
from numtape.tracer.moving import lay_end_to_end

NAME = re.compile(r"\bv(\d+)\b")
MODES = ("values", "gradient", "second", "training", "split")


@dataclass(frozen=True)
class Input:
    """An array that is given; `role`: "argument", "state" (captured) or "parameter"."""

    shape: tuple[int, ...]
    dtype: str
    layout: str = "dense"
    role: str = "argument"


@dataclass(frozen=True)
class Step:
    """One line: `name = text`, or `text` alone (an assignment) where the name is None."""

    name: int | None
    text: str

    @property
    def reads(self) -> list[int]:
        return [int(n) for n in NAME.findall(self.text)]

    def __str__(self) -> str:
        return self.text if self.name is None else f"v{self.name} = {self.text}"


@dataclass(frozen=True)
class Program:
    """Inputs by number, steps in order, what is returned, and how it is differentiated."""

    seed: int
    inputs: dict[int, Input]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    mode: str = "values"
    reduction: str = "({0} * {0}).sum()"
    optimizer: str = "optim.SGD({0}, lr=0.05, momentum=0.9)"
    floats: tuple[int, ...] = ()  # the outputs that a loss is made of
    options: dict[str, Any] = field(default_factory=dict)  # tiles, budget, memory and the like

    def of_role(self, *roles: str) -> list[int]:
        return [n for n, given in self.inputs.items() if given.role in roles]

    def pruned(self) -> "Program":
        """Without steps and inputs that nothing depends on."""
        needed, kept = {*self.outputs, *self.floats}, []
        for step in reversed(self.steps):
            if step.name is None or step.name in needed:
                needed.update(step.reads)
                kept.append(step)
        inputs = {n: i for n, i in self.inputs.items() if n in needed}
        return replace(self, inputs=inputs, steps=tuple(reversed(kept)))

    # ---- as source -------------------------------------------------------------------------

    @property
    def loss(self) -> str:
        return " + ".join(self.reduction.format(f"v{n}") for n in self.floats)

    def lines(self) -> Iterator[str]:
        """The function `program`, after the loss that it differentiates."""
        arguments = self.of_role("argument")
        names = ", ".join(f"v{n}" for n in arguments)
        wanted = [i for i, n in enumerate(arguments) if self.inputs[n].dtype.startswith("f")]
        nested = self.mode in ("gradient", "second")
        yield f"def {'loss' if nested else 'program'}({names}):"
        yield from (f"    {step}" for step in self.steps)
        if nested:
            yield f"    return {self.loss}"
            yield from self._differentiated(names, tuple(wanted))
        elif self.mode == "training":
            yield f"    loss = {self.loss}"
            yield from ("    optimizer.zero_grad()", "    loss.backward()")
            if self.options.get("clip"):
                yield "    optim.clip_grad_norm_(optimizer.parameters, 0.5)"
            yield "    optimizer.step()"
            yield f"    return {self._returned('loss')}"
        else:
            yield f"    return {self._returned()}"

    def _returned(self, *first: str) -> str:
        names = [*first, *(f"v{n}" for n in self.outputs)]
        return ", ".join(names) + ("," if len(names) == 1 else "")

    def _differentiated(self, names: str, wanted: tuple[int, ...]) -> Iterator[str]:
        if self.mode == "gradient":
            yield f"program = nt.value_and_grad(loss, {wanted})"
            return
        yield f"def slope({names}):"
        yield f"    return sum((g * g).sum() for g in nt.grad(loss, {wanted})({names}))"
        yield f"program = nt.value_and_grad(slope, {wanted})"

    def source(self) -> str:
        return "\n".join(self.lines()) + "\n"

    def script(self, check: str = "fuzz.check.check") -> str:
        """A file that runs by itself from the repository and shows what differs.

        `check` names the function that finds it.
        """
        module, _, name = check.rpartition(".")
        made = "\n".join(f"    {n}: {given!r}," for n, given in self.inputs.items())
        steps = "\n".join(f"    Step({s.name}, {s.text!r})," for s in self.steps)
        return (
            f"from {module} import {name}\n"
            "from fuzz.program import Input, Program, Step\n\n"
            f"# {self.mode}\n" + "".join(f"# {line}\n" for line in self.lines()) + "\n"
            f"inputs = {{\n{made}\n}}\nsteps = (\n{steps}\n)\n"
            f"print({name}(Program({self.seed}, inputs, steps, {self.outputs}, {self.mode!r}, "
            f"{self.reduction!r}, {self.optimizer!r}, {self.floats}, {self.options})))\n"
        )


@lru_cache(maxsize=8)
def _code(source: str) -> CodeType:
    return compile(source, "<fuzz>", "exec")


# ---- what it runs on ----------------------------------------------------------------------


def array(given: Input, seed: int) -> np.ndarray:
    """Entries that the seed decides, behind the strides that the layout names."""
    rng = np.random.default_rng(seed)
    shape, dtype = given.shape, np.dtype(given.dtype)
    if given.layout == "transposed":
        return drawn(rng, shape[::-1], dtype).T
    if given.layout == "stepped" and shape:
        return drawn(rng, (*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]
    if given.layout == "reversed" and shape:
        return drawn(rng, shape, dtype)[::-1]
    if given.layout == "repeated" and shape:
        return np.broadcast_to(drawn(rng, (min(shape[0], 1), *shape[1:]), dtype), shape)
    return drawn(rng, shape, dtype)


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        return rng.integers(0 if dtype.kind == "u" else -4, 5, shape).astype(dtype)
    values = rng.normal(size=shape)
    # Some zeros of both signs, and whole numbers, at which identities and ties are decided.
    special = rng.choice([0.0, -0.0, 1.0, -1.0], shape)
    return np.where(rng.random(shape) < rng.choice([0.0, 0.2]), special, values).astype(dtype)


class Instance:
    """A program with state of its own, ready to be called."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.held = {
            n: nt.Tensor(
                np.array(array(program.inputs[n], self._seed(n, 0))),
                requires_grad=program.inputs[n].role == "parameter",
            )
            for n in program.of_role("state", "parameter")
        }
        if program.options.get("laid"):
            self._lay()
        names: dict[str, Any] = {"nt": nt, "np": np, "F": F, "optim": optim}
        names |= {f"v{n}": tensor for n, tensor in self.held.items()}
        if program.mode == "training":
            parameters = [self.held[n] for n in program.of_role("parameter")]
            chosen = program.optimizer.format("parameters")
            names["optimizer"] = eval(chosen, {"optim": optim, "parameters": parameters})
        exec(_code(program.source()), names)
        self.function = names["program"]
        self.loss = names.get("loss")

    def _lay(self) -> None:
        """What is captured lies end to end, as an optimizer lays parameters."""
        for dtype in {t.dtype for t in self.held.values()}:
            lay_end_to_end([t for t in self.held.values() if t.dtype == dtype])

    def _seed(self, n: int, call: int) -> int:
        return (self.program.seed * 1009 + n) * 7 + call

    def arguments(self, call: int) -> list[nt.Tensor]:
        numbers = self.program.of_role("argument")
        arrays = [array(self.program.inputs[n], self._seed(n, call)) for n in numbers]
        assigned = {s.text.partition(".assign")[0] for s in self.program.steps if s.name is None}
        return [
            nt.Tensor(np.array(a) if f"v{n}" in assigned else a)
            for n, a in zip(numbers, arrays, strict=True)
        ]

    def run(self, function: Any, calls: int = 2) -> list[np.ndarray]:
        """What each call returns and leaves behind; `function` is this program, or compiled."""
        nt.random.seed(self.program.seed)
        found: list[np.ndarray] = []
        with np.errstate(all="ignore"):
            for call in range(calls):
                given = self.arguments(call)
                results = flattened(function(*given))
                found += [r.numpy().copy() for r in results]
                if self.program.mode == "split":
                    found += self._pulled(results)
                found += [t.numpy().copy() for t in (*given, *self.held.values())]
        return found

    def _pulled(self, results: list[nt.Tensor]) -> list[np.ndarray]:
        for tensor in self.held.values():
            tensor.grad = None
        places = [self.program.outputs.index(n) for n in self.program.floats]
        parts = [results[i] for i in places if results[i].requires_grad]
        if self.program.options.get("some"):  # to the others no gradient comes
            parts = parts[::2]
        if not parts:
            return []
        reduced = [eval(self.program.reduction.format("t"), {"t": t, "nt": nt}) for t in parts]
        sum(reduced[1:], reduced[0]).backward()
        return [t.grad.numpy().copy() for t in self.held.values() if t.grad is not None]


def flattened(result: Any) -> list[nt.Tensor]:
    if isinstance(result, tuple | list):
        return [t for part in result for t in flattened(part)]
    return [result]
