"""PyTorch beside numtape: how near the two have to be.

A test module that imports from here is skipped, with this reason, where PyTorch is not installed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numtape as nt

torch = pytest.importorskip("torch", reason="PyTorch is an extra: `make test-torch` installs it")

DTYPES = (np.float64, np.float32)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
MODES = ("eager", "compiled", "exact")
each_mode = pytest.mark.parametrize("mode", MODES)

# Relative and absolute: |found - expected| <= tolerance · (1 + |expected|).
TOLERANCES: dict[str, dict[Any, float]] = {
    "value of an op": {np.float64: 5e-15, np.float32: 2e-6},
    "gradient of an op": {np.float64: 1e-14, np.float32: 3e-6},
    "second gradient of an op": {np.float64: 1e-14, np.float32: 1e-5},
    "layer or loss": {np.float64: 5e-15, np.float32: 2e-6},
    "gradient of a layer or loss": {np.float64: 1e-14, np.float32: 3e-6},
    "training step": {np.float64: 1e-14, np.float32: 2e-6},
    "logits of a model": {np.float64: 2e-14, np.float32: 1e-5},
    "loss of a model": {np.float64: 5e-15, np.float32: 1e-6},
    "gradient of a model": {np.float64: 1e-14, np.float32: 3e-6},
    "losses of twenty steps": {np.float64: 1e-14, np.float32: 3e-6},
    "learning rate": {np.float64: 5e-15},
}


def close(found: Any, expected: Any, kind: str, dtype: Any, message: str = "") -> None:
    """A tensor or array of numtape's against one of PyTorch's, as near as `kind` has to be."""
    mine, other = as_array(found), as_array(expected)
    assert mine.shape == other.shape, message
    tolerance = TOLERANCES[kind][dtype]
    np.testing.assert_allclose(mine, other, tolerance, tolerance, err_msg=f"{kind} {message}")


def as_array(x: Any) -> np.ndarray:
    if isinstance(x, torch.Tensor):
        return x.numpy(force=True)  # of the zeros without memory too
    return x.numpy() if isinstance(x, nt.Tensor) else np.asarray(x)


def run(function: Callable, mode: str) -> Callable:
    """A function as it is, or compiled in one of two ways."""
    return function if mode == "eager" else nt.compile(function, exact=mode == "exact")
