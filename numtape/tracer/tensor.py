"""The Tensor that users hold: an array, or a value of the graph being traced.

Both kinds keep the same record of how they came about, so `backward()` is one piece of code. What
carries out an operation is the recorder on top of the interpreter stack.
"""

import itertools
import sys
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from numtape.ir import interpreter
from numtape.ir.graph import Value
from numtape.ir.location import is_user_file, user_line
from numtape.ir.methods import Methods
from numtape.ir.op import Op
from numtape.ir.reading import reads
from numtape.ir.types import BOOL, FLOAT, Type
from numtape.tracer.contents import Look, fingerprint, glance

indices = itertools.count()  # of tensors, in the order in which they are made


class TraceError(TypeError):
    """Something that a traced function cannot do; the message names the line and the way out."""


class Structure:
    """Counts the changes to what traces depend on: an unchanged count means nothing changed."""

    changes = 0


class Storage:
    """What views of one array have in common.

    version  how often it was changed in place.     turn    the lock of who updates it.
    result   whether an operation made it, so that only who was handed it can write to it.
    exposed  of a result, what it held when it was handed out first.
    """

    __slots__ = ("array", "exposed", "result", "turn", "version")

    def __init__(self, array: Any) -> None:
        self.array = array
        self.version = 0
        self.turn: Any = None
        self.result = False
        self.exposed: Any = None

    def expose(self) -> None:
        if self.result and self.exposed is None:
            self.exposed = fingerprint(self.array)

    def was_written(self) -> bool:
        return self.exposed is not None and fingerprint(self.array) != self.exposed


