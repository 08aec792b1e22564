"""Clipping gradients by their norm, between `backward()` and `step()`."""

from collections.abc import Iterable

from numtape.functions import minimum, zeros
from numtape.tracer.recorder import no_grad
from numtape.tracer.tensor import Tensor


def clip_grad_norm_(parameters: Iterable[Tensor] | Tensor, max_norm: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most `max_norm`.

    Returns the norm before (Pascanu et al., 2013), a scalar tensor: 0 where no parameter has a
    gradient. An infinite or NaN norm makes the gradients NaN, as it should.
    """
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    with no_grad():
        pairs = [(p, p.grad) for p in given if p.grad is not None]
        if not pairs:
            return zeros(())
        norm = _total([g.square().sum() for _, g in pairs]).sqrt()
        share = minimum(max_norm / (norm + 1e-6), 1.0)
        for p, g in pairs:
            p.grad = g * share.astype(g.dtype)
    return norm


def _total(values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
