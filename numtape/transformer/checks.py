"""What a model demands of its token ids, so that errors speak of sentences and not of axes."""

from typing import Any

import numpy as np

from numtape.ir.interpreter import current
from numtape.ir.location import OutOfRange
from numtape.ir.types import DtypeError, ShapeError
from numtape.tracer.trace import tracing


def as_ids(ids: Any, name: str, longest: int, vocab: int) -> Any:
    """A tensor of `name` ids (B, T); ShapeError, DtypeError or IndexError for anything else."""
    held = current().lift(ids)
    if held.dtype.kind not in "iu":
        raise DtypeError(f"the {name} is made of integer ids, not of {held.dtype}")
    if held.ndim != 2 or 0 in held.shape:
        raise ShapeError(
            f"the {name} has shape (B, T) with at least one id, not {held.shape}; a single "
            "sentence is a batch of one, ids[None]"
        )
    check_length(held.shape[1], longest, name)
    if tracing() is None:  # a tape checks the range of its indices itself
        check_vocabulary(held.numpy(), name, vocab)
    return held


def check_vocabulary(ids: np.ndarray, name: str, vocab: int) -> None:
    """IndexError that names the first id outside [0, vocab)."""
    outside = (ids < 0) | (ids >= vocab)
    if outside.any():
        place = tuple(int(i) for i in np.argwhere(outside)[0])
        raise OutOfRange(
            f"the {name} has the id {ids[place]} at {place}, but its vocabulary ends at "
            f"{vocab - 1}; was it encoded with another vocabulary?"
        )


def check_length(length: int, longest: int, name: str = "sequence") -> None:
    """ShapeError for a sequence longer than a model's positions."""
    if length > longest:
        raise ShapeError(
            f"a {name} of {length} positions is longer than the {longest} that the model was "
            "built for; shorten it, or build the model with a larger maximum"
        )
