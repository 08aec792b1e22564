"""What an array held when it was used: a number that tells whether it was changed since.

NumPy does not say when somebody writes to an array, so what `backward()` reads again is compared.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

Look = Callable[[np.ndarray], Any]
SMALL = 4096  # bytes that are kept whole
PART = 1 << 15  # words that are mixed at once, in cache
SAMPLES = 256
LARGE = 1 << 20  # bytes: at half a millisecond each, what a compiled call cannot wait for


def fingerprint(array: np.ndarray) -> Any:
    """Equal for equal bytes, and other for others but by chance.

    Each word of four bytes is mixed, weighted by its place and summed; a change of any one word
    always changes the sum. Three passes over memory that is in cache.
    """
    if array.nbytes <= SMALL:
        return array.tobytes()
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    words = flat[: flat.size // 4 * 4].view(np.uint32)
    total = 0
    mixed = np.empty(PART, np.uint32)
    for start in range(0, words.size, PART):
        part = words[start : start + PART]
        out = mixed[: part.size]
        np.right_shift(part, 16, out=out)  # or two signs that change would cancel each other
        np.bitwise_xor(out, part, out=out)
        np.multiply(out, _weights()[: part.size], out=out)
        total = (total * 0x9E3779B1 + int(np.add.reduce(out, dtype=np.uint32))) % (1 << 61)
    return total, flat[words.nbytes :].tobytes()


@cache
def _weights() -> np.ndarray:
    """Odd numbers, so that no product loses a change."""
    return np.random.Generator(np.random.PCG64(1)).integers(
        0, 1 << 31, PART, np.uint32
    ) * np.uint32(2) + np.uint32(1)


def glance(array: np.ndarray) -> Any:
    """The fingerprint, or of a large array only samples."""
    return fingerprint(array) if array.nbytes <= LARGE else sample(array)


def sample(array: np.ndarray) -> bytes:
    """Entries here and there: what there is time for where an array is large."""
    return array.flat[:: max(1, array.size // SAMPLES)].tobytes()
