"""Random numbers for dropout and initialisation: counter-based, the same eager and compiled."""

from typing import Any

import numpy as np

from numtape.ir.location import user_line
from numtape.ir.ops import random as ops
from numtape.ir.types import Shape
from numtape.tracer.tensor import Tensor, TraceError
from numtape.tracer.trace import tracing


class Generator:
    """Draws whose state is a tensor of two integers, key and number of draws so far.

    A compiled function that draws reads the state as an input and updates it, so that a tape and
    the eager run it was traced from draw the same numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        self.state = Tensor(np.array([seed, 0], ops.STATE))

    def seed(self, seed: int) -> None:
        """Start again from `seed`, a non-negative integer below 2^64."""
        self.state.assign(np.array([seed, 0], ops.STATE))

    def uniform(self, shape: Shape, dtype: Any = np.float32) -> Any:
        """Floats in [0, 1) of the given shape."""
        drawn = ops.uniform(self.state, shape, dtype)
        self.state.assign(ops.advance(self.state))
        return drawn

    def numpy(self) -> "np.random.Generator":
        """A NumPy generator for one use outside compiled functions, such as initialisation."""
        if tracing() is not None:
            raise TraceError(
                f"at {user_line()}: a traced function cannot draw initial values, which would be "
                "frozen into the tape; make modules and parameters outside of it"
            )
        stream = ops.stream(self.state.numpy())
        self.state.assign(ops.advance(self.state))
        return stream


default = Generator()


def seed(seed: int) -> None:
    """Start the default generator again; dropout and initialisers draw from it."""
    default.seed(seed)
