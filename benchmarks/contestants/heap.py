"""What a step takes of Python's heap, NumPy's arrays among it."""

import tracemalloc
from collections.abc import Callable
from typing import Any


def heap_of(step: Callable[[], Any]) -> int:
    """Bytes at the fullest moment of a step beyond what was held before it."""
    tracemalloc.start()
    step()  # from now on, what a step replaces is known too
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before
