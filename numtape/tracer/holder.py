"""Objects that hold tensors from one call to the next: what modules and optimizers share.

A trace depends on their attributes, so a change of one is counted (`Structure.changes`) and seen
by the watches; their tensors go out as named arrays and come back checked.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from numtape.tracer.tensor import Structure, Tensor
from numtape.tracer.trace import Trace, tracing

_ABSENT = object()
Scalar = bool | int | float | str | None


class Holder:
    """Base of objects whose attributes are static to a trace and whose tensors are its state."""

    def __setattr__(self, name: str, value: Any) -> None:
        before = vars(self).get(name, _ABSENT)
        recorder = tracing()
        if recorder is not None:
            recorder.changing(self, name)
        super().__setattr__(name, value)
        # What a property took in is no attribute: it counts its own changes.
        if vars(self).get(name, _ABSENT) is not before:
            Structure.changes += 1

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        Structure.changes += 1

    def watch(self, recorder: Trace, path: str) -> None:
        """Ask for a new trace when an attribute is no longer what it is now."""
        for name, value in {**_class_settings(type(self)), **vars(self)}.items():
            # A plain list or dict can change without the count being told.
            counted = not isinstance(value, list | dict)
            if isinstance(value, Tensor):
                recorder.name(value, joined(path, name))
            recorder.watch(joined(path, name), self, name, view=mark, counted=counted)

    def state_tensors(self) -> dict[str, Tensor]:
        """The tensors that a saved state consists of, by name."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the state's arrays by name; a tensor with two names is there once."""
        return {name: tensor.numpy().copy() for name, tensor in self.state_tensors().items()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Take over the arrays of `state_dict()`, all of them or, on an error, none.

        Raises ValueError that names every unknown key and missing key (both are passed over
        without `strict`) and every array of the wrong shape or dtype.
        """
        if not isinstance(state, Mapping):
            kind = type(state).__name__
            raise TypeError(f"a state maps names to arrays, as state_dict() gives it, not {kind}")
        tensors = self.state_tensors()
        arrays = {name: np.asarray(state[name]) for name in tensors if name in state}
        faults = [_misfit(name, array, tensors[name]) for name, array in arrays.items()]
        if strict:
            faults += [f"{name}: unknown, not in {self._kind}" for name in state.keys() - tensors]
            faults += [f"{name}: missing" for name in tensors.keys() - state.keys()]
        found = sorted(filter(None, faults))
        if found:
            raise ValueError(
                f"this state does not fit {self._kind}, and nothing was loaded; "
                "correct these entries, or pass strict=False to pass over unknown and missing "
                "ones:\n  " + "\n  ".join(found)
            )
        for name, array in arrays.items():
            tensors[name].assign(array)

    @property
    def _kind(self) -> str:
        return type(self).__name__


def _misfit(name: str, array: np.ndarray, tensor: Tensor) -> str:
    if array.shape != tensor.shape:
        return f"{name}: shape {array.shape} where {tensor.shape} is wanted"
    if array.dtype != tensor.dtype:
        return f"{name}: dtype {array.dtype} where {tensor.dtype} is wanted; convert with astype()"
    return ""


def joined(path: str, name: str) -> str:
    """A dotted path; the root's is empty."""
    return f"{path}.{name}" if path else name


def _class_settings(cls: type) -> dict[str, Any]:
    """Scalars that a class gives its objects until they have their own, `training` for one."""
    return {
        name: value
        for base in reversed(cls.__mro__)
        for name, value in vars(base).items()
        if isinstance(value, Scalar) and not name.startswith("__")
    }


def mark(value: Any) -> Any:
    """What tells a value from its successor: containers entry by entry, the rest itself."""
    return _entry(value) if isinstance(value, list | tuple | dict | set | frozenset) else value


def _entry(value: Any) -> Any:
    if isinstance(value, dict):
        return dict, tuple((key, _entry(v)) for key, v in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_entry, value))
    if isinstance(value, set | frozenset):
        return set, frozenset(map(_entry, value))
    return (type(value), value) if isinstance(value, Scalar) else _Same(value)


class _Same:
    """Equal for the same object only, and keeps it, so that none other takes its place."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)
