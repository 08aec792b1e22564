"""A failure made small: fewer steps and outputs, smaller inputs, simpler dtypes and modes."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from fuzz.check import Found, check
from fuzz.generator import REFUSALS
from fuzz.program import Input, Instance, Program, Step

Test = Callable[[Program], bool]
Check = Callable[[Program], Found]


def shrink(program: Program, failure: str, by: Check = check) -> Program:
    """The smallest program that is found to fail in the same way."""
    return reduced(program, lambda p: failure_of(p, by) == failure)


def failure_of(program: Program, by: Check = check) -> str:
    """The name of the first check that does not hold; none where eager mode refuses."""
    try:
        found = by(program)
    except (*REFUSALS, NameError, SyntaxError, AttributeError):
        return ""
    return found.failure


def reduced(program: Program, fails: Test) -> Program:
    """What remains when no simpler neighbour fails any more."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _simpler(program):
            if fails(candidate):
                program, smaller = candidate, True
                break
    return program


def _simpler(program: Program) -> Iterator[Program]:
    yield from _cut(program)
    yield from _fewer_outputs(program)
    yield from _dropped(program)
    yield from _plainer(program)
    yield from _smaller_inputs(program)


def _cut(program: Program) -> Iterator[Program]:
    """One value given instead of computed, from the last: all that led to it goes."""
    for step in reversed(program.steps):
        given = _type_of(program, step) if step.name is not None else None
        if given is not None:
            rest = tuple(s for s in program.steps if s is not step)
            inputs = {**program.inputs, step.name: given}
            made = replace(program, inputs=inputs, steps=rest).pruned()
            if len(made.steps) < len(program.steps):
                yield made


def _type_of(program: Program, step: Step) -> Input | None:
    shown = replace(program, outputs=(step.name,), floats=(), mode="values").pruned()
    try:
        value = Instance(shown)
        array = value.run(value.function, calls=1)[0]
    except (*REFUSALS, NameError):
        return None
    return Input(array.shape, array.dtype.str[1:])


def _fewer_outputs(program: Program) -> Iterator[Program]:
    for n in program.outputs:
        rest = tuple(m for m in program.outputs if m != n)
        floats = tuple(m for m in program.floats if m != n)
        if rest and (floats or not program.floats):
            yield replace(program, outputs=rest, floats=floats).pruned()
    for n in program.outputs:  # further back
        for step in program.steps:
            for m in step.reads if step.name == n and n not in program.inputs else ():
                moved = tuple(m if k == n else k for k in program.outputs)
                floats = tuple(m if k == n else k for k in program.floats)
                yield replace(program, outputs=moved, floats=floats).pruned()


def _dropped(program: Program) -> Iterator[Program]:
    """Without one assignment, or with one value in place of what is made of it."""
    for i, step in enumerate(program.steps):
        rest = (*program.steps[:i], *program.steps[i + 1 :])
        if step.name is None:
            yield replace(program, steps=rest).pruned()


def _plainer(program: Program) -> Iterator[Program]:
    for key in ("tile", "budget", "some", "clip", "laid"):
        if program.options.get(key):
            yield replace(program, options={**program.options, key: 0})
    if program.mode == "second":
        yield replace(program, mode="gradient")
    if program.mode != "values":
        yield replace(program, mode="values")
    if program.reduction != "{0}.sum()":
        yield replace(program, reduction="{0}.sum()")
    for n, given in program.inputs.items():
        for change in ({"layout": "dense"}, {"dtype": "f8"}, {"role": "argument"}):
            key, value = next(iter(change.items()))
            plain = key != "dtype" or given.dtype == "f4"
            if plain and getattr(given, key) != value:
                yield _with(program, n, replace(given, **change))


def _smaller_inputs(program: Program) -> Iterator[Program]:
    """One length of all inputs that have it, then of one alone, made less."""
    lengths = sorted({m for i in program.inputs.values() for m in i.shape if m > 1})
    for length in lengths:
        for less in {1, 2, length - 1} - {length}:
            inputs = {
                n: replace(i, shape=tuple(less if m == length else m for m in i.shape))
                for n, i in program.inputs.items()
            }
            yield replace(program, inputs=inputs)
    for n, given in program.inputs.items():
        if given.shape:
            yield _with(program, n, replace(given, shape=given.shape[1:]))
        for axis in np.flatnonzero(np.array(given.shape) > 1):
            shape = (*given.shape[:axis], 1, *given.shape[axis + 1 :])
            yield _with(program, n, replace(given, shape=shape))


def _with(program: Program, n: int, given: Input) -> Program:
    return replace(program, inputs={**program.inputs, n: given})
