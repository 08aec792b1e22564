"""An operation is one value: shape rule, gradient rule, kernel and example in one place.

A kernel is called as `kernel(*inputs, out=out, **attrs)`; NumPy's ufuncs and reductions are
kernels as they stand. Eager mode and the replayed tape call the same kernel.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from numtape.ir.interpreter import current
from numtape.ir.types import (
    BOOL,
    FLOAT,
    INT,
    DtypeError,
    Scalar,
    ShapeError,
    Type,
    common_dtype,
    is_float,
)

Rule = Callable[..., Any]
REGISTRY: dict[str, "Op"] = {}


@dataclass(frozen=True)
class Example:
    """One call from which the suite derives every check of an op.

    `inputs(rng)` gives the arrays (floats in float64), `reference(*inputs, **attrs)` the answer
    by NumPy alone.
    """

    # In quotes here and elsewhere: NumPy loads its random part only when it is named.
    inputs: "Callable[[np.random.Generator], tuple[np.ndarray, ...]]"
    reference: Callable[..., np.ndarray]
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Op:
    """A pure function on arrays with one result.

    infer    (*types, **attrs) -> Type of the result; raises ShapeError or DtypeError.
    kernel   writes the result into `out`; absent for composites and views.
    view     (x, **attrs) -> the result as a NumPy view of x: no work at replay.
    expand   a composite's meaning, as a function on values written with other ops.
    vjps     per input, (g, out, *inputs, **attrs) -> its gradient; None where there is none.
             A function `i -> rule` where the number of inputs varies.
    inplace  inputs whose memory `out` may take.
    promotes which inputs meet in a common dtype: "all", "float" (integers become floats
             first), "tail" (all but the first) or "none".
    broadcasts  gradients are summed back to the shape of an input that was broadcast.
    entrywise   each entry of the result is computed from the entries of the inputs at its place,
             where they have been broadcast.
    ordered  for what adds up, in an order that NumPy or BLAS chooses by where entries lie:
             (*types) -> per input, whether all of it must be dense or only its matrices; see
             `ops.dense`.
    rows     (*types, **attrs) -> along how many leading axes of the result it is computed one by
             one, from the inputs at the same place. Absent, along none; entrywise, along all.
    """

    name: str
    infer: Callable[..., Type]
    kernel: Callable[..., Any] | None = None
    vjps: Sequence[Rule | None] | Callable[[int], Rule | None] = ()
    view: Callable[..., np.ndarray] | None = None
    expand: Callable[..., Any] | None = None
    inplace: tuple[int, ...] = ()
    promotes: str = "none"
    broadcasts: bool = False
    entrywise: bool = False
    ordered: Callable[..., tuple[bool, ...]] | None = None
    rows: Callable[..., int] | None = None
    examples: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        if self.name in REGISTRY:
            raise ValueError(f"an operation named {self.name} exists already")
        REGISTRY[self.name] = self

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        interpreter = current()
        dtypes = self._input_dtypes(args)
        return interpreter.run(self, tuple(map(interpreter.lift, args, dtypes)), attrs)

    def operate(self, *args: Any) -> Any:
        """What Python's operator gives: its numbers, among themselves, stay numbers."""
        if not all(map(_is_number, args)):
            return self(*args)
        interpreter = current()
        return interpreter.run(self, tuple(map(interpreter.number, args)), {})

    def vjp(self, position: int) -> Rule | None:
        """The gradient rule of one input."""
        return self.vjps(position) if callable(self.vjps) else self.vjps[position]

    @property
    def differentiable(self) -> bool:
        return bool(self.vjps)

    def type_of(self, types: Sequence[Type], attrs: Mapping[str, Any]) -> Type:
        """The result's type; an error names the op and the user's line."""
        try:
            return self.infer(*types, **attrs)
        except (ShapeError, DtypeError) as error:
            raise type(error)(f"{self.name}: {error.reason}") from None

    def _input_dtypes(self, args: tuple) -> tuple[np.dtype | None, ...]:
        if self.promotes == "none" or not args:
            return (None,) * len(args)
        skipped = 1 if self.promotes == "tail" else 0
        met = args[skipped:]
        dtype = _meeting_dtype(met)
        if self.promotes == "float" and not is_float(dtype):
            dtype = FLOAT
        return (None,) * skipped + (dtype,) * len(met)


def ufunc_op(ufunc: np.ufunc) -> Op | None:
    """The operation whose kernel is a NumPy ufunc."""
    return next((op for op in REGISTRY.values() if op.kernel is ufunc), None)


def _meeting_dtype(args: tuple) -> np.dtype:
    strong: list[np.dtype] = []
    weak: list[np.dtype] = []
    for a in args:
        if isinstance(a, Scalar):
            weak.append(scalar_dtype(a))
        else:
            (weak if getattr(a, "weak", False) else strong).append(dtype_of(a))
    return common_dtype(strong, weak)


def _is_number(value: Any) -> bool:
    return getattr(value, "is_number", False) or isinstance(value, Scalar)


def scalar_dtype(value: Scalar) -> np.dtype:
    """The dtype of a Python number that stands alone."""
    if isinstance(value, bool):
        return BOOL
    return INT if isinstance(value, int) else FLOAT


def dtype_of(value: Any) -> np.dtype:
    found = getattr(value, "dtype", None)
    return found if found is not None else np.asarray(value).dtype