class Tensor(Methods):
    """An n-dimensional array with a gradient.

    data: array, nested list or number. Python floats become float32, arrays keep their dtype.
    `requires_grad` asks that `backward()` leave a gradient in `.grad`.
    """

    __slots__ = (
        "__weakref__",
        "_grad",
        "_payload",
        "_requires_grad",
        "attrs",
        "contents",
        "index",
        "inputs",
        "made",
        "op",
        "owner",
        "reads",
        "storage",
        "type",
        "versions",
    )

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False) -> None:
        array = as_array(data, dtype)
        self._set(array, Type(array.dtype, array.shape))
        self.requires_grad = requires_grad

    def _set(self, payload: Any, type: Type, owner: Any = None) -> None:
        self._payload = payload
        self.type = type
        self.owner = owner
        self._grad: Tensor | None = None
        self._requires_grad = False
        self.op: Op | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.attrs: Mapping[str, Any] = {}
        self.versions: tuple[int, ...] = ()
        self.contents: tuple[Any, ...] = ()
        self.reads: Collection[int] | None = ()
        self.storage = Storage(payload)
        self.made = 0  # the version when this tensor was made
        self.index = next(indices)

    @classmethod
    def wrap(cls, payload: Any, type: Type, owner: Any = None) -> "Tensor":
        """A tensor around an array, or around a value that the trace `owner` records."""
        self = Tensor.__new__(Tensor)
        self._set(payload, type, owner)
        return self

    def record(
        self, op: Op, inputs: tuple["Tensor", ...], attrs: Mapping[str, Any], copied: int = 0
    ) -> None:
        """Remember how this tensor came about, for `backward()`.

        A compiled call has copied so many of its inputs, and reads the rest where they are.
        """
        self._requires_grad = True
        self.op, self.inputs, self.attrs = op, inputs, attrs
        self.versions = tuple(t.version for t in inputs)
        if self.is_traced:  # memory is not looked at; who reads is asked where something changed
            self.reads = None
            return
        if isinstance(op, Op):
            self.reads = self.read_by_rules()
        else:
            self.reads = range(copied, len(inputs))
        read = self.reads
        self.storage.result = self.storage.result or getattr(op, "view", None) is None
        look = fingerprint if isinstance(op, Op) else glance
        self.contents = tuple(t.content(look) if i in read else None for i, t in enumerate(inputs))

    def read_by_rules(self) -> Collection[int]:
        """The inputs (and OUT) that the gradient rules read which `backward()` will run."""
        assert self.op is not None
        wanted = [t._requires_grad for t in self.inputs]
        return reads(self.op, wanted, [t.type for t in self.inputs], self.type, self.attrs)

    def content(self, look: Look) -> tuple[Look, Any] | None:
        """What the array holds, where somebody else may write to it; else None."""
        if self.storage.result and self.storage.exposed is None:
            return None
        return look, look(self._payload)

    def was_written(self, content: tuple[Look, Any] | None) -> bool:
        """Whether the array holds something else than once, or than when the user got hold of
        it or of a view."""
        if content is None:
            return self.storage.was_written()
        look, before = content
        return look(self._payload) != before

    @property
    def version(self) -> int:
        """How often the entries were changed in place."""
        return self.storage.version

    @version.setter
    def version(self, value: int) -> None:
        self.storage.version = value

    def look_at(self, other: "Tensor") -> None:
        """Become a view: changes of the other are changes of this."""
        self.storage, self.made = other.storage, other.version

    def move(self, array: np.ndarray) -> None:
        """Have the entries, which stay what they are, in other memory."""
        self._payload = self.storage.array = array

    # ---- reading ---------------------------------------------------------------------------

    @property
    def is_traced(self) -> bool:
        return isinstance(self._payload, Value)

    @property
    def data(self) -> np.ndarray:
        """The array itself, not a copy."""
        return self._concrete("read the array of")

    @data.setter
    def data(self, value: Any) -> None:
        self.assign(value)

    def numpy(self) -> np.ndarray:
        """The array itself, not a copy."""
        return self._concrete("call numpy() on")

    def item(self) -> bool | int | float:
        """The only entry as a Python number."""
        return self._concrete("call item() on").item()

    def tolist(self) -> Any:
        return self._concrete("call tolist() on").tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._concrete("turn into an array")
        return np.array(array, dtype=dtype, copy=copy)

    def __bool__(self) -> bool:
        return bool(self._concrete("decide by"))

    def __float__(self) -> float:
        return float(self._concrete("turn into a float").item())

    def __int__(self) -> int:
        return int(self._concrete("turn into an int").item())

    def __index__(self) -> int:
        array = self._concrete("index with")
        return array.__index__()

    def _concrete(self, deed: str) -> np.ndarray:
        _recorder().reading(self, deed)
        self.storage.expose()
        return self._payload

    # ---- gradients -------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if wanted and self.dtype.kind != "f":
            raise TypeError(f"only floats have gradients, not {self.type}")
        if not wanted and self.op is not None:
            raise RuntimeError("this tensor was computed from others; use detach() instead")
        if self._requires_grad != bool(wanted):
            Structure.changes += 1
        self._requires_grad = bool(wanted)

    @property
    def is_leaf(self) -> bool:
        return self.op is None

    @property
    def grad(self) -> "Tensor | None":
        """The gradient that `backward()` summed here, or None."""
        return _recorder().gradient(self)

    @grad.setter
    def grad(self, value: "Tensor | None") -> None:
        _recorder().set_gradient(self, value)

    def backward(
        self, gradient: Any = None, create_graph: bool = False, retain_graph: bool = False
    ) -> None:
        """Add to `.grad` of every leaf the gradient of this tensor, weighted with `gradient`.

        `gradient` has this tensor's shape; a scalar needs none. With `create_graph` the gradients
        can be differentiated in turn; with `retain_graph` a second backward() is possible.
        """
        _recorder().backward(self, gradient, create_graph, retain_graph)

    def assign(self, value: Any) -> None:
        """Take the value of another tensor or array of the same shape, in place."""
        _recorder().assign(self, value)

    # ---- showing ---------------------------------------------------------------------------

    def __repr__(self) -> str:
        note = ", requires_grad=True" if self._requires_grad else ""
        if self.is_traced:
            return f"Tensor(traced {self.type}{note})"
        shown = np.array2string(self._payload, separator=", ", prefix="Tensor(", threshold=100)
        dtype = "" if self.dtype in (FLOAT, BOOL, np.int64) else f", dtype={self.dtype}"
        return f"Tensor({shown}{dtype}{note})"

    def __hash__(self) -> int:
        if self.is_traced and self.type.weak and is_user_file(sys._getframe(1).f_code.co_filename):
            _recorder().reading(self, "look up, or hash,")  # a number is no key: it has no value
        return id(self)

    def __format__(self, spec: str) -> str:
        return format(self._concrete("format").item(), spec) if spec else repr(self)

    def __deepcopy__(self, memo: dict) -> "Tensor":
        array = self._concrete("copy").copy()
        memo[id(self)] = copied = _revived(type(self), array, self.type, self._requires_grad)
        return copied

    def __reduce__(self) -> tuple:
        # Without the history, and with an index of its own: two of one index cannot be ordered.
        return _revived, (type(self), self._concrete("pickle"), self.type, self._requires_grad)


