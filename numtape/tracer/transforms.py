"""`grad` and `value_and_grad`: functions into the functions of their gradients."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from numtape.ir.graph import ancestors
from numtape.ir.interpreter import current
from numtape.ir.ops.elementwise import alias
from numtape.ir.ops.shapes import full, zeros_like
from numtape.ir.types import ShapeError
from numtape.tracer.recorder import Recorder, grad_enabled, is_released, recording
from numtape.tracer.structure import rebuild
from numtape.tracer.tensor import Tensor


def value_and_grad(function: Callable, argnums: int | Sequence[int] = 0) -> Callable:
    """A function that gives `function`'s scalar and its gradients.

    The gradients have the nesting of the arguments `argnums` names (one argument's alone for an
    int). Composes with itself and with `compile`.
    """
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @wraps(function)
    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        leaves: list[Tensor] = []
        chosen = list(args)
        for p in positions:
            chosen[p] = rebuild(args[p], _is_float, lambda x: _fresh(x, leaves))
        with recording(True):
            out = function(*chosen, **kwargs)
            found = _pull(out, leaves)
        answers = [found[t] if t in found else zeros_like(t) for t in leaves]
        _settle((out, *answers), leaves)
        flat = iter(answers)
        gradients = tuple(rebuild(args[p], _is_float, lambda _: next(flat)) for p in positions)
        return out, gradients[0] if isinstance(argnums, int) else gradients

    return differentiated


def grad(function: Callable, argnums: int | Sequence[int] = 0) -> Callable:
    """A function that gives the gradient of `function`, which returns a scalar."""
    both = value_and_grad(function, argnums)

    @wraps(function)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return differentiated


def _pull(out: Any, leaves: list[Tensor]) -> dict[Tensor, Tensor]:
    if not isinstance(out, Tensor) or out.shape != ():
        shown = out.type if isinstance(out, Tensor) else type(out).__name__
        raise ShapeError(f"grad needs a function that returns a scalar tensor, not {shown}")
    if not out.requires_grad:
        return {}
    recorder: Recorder = current()  # type: ignore[assignment]
    return recorder.pull((out,), (full((), 1, out.dtype),), create_graph=True, leaves=leaves)


def _settle(results: Sequence[Tensor], leaves: Sequence[Tensor]) -> None:
    """Forget what was recorded for the leaves alone, which nobody outside can ask for."""
    for t in leaves:
        t._requires_grad = t.op is not None
    first = leaves[0].index if leaves else 0
    for t in sorted(ancestors(results), key=lambda t: t.index):
        made_here = t.index >= first and t.op is not None and not is_released(t)
        if made_here and not (grad_enabled() and any(x._requires_grad for x in t.inputs)):
            t._requires_grad, t.op, t.inputs = False, None, ()


def _is_float(value: Any) -> bool:
    return (isinstance(value, Tensor | np.ndarray) and value.dtype.kind == "f") or isinstance(
        value, float
    )


def _fresh(value: Any, leaves: list[Tensor]) -> Tensor:
    """A tensor to differentiate for, still tied to the value it stands for."""
    recorder: Recorder = current()  # type: ignore[assignment]
    lifted = recorder.lift(value)
    payload, type = recorder.compute(alias, (lifted,), {})
    fresh = Tensor.wrap(payload, type, recorder.owner)
    if lifted.requires_grad and grad_enabled():
        fresh.record(alias, (lifted,), {})
    fresh._requires_grad = True
    leaves.append(fresh)
    return fresh
