"""Moving tensors into one block of memory, end to end: what is done to all is one operation then.

The entries stay what they are. Who holds the array itself (`numpy()`, a view, a compiled tape)
would go on with memory that the tensor has left, so that such a tensor stays where it is.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from numtape.ir.memory import lie_end_to_end, reserve
from numtape.tracer.tensor import Tensor


def are_end_to_end(tensors: Sequence[Tensor]) -> bool:
    """Whether the tensors lie in one block, each where the one before ends."""
    traced = any(t.is_traced for t in tensors)
    return not traced and lie_end_to_end([t._payload for t in tensors])


def can_move(tensor: Tensor) -> bool:
    """Whether a tensor has a dense array of its own, which nobody else holds."""
    if tensor.is_traced or not _is_dense(tensor._payload.flags):
        return False
    return _holders(tensor) == _holders(Tensor(np.zeros(1)))


def _is_dense(flags: Any) -> bool:
    return flags.owndata and flags.c_contiguous and flags.writeable


def _holders(tensor: Tensor) -> int:
    """How many hold the array, who asks among them."""
    return sys.getrefcount(tensor._payload)


def lay_end_to_end(tensors: Sequence[Tensor]) -> None:
    """Move tensors of one dtype, all of which can, into one block in this order."""
    flat = reserve(sum(t.nbytes for t in tensors)).view(tensors[0].dtype)
    start = 0
    for t in tensors:
        place = flat[start : start + t.size].reshape(t.shape)
        np.copyto(place, t._payload)
        t.move(place)
        start += t.size
