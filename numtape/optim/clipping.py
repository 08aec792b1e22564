"""Clipping gradients by their norm, between `backward()` and `step()`."""

from collections.abc import Iterable

from numtape.functions import minimum, zeros
from numtape.optim.bundles import joined, parted, together
from numtape.tracer.recorder import no_grad
from numtape.tracer.tensor import Tensor


def clip_grad_norm_(parameters: Iterable[Tensor] | Tensor, max_norm: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most `max_norm`.

    Returns the norm before (Pascanu et al., 2013), a scalar tensor: 0 where no parameter has a
    gradient. An infinite or NaN norm makes the gradients NaN, as it should.
    """
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    with no_grad():
        groups = together(p for p in given if p.grad is not None)
        if not groups:
            return zeros(())
        gradients = [joined([p.grad for p in group]) for group in groups]
        norm = _total([g.square().sum() for g in gradients]).sqrt()
        share = minimum(max_norm / (norm + 1e-6), 1.0)
        for group, g in zip(groups, gradients, strict=True):
            parts = parted(g * share.astype(g.dtype), group)
            for p, part in zip(group, parts, strict=True):
                assert p.grad is not None
                p.grad = part.astype(p.grad.dtype)  # which joining may have widened
    return norm


def _total(values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
