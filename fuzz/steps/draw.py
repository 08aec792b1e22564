"""What the functions that write lines share: random choices among the values there are.

Operands are strings, so that an expression is an f-string. Whether NumPy's rules allow it is not
asked: the generator tries each line, and drops it where numtape refuses.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

FLOATS, INTEGERS, BOOLEANS, NUMBERS, ALL = "f", "iu", "b", "fiu", "fiub"


class Operand(str):
    """The name of a value, which knows its dtype and shape."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> "Operand":
        made = cls(name)
        made.dtype, made.shape = array.dtype, array.shape
        return made

    @property
    def ndim(self) -> int:
        return len(self.shape)


class NoOperand(Exception):
    """There is no value of the wanted kind."""


class Draw:
    """Random choices among the values so far."""

    def __init__(self, rng: np.random.Generator, values: Sequence[Operand]) -> None:
        self.rng = rng
        self.values = values

    def one(self, items: Sequence[Any]) -> Any:
        return items[self.rng.integers(len(items))]

    def number(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def maybe(self, chance: float = 0.5) -> bool:
        return bool(self.rng.random() < chance)

    def value(self, kinds: str = FLOATS, test: Callable[[Operand], bool] | None = None) -> Operand:
        """A value of one of the kinds, rather one made lately."""
        able = [v for v in self.values if v.dtype.kind in kinds and (test is None or test(v))]
        if not able:
            raise NoOperand
        if self.maybe(0.4):
            return able[-1 - self.number(0, min(2, len(able) - 1))]
        return self.one(able)

    def deep(self, axes: int, kinds: str = FLOATS) -> Operand:
        return self.value(kinds, lambda v: v.ndim >= axes)

    def beside(self, x: Operand, kinds: str = NUMBERS) -> Operand:
        """A value that broadcasts with x."""
        return self.value(kinds, lambda v: broadcast(x.shape, v.shape) is not None)

    def axis(self, x: Operand) -> int:
        if not x.ndim:
            raise NoOperand
        return self.number(-x.ndim, x.ndim - 1)

    def axes(self, x: Operand) -> str:
        """None, one axis, or several."""
        if self.maybe(0.25) or not x.ndim:
            return "None"
        chosen = tuple(int(a) for a in self.rng.permutation(x.ndim)[: self.number(1, x.ndim)])
        return str(chosen if self.maybe(0.4) else chosen[0])

    def length(self) -> int:
        return int(self.rng.choice([0, 1, 2, 3, 4, 5], p=[0.04, 0.16, 0.2, 0.25, 0.2, 0.15]))

    def indices(self, size: int, shape: tuple[int, ...]) -> str:
        if size == 0:
            raise NoOperand
        return f"np.array({self.rng.integers(-size, size, shape).tolist()}, np.int64)"


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


Line = Callable[[Draw], str]


class Steps(list[tuple[float, Line]]):
    """Functions that write a line, each with how often it is wanted."""

    def __call__(self, weight: float = 1.0) -> Callable[[Line], Line]:
        def added(function: Line) -> Line:
            self.append((weight, function))
            return function

        return added
