"""What layers demand of their sizes, so that errors name the argument and not NumPy's insides."""

from typing import Any

import numpy as np


def check_sizes(**sizes: Any) -> None:
    """ValueError that names the first argument which is no positive whole number."""
    for name, size in sizes.items():
        whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
        if not whole or size < 1:
            raise ValueError(f"{name} is a positive whole number, got {size!r}")


def check_probability(name: str, p: float) -> None:
    """ValueError unless p lies in [0, 1]."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{name}: the probability lies in [0, 1], got {p}")
