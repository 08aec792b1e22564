"""The operators and methods that eager tensors and graph values share.

One class serves both, so gradient rules, expansions, rewrites and user code write the same
expressions, and no operation has to know what a tensor is.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from numtape.ir.interpreter import current
from numtape.ir.location import user_line
from numtape.ir.op import ufunc_op
from numtape.ir.ops import activations, elementwise, indexing, linalg, reductions, shapes
from numtape.ir.types import Shape, Type

# What other libraries call NumPy's functions.
NUMPY_NAMES = {
    **dict.fromkeys(("view", "view_as"), "reshape"),
    **dict.fromkeys(("cat", "concat"), "concatenate"),
    **dict.fromkeys(("mm", "bmm"), "matmul"),
    **dict.fromkeys(("expand", "expand_as"), "broadcast_to"),
    **dict.fromkeys(("index_select", "gather"), "take"),
    **dict.fromkeys(("to", "type", "float", "double", "half", "int", "long", "bool"), "astype"),
    "unsqueeze": "expand_dims",
    "permute": "transpose",
    "t": "T",
    "dim": "ndim",
    "numel": "size",
    "clamp": "clip",
    "amax": "max",
    "amin": "min",
    "pow": "power",
    "masked_fill": "where",
    "repeat_interleave": "repeat",
    "scatter_add": "index_add",
}
# What an array's &, |, ^ and ~ call, and what it means.
_ON_BOOLEANS = {
    np.bitwise_and: np.logical_and,
    np.bitwise_or: np.logical_or,
    np.bitwise_xor: np.logical_xor,
    np.invert: np.logical_not,
}


def no_attribute(owner: str, name: str) -> AttributeError:
    """The error for a name that is not there; of another library's, it tells NumPy's."""
    way = f"; the NumPy name is {NUMPY_NAMES[name]}" if name in NUMPY_NAMES else ""
    return AttributeError(f"{owner} has no attribute {name!r}{way}")


class Methods:
    """Needs `type`; gives NumPy's operators and methods."""

    __slots__ = ()
    __hash__ = object.__hash__
    type: Type

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(type(self).__name__, name)

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> np.dtype:
        return self.type.dtype

    @property
    def weak(self) -> bool:
        return self.type.weak

    @property
    def is_number(self) -> bool:
        return self.type.is_number

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    @property
    def size(self) -> int:
        return self.type.size

    @property
    def nbytes(self) -> int:
        return self.type.nbytes

    @property
    def T(self) -> Any:
        return shapes.transpose(self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """`np.exp(tensor)` and `array + tensor` are the operation whose kernel is the ufunc."""
        ufunc = _ON_BOOLEANS.get(ufunc, ufunc)
        op = linalg.matmul if ufunc is np.matmul else getattr(ufunc_op(ufunc), "operate", None)
        if method != "__call__" or kwargs or op is None:
            raise TypeError(
                f"at {user_line()}: np.{ufunc.__name__} cannot be used on a tensor like this; use "
                "numtape's own functions and methods, or tensor.numpy() outside compiled functions"
            )
        return op(*inputs)

    def __array_function__(self, function: Any, *_: Any) -> Any:
        name = function.__name__
        raise TypeError(
            f"at {user_line()}: np.{name} takes arrays, not tensors; use numtape.{name} if there "
            "is one, or tensor.numpy() outside compiled functions"
        )

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(
            f"at {user_line()}: entries of a tensor cannot be set; make a new one with "
            "where(mask, value, x) or index_add(x, index, values), or give all entries at once "
            "with x.assign(values)"
        )

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        return indexing.getitem(self, key)

    # arithmetic
    def __add__(self, other: Any) -> Any:
        return elementwise.add.operate(self, other)

    def __radd__(self, other: Any) -> Any:
        return elementwise.add.operate(self, other)

    def __sub__(self, other: Any) -> Any:
        return elementwise.sub.operate(self, other)

    def __rsub__(self, other: Any) -> Any:
        return elementwise.sub.operate(other, self)

    def __mul__(self, other: Any) -> Any:
        return elementwise.mul.operate(self, other)

    def __rmul__(self, other: Any) -> Any:
        return elementwise.mul.operate(self, other)

    def __truediv__(self, other: Any) -> Any:
        return elementwise.div.operate(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return elementwise.div.operate(other, self)

    def __floordiv__(self, other: Any) -> Any:
        return elementwise.floor_divide.operate(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return elementwise.floor_divide.operate(other, self)

    def __mod__(self, other: Any) -> Any:
        return elementwise.remainder.operate(self, other)

    def __rmod__(self, other: Any) -> Any:
        return elementwise.remainder.operate(other, self)

    def __pow__(self, other: Any) -> Any:
        return elementwise.raised(self, other)

    def __rpow__(self, other: Any) -> Any:
        return elementwise.power.operate(other, self)

    def __matmul__(self, other: Any) -> Any:
        return linalg.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return linalg.matmul(other, self)

    def __neg__(self) -> Any:
        return elementwise.neg.operate(self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return elementwise.absolute.operate(self)

    # comparison
    def __eq__(self, other: Any) -> Any:
        return elementwise.eq.operate(self, other)

    def __ne__(self, other: Any) -> Any:
        return elementwise.ne.operate(self, other)

    def __lt__(self, other: Any) -> Any:
        return elementwise.lt.operate(self, other)

    def __le__(self, other: Any) -> Any:
        return elementwise.le.operate(self, other)

    def __gt__(self, other: Any) -> Any:
        return elementwise.gt.operate(self, other)

    def __ge__(self, other: Any) -> Any:
        return elementwise.ge.operate(self, other)

    def __and__(self, other: Any) -> Any:
        return elementwise.logical_and(self, other)

    def __or__(self, other: Any) -> Any:
        return elementwise.logical_or(self, other)

    def __xor__(self, other: Any) -> Any:
        return elementwise.logical_xor(self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Any:
        return elementwise.logical_not(self)

    def where(self, x: Any, y: Any) -> Any:
        """x where this boolean is true, y elsewhere."""
        return elementwise.where(self, x, y)

    # elementwise
    def exp(self) -> Any:
        return elementwise.exp(self)

    def log(self) -> Any:
        return elementwise.log(self)

    def sqrt(self) -> Any:
        return elementwise.sqrt(self)

    def tanh(self) -> Any:
        return elementwise.tanh(self)

    def sin(self) -> Any:
        return elementwise.sin(self)

    def cos(self) -> Any:
        return elementwise.cos(self)

    def round(self, decimals: int = 0) -> Any:
        return elementwise.round(self, decimals)

    def abs(self) -> Any:
        return elementwise.absolute(self)

    def sign(self) -> Any:
        return elementwise.sign(self)

    def square(self) -> Any:
        return elementwise.square(self)

    def sigmoid(self) -> Any:
        return activations.sigmoid(self)

    def relu(self) -> Any:
        return activations.relu(self)

    def clip(self, low: Any = None, high: Any = None) -> Any:
        return elementwise.clip(self, low, high)

    def maximum(self, other: Any) -> Any:
        return elementwise.maximum(self, other)

    def minimum(self, other: Any) -> Any:
        return elementwise.minimum(self, other)

    def astype(self, dtype: Any) -> Any:
        """The entries in another dtype; gradients pass between floats."""
        wanted = np.dtype(dtype)
        if wanted == self.dtype and not self.is_number:
            return self
        return current().run(elementwise.cast, (self,), {"dtype": wanted})

    def detach(self) -> Any:
        """The same entries, cut off from gradients."""
        return current().run(elementwise.detach, (self,), {})

    # reductions
    def sum(self, axis: reductions.Axis = None, keepdims: bool = False) -> Any:
        return reductions.sum(self, axis, keepdims)

    def mean(self, axis: reductions.Axis = None, keepdims: bool = False) -> Any:
        return reductions.mean(self, axis, keepdims)

    def prod(self, axis: reductions.Axis = None, keepdims: bool = False) -> Any:
        return reductions.prod(self, axis, keepdims)

    def any(self, axis: reductions.Axis = None, keepdims: bool = False) -> Any:
        return reductions.any(self, axis, keepdims)

    def all(self, axis: reductions.Axis = None, keepdims: bool = False) -> Any:
        return reductions.all(self, axis, keepdims)

    def max(self, axis: reductions.Axis = None, keepdims: bool = False) -> Any:
        return reductions.max(self, axis, keepdims)

    def min(self, axis: reductions.Axis = None, keepdims: bool = False) -> Any:
        return reductions.min(self, axis, keepdims)

    def var(self, axis: reductions.Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
        return reductions.var(self, axis, keepdims, ddof)

    def std(self, axis: reductions.Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
        return reductions.std(self, axis, keepdims, ddof)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Any:
        return reductions.argmax(self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Any:
        return reductions.argmin(self, axis, keepdims)

    def cumsum(self, axis: int | None = None) -> Any:
        return reductions.cumsum(self, axis)

    # shapes
    def reshape(self, *shape: Any) -> Any:
        return shapes.reshape(self, *shape)

    def ravel(self) -> Any:
        return shapes.reshape(self, -1)

    def flatten(self) -> Any:
        return shapes.reshape(self, -1)

    def transpose(self, *axes: Any) -> Any:
        return shapes.transpose(self, *axes)

    def swapaxes(self, first: int, second: int) -> Any:
        return shapes.swapaxes(self, first, second)

    def expand_dims(self, axis: int | Sequence[int]) -> Any:
        return shapes.expand_dims(self, axis)

    def squeeze(self, axis: int | Sequence[int] | None = None) -> Any:
        return shapes.squeeze(self, axis)

    def broadcast_to(self, shape: Sequence[int]) -> Any:
        return shapes.broadcast_to(self, shape)

    def flip(self, axis: int | Sequence[int] | None = None) -> Any:
        return shapes.flip(self, axis)

    def split(self, parts: int | Sequence[int], axis: int = 0) -> list[Any]:
        return shapes.split(self, parts, axis)

    def dot(self, other: Any) -> Any:
        return linalg.dot(self, other)

    def take(self, index: Any, axis: int = 0) -> Any:
        return indexing.take(self, index, axis)
