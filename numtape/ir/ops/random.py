"""Random numbers as a pure function of a state: the same in eager mode and on a tape.

The state is two unsigned integers, key and draw number. Draw number d with key k is the Philox
stream (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) of key k whose counter
starts at d·2^64, so no two draws share a block.
"""

from typing import Any

import numpy as np

from numtape.ir.op import Example, Op
from numtape.ir.types import DtypeError, Shape, Type

STATE = np.dtype(np.uint64)


def stream(state: np.ndarray) -> "np.random.Generator":
    """NumPy's generator for one draw."""
    key, draw = int(state[0]), int(state[1])
    return np.random.Generator(np.random.Philox(key=key, counter=draw << 64))


def _require_state(state: Type) -> None:
    if state.dtype != STATE or state.shape != (2,):
        raise DtypeError(f"a random state is u64[2] (key and draw number), not {state}")


def _infer_uniform(state: Type, shape: Shape, dtype: np.dtype) -> Type:
    _require_state(state)
    return Type(np.dtype(dtype), shape)


def fill_uniform(state: np.ndarray, out: np.ndarray, shape: Shape, dtype: np.dtype) -> None:
    """Uniform floats in [0, 1) into `out`."""
    stream(state).random(out=out, dtype=dtype)


def _reference_uniform(state: np.ndarray, shape: Shape, dtype: np.dtype) -> np.ndarray:
    philox = np.random.Philox(key=int(state[0]), counter=[0, int(state[1]), 0, 0])
    return np.random.Generator(philox).random(shape, dtype)


def _state(rng: "np.random.Generator") -> tuple[np.ndarray, ...]:
    return (rng.integers(0, 1000, 2).astype(STATE),)


_uniform = Op(
    "uniform",
    _infer_uniform,
    fill_uniform,
    examples=(
        Example(_state, _reference_uniform, {"shape": (3, 4), "dtype": np.dtype(np.float32)}),
    ),
)


def _infer_advance(state: Type, draws: int) -> Type:
    _require_state(state)
    return Type(STATE, (2,))


def step_state(state: np.ndarray, out: np.ndarray, draws: int) -> None:
    """The state after `draws` more draws."""
    out[0] = state[0]
    out[1] = state[1] + np.uint64(draws)


_advance = Op(
    "advance",
    _infer_advance,
    step_state,
    inplace=(0,),
    examples=(
        Example(_state, lambda state, draws: state + np.array([0, draws], STATE), {"draws": 3}),
    ),
)


def uniform(state: Any, shape: Shape, dtype: Any = np.float32) -> Any:
    """Uniform floats in [0, 1), a function of `state` (u64[2]) alone."""
    return _uniform(state, shape=tuple(shape), dtype=np.dtype(dtype))


def advance(state: Any, draws: int = 1) -> Any:
    """The state for the next draw."""
    return _advance(state, draws=draws)
