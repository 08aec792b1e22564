"""What a step takes of Python's heap, NumPy's arrays among it."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

SMALLEST = 64  # entries of NumPy's buffers


def without_buffers(step: Callable[[], Any]) -> int:
    """The same with NumPy's own buffers, through which ufuncs read transposed arrays and other
    dtypes, as small as they can be."""
    usual = np.setbufsize(SMALLEST)
    try:
        return heap_of(step)
    finally:
        np.setbufsize(usual)


def heap_of(step: Callable[[], Any]) -> int:
    """Bytes at the fullest moment of a step beyond what was held before it."""
    tracemalloc.start()
    step()  # from now on, what a step replaces is known too
    gc.collect()  # or cycles that it left might go while the next one runs, and count against it
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before
