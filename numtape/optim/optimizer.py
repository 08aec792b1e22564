"""What all optimizers share: groups of parameters, learning rates, and state that is tensors.

Everything that changes from step to step is a tensor, so a traced step reads it as an input and
updates it as an output; everything else is an attribute, whose change asks for a new trace.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from types import MethodType
from typing import Any

import numpy as np

from numtape.ir.types import Type
from numtape.optim.bundles import Rule, bundles
from numtape.tracer.holder import Holder, joined
from numtape.tracer.recorder import no_grad
from numtape.tracer.tensor import Tensor
from numtape.tracer.trace import Trace, tracing

Schedule = Callable[[Any], Any]
Rate = float | Schedule


class Group(Holder):
    """Parameters that share a learning rate and a weight decay."""

    def __init__(self, parameters: Iterable[Tensor], lr: Rate, weight_decay: float) -> None:
        self.parameters = tuple(parameters)
        self.weight_decay = check_not_negative("weight_decay", weight_decay)
        self.schedule = lr if callable(lr) else None
        self._lr = scalar_state(0.0)
        self._lr.assign(lr(1) if callable(lr) else check_not_negative("lr", lr))

    @property
    def lr(self) -> Tensor:
        """The learning rate, a float64 scalar tensor; under a schedule, that of the last step."""
        return self._lr

    @lr.setter
    def lr(self, value: Any) -> None:
        if self.schedule is not None:
            raise ValueError(
                "this learning rate follows the schedule that the optimizer was made with; make "
                "it with a number in order to set the rate from outside"
            )
        if callable(value):
            raise TypeError(
                "a schedule is given when an optimizer is made, as its lr; set later, a rate is a "
                "number"
            )
        self._lr.assign(value)


class Optimizer(Holder):
    """Base of the optimizers: give it `moments` and `rule`.

    params: tensors, or dicts {"params": tensors, "lr": ..., "weight_decay": ...} that may
    differ from the settings given here. lr: a number, to be changed by `optimizer.lr = number`
    between steps, or a schedule: a function of the step (1 at the first update), evaluated inside
    the step. Raises ValueError or TypeError for parameters that cannot be optimized.
    """

    moments: tuple[str, ...] = ()  # names of what is kept per parameter, of its shape

    def __init__(self, params: Iterable[Any], lr: Rate, weight_decay: float) -> None:
        self.groups = _groups(params, lr, weight_decay)
        self.steps = scalar_state(0.0)
        self.bundles = tuple(bundles(g.parameters, len(self.moments)) for g in self.groups)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters of all groups."""
        return tuple(p for group in self.groups for p in group.parameters)

    @property
    def lr(self) -> Tensor:
        """The learning rate of the first group; setting it sets those of all groups."""
        return self.groups[0].lr

    @lr.setter
    def lr(self, value: Any) -> None:
        for group in self.groups:
            group.lr = value

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        with no_grad(), self._recorded():
            count = self.steps.astype(np.float64) + 1.0
            self.steps.assign(count)
            for group, parts in zip(self.groups, self.bundles, strict=True):
                if group.schedule is not None:
                    group.lr.assign(group.schedule(count))
                rule = self.rule(count, group.lr.astype(np.float64), group.weight_decay)
                for bundle in parts:
                    bundle.update(rule)

    def rule(self, count: Tensor, lr: Tensor, weight_decay: float) -> Rule:
        """How a parameter changes: a function (p, g, *moments) -> (new p, *new moments).

        It must go entry by entry: small parameters are updated together, laid end to end.
        `count` (this step's, from 1) and `lr` are float64 scalars: reckon with them first, and
        cast the result to the dtype of the parameter.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rule(); define it")

    def zero_grad(self) -> None:
        """Clear the gradients of all parameters."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """The step count, the learning rates and the moments."""
        rates = {f"groups.{i}.lr": group.lr for i, group in enumerate(self.groups)}
        apart = (pair for parts in self.bundles for b in parts for pair in b.moments_apart())
        found = {id(p): tensors for p, tensors in apart}
        moments = {
            f"{name}.{i}": found[id(p)][position]
            for position, name in enumerate(self.moments)
            for i, p in enumerate(self.parameters)
        }
        return {"steps": self.steps, **rates, **moments}

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """While tracing: watch the settings, and mark what is recorded as the optimizer's."""
        recorder = tracing()
        if recorder is None:
            yield
            return
        path = "optimizer"
        self._name_state(recorder, path)
        self.watch(recorder, path)
        for i, group in enumerate(self.groups):
            group.watch(recorder, joined(path, f"groups.{i}"))
        with recorder.builder.scope.inside(path):
            yield

    def _name_state(self, recorder: Trace, path: str) -> None:
        """Moments are called after their parameter in graphs and source, if it stands alone."""
        recorder.name(self.steps, joined(path, "steps"))
        for i, group in enumerate(self.groups):
            recorder.name(group.lr, joined(path, f"groups.{i}.lr"))
        for bundle in chain.from_iterable(self.bundles):
            first, *others = bundle.parameters
            owner = path if others else recorder.name_of(first)
            for moment, tensor in zip(self.moments, bundle.moments, strict=True):
                recorder.name(tensor, joined(owner, moment))


def scalar_state(value: float) -> Tensor:
    """A float64 scalar that takes the dtype of what it meets."""
    return Tensor.wrap(np.array(value, np.float64), Type(np.dtype(np.float64), (), weak=True))


def check_not_negative(name: str, value: float) -> float:
    """The value, or ValueError if it is negative, infinite or NaN."""
    if not (0.0 <= value < math.inf):
        raise ValueError(f"{name} is a finite number not below 0, got {value}")
    return value


def check_fraction(name: str, value: float) -> float:
    """The value, or ValueError outside [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} lies in [0, 1), got {value}")
    return value


def _groups(parameters: Iterable[Any], lr: Rate, weight_decay: float) -> tuple[Group, ...]:
    if isinstance(parameters, Tensor):
        raise TypeError("an optimizer takes a list of parameters, not one tensor: put it in []")
    if isinstance(parameters, MethodType):
        name = parameters.__name__
        raise TypeError(f"an optimizer takes parameters, not the method {name}: call it, {name}()")
    entries = list(parameters)
    if not any(isinstance(entry, Mapping) for entry in entries):
        entries = [{"params": entries}]
    groups = tuple(_group(entry, lr, weight_decay) for entry in entries)
    _check_parameters([p for group in groups for p in group.parameters])
    return groups


def _group(entry: Any, lr: Rate, weight_decay: float) -> Group:
    if not isinstance(entry, Mapping) or "params" not in entry:
        raise TypeError(f'a parameter group is a dict with "params", not {type(entry).__name__}')
    unknown = entry.keys() - {"params", "lr", "weight_decay"}
    if unknown:
        raise ValueError(
            f'a parameter group has "params", "lr" and "weight_decay", not {sorted(unknown)}'
        )
    return Group(entry["params"], entry.get("lr", lr), entry.get("weight_decay", weight_decay))


def _check_parameters(parameters: list[Any]) -> None:
    if not parameters:
        raise ValueError("an optimizer needs parameters and got none")
    for i, p in enumerate(parameters):
        if not isinstance(p, Tensor):
            raise TypeError(
                f"parameter {i} is a {type(p).__name__}, not a tensor; give model.parameters()"
            )
        if p.dtype.kind != "f" or not p.is_leaf:
            raise ValueError(
                f"parameter {i} ({p.type}) is not a float tensor made by the user; give "
                "model.parameters()"
            )
    if len({id(p) for p in parameters}) < len(parameters):
        raise ValueError("a parameter is given twice; each belongs to one group, once")
