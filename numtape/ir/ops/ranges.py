"""Numbers that follow a rule, made from nothing."""

from typing import Any

import numpy as np

from numtape.ir.op import Example, Op
from numtape.ir.ops.rules import lengths
from numtape.ir.types import DtypeError, Type


def _infer_arange(start: int, stop: int, step: int, dtype: np.dtype) -> Type:
    return Type(np.dtype(dtype), (len(range(start, stop, step)),))


def count(out: np.ndarray, start: int, stop: int, step: int, dtype: np.dtype) -> None:
    """`np.arange` into `out`."""
    out[...] = np.arange(start, stop, step).astype(dtype)


_arange = Op(
    "arange",
    _infer_arange,
    count,
    examples=(
        Example(
            lambda rng: (), np.arange, {"start": 1, "stop": 8, "step": 3, "dtype": np.dtype("i8")}
        ),
    ),
)


def _infer_linspace(start: float, stop: float, num: int, endpoint: bool, dtype: np.dtype) -> Type:
    return Type(np.dtype(dtype), (num,))


def space(
    out: np.ndarray, start: float, stop: float, num: int, endpoint: bool, dtype: np.dtype
) -> None:
    """`np.linspace` into `out`."""
    out[...] = np.linspace(start, stop, num, endpoint)


_linspace = Op(
    "linspace",
    _infer_linspace,
    space,
    examples=(
        Example(
            lambda rng: (),
            np.linspace,
            {"start": -1.0, "stop": 2.0, "num": 7, "endpoint": True, "dtype": np.dtype("f8")},
        ),
    ),
)


def arange(start: int, stop: int | None = None, step: int = 1, dtype: Any = np.int64) -> Any:
    """Integers from `start` (0 if only one bound is given) to before `stop`."""
    if any(isinstance(n, float | np.floating) for n in (start, stop, step)):
        raise DtypeError("arange counts in integers; for floats use start + step * arange(count)")
    if step == 0:
        raise ValueError("arange: a step of 0 never arrives")
    first, last = (0, start) if stop is None else (start, stop)
    return _arange(start=int(first), stop=int(last), step=int(step), dtype=np.dtype(dtype))


def linspace(
    start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: Any = np.float32
) -> Any:
    """`num` floats at equal distances from `start` to `stop`, which `endpoint` includes."""
    (count,) = lengths((num,))
    numbers = {"start": float(start), "stop": float(stop)}
    return _linspace(**numbers, num=count, endpoint=bool(endpoint), dtype=np.dtype(dtype))
