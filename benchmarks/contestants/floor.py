"""The floor: what a step's matrix products alone take.

One step is run with `numpy.matmul` watched; every call counts whose two factors are both
matrices, that is, have no axis of length 1 among the last two (sums written as products with
ones fall out). The floor is these calls in the same order, with `out=`, on arrays of the same
shapes and strides, as many different ones as the step has.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

Product = tuple[np.ndarray, np.ndarray, np.ndarray]


class Floor:
    """The products of a step, to be called as often as one likes."""

    def __init__(self, step: Callable[[], Any]) -> None:
        copies = _Copies()
        self.calls = [
            (copies.of(x), copies.of(y), copies.of(out, True)) for x, y, out in _products(step)
        ]

    def __call__(self) -> None:
        for x, y, out in self.calls:
            np.matmul(x, y, out=out)


class _Copies:
    """Arrays of random numbers in place of the step's, one for each."""

    def __init__(self) -> None:
        self.made: dict[tuple, np.ndarray] = {}
        self.generator = np.random.default_rng(0)

    def of(self, array: np.ndarray, written: bool = False) -> np.ndarray:
        """Results never become factors: run after run of products would grow without end."""
        address = array.__array_interface__["data"][0]
        key = (address, array.shape, array.strides, written)
        if key not in self.made:
            self.made[key] = self._like(array)
        return self.made[key]

    def _like(self, array: np.ndarray) -> np.ndarray:
        reach = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
        memory = self.generator.standard_normal(reach // array.itemsize + 1, np.float32)
        return np.lib.stride_tricks.as_strided(memory, array.shape, array.strides)


def _products(step: Callable[[], Any]) -> list[Product]:
    seen: list[Product] = []
    matmul = np.matmul

    def watched(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> np.ndarray:
        if 1 not in (*x.shape[-2:], *y.shape[-2:]) and min(x.ndim, y.ndim) > 1:
            seen.append((x, y, out))
        return matmul(x, y, out=out)

    with mock.patch.object(np, "matmul", watched):
        step()
    return seen
