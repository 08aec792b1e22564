"""What an array held when it was used: a few numbers that tell whether it was changed since.

NumPy does not say when somebody writes to an array, so what `backward()` reads again is compared.
"""

from typing import Any

import numpy as np

SMALL = 4096  # bytes that are kept whole
SAMPLES = 256


def fingerprint(array: np.ndarray) -> Any:
    """Equal for equal bytes; a change of one entry, or of all, always makes another.

    The sum of all entries as integers shows any single change, entries here and there show most
    of those that keep the sum, such as an array that was shuffled. One pass over memory.
    """
    if array.nbytes <= SMALL:
        return array.tobytes()
    words = array.view(f"u{array.itemsize}")
    wide = words.dtype if array.itemsize >= 4 else np.dtype(np.uint64)
    return int(np.add.reduce(words, axis=None, dtype=wide)), sample(array)


def sample(array: np.ndarray) -> bytes:
    """Entries here and there: what there is time for where an array is large."""
    return array.flat[:: max(1, array.size // SAMPLES)].tobytes()