def _revived(cls: Any, payload: np.ndarray, type: Type, requires_grad: bool) -> Any:
    revived = cls.__new__(cls)
    revived._set(payload, type)
    revived._requires_grad = requires_grad
    return revived


def _recorder() -> Any:
    return interpreter.current()


def as_array(data: Any, dtype: Any = None) -> np.ndarray:
    """A NumPy array of a dtype that numtape knows; Python floats become float32."""
    if isinstance(data, Tensor):
        data = data.numpy()
    if isinstance(data, Value):
        raise TypeError(f"{data!r} is a value of a graph, which no array can hold")
    if isinstance(data, np.ndarray):
        array = data if dtype is None else data.astype(dtype, copy=False)
    else:
        array = np.asarray(data)  # not yet in dtype, in which None would be nan
        if array.dtype.kind in "fiub" and dtype is not None:
            array = array.astype(dtype, copy=False)
        if dtype is None and array.dtype == np.float64 and not isinstance(data, np.generic):
            array = array.astype(FLOAT)
    kind, size = array.dtype.kind, array.itemsize
    if kind not in "fiub" or (kind == "f" and size not in (4, 8)):
        raise TypeError(
            "a tensor holds floats (32, 64), integers or booleans, not "
            f"{array.dtype} ({data!r:.40})"
        )
    return array


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of `data` (array, nested list or number)."""
    return Tensor(np.array(as_array(data, dtype)), requires_grad=requires_grad)


def refuse(tensor: Tensor, deed: str) -> None:
    """The error for reading what has no value yet."""
    ways = {
        "decide by": "use where(condition, x, y), or decide on something known when tracing",
        "index with": "use take(x, index) for entries; range() and sizes need an int: pass one",
    }
    way = ways.get(deed, "return it from the function and read it there")
    if tensor.type.weak:
        way += "; a Python float is an input: give a setting as an int or text, or by closure"
    raise TraceError(
        f"at {user_line()}: a traced function cannot {deed} a tensor ({described(tensor)}), "
        f"because it has no value while tracing; {way}"
    )


def refuse_outside(tensor: Tensor, deed: str) -> None:
    """The error for reading what has a value now, and another at another call."""
    raise TraceError(
        f"at {user_line()}: a traced function cannot {deed} a tensor from outside "
        f"({tensor.type}): the value would be frozen into the tape; use operations on the "
        "tensor itself, or read it before the compiled function and pass it as an argument"
    )


def described(tensor: Tensor) -> str:
    """The type of a traced tensor and where it comes from, for error messages."""
    origin = str(tensor._payload.origin)
    return f"{tensor.type}, computed at {origin}" if origin else f"{tensor.type}, an input"
