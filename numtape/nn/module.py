"""Modules: objects with tensors for attributes and a `forward`.

Parameters, buffers and submodules are found by walking the attributes; nothing is registered.
While a trace records, a call writes the module's path on every node.
"""

from collections.abc import Iterable, Iterator, MutableSequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from numtape.tracer.holder import Holder, Scalar, joined
from numtape.tracer.structure import rebuild
from numtape.tracer.tensor import Tensor
from numtape.tracer.trace import Trace, tracing


class Parameter(Tensor):
    """A tensor that a module learns."""

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = True) -> None:
        super().__init__(data, dtype, requires_grad)


class Module(Holder):
    """Base of all layers and models: give it attributes and a `forward`.

    Tensors and modules are found in attributes and in lists, tuples and dicts of them. Tensors
    that are no `Parameter` are buffers; `register_buffer` puts one into the state dict.
    """

    training: bool = True
    _persistent: tuple[str, ...] = ()  # the buffers of the state dict

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward(); define it")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        recorder = tracing()
        if recorder is None:
            return self.forward(*args, **kwargs)
        with _inside(self, recorder):
            return self.forward(*args, **kwargs)

    # ---- what is in it ---------------------------------------------------------------------

    def named_members(self) -> Iterator[tuple[str, Any]]:
        """The modules and tensors of the attributes, lists and dicts opened."""
        for name, value in vars(self).items():
            yield from _found(name, value)

    def children(self) -> Iterator["Module"]:
        return (m for _, m in self.named_members() if isinstance(m, Module))

    def named_modules(self) -> Iterator[tuple[str, "Module"]]:
        """This module under the name "" and all below it, each once, by dotted path."""
        return ((name, m) for name, m in self._walk() if isinstance(m, Module))

    def modules(self) -> Iterator["Module"]:
        return (m for _, m in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, under the first of its names."""
        return ((name, p) for name, p in self._walk() if isinstance(p, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters())

    def _walk(self, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
        seen = set() if seen is None else seen
        seen.add(id(self))
        yield path, self
        for name, member in self.named_members():
            if id(member) in seen:
                continue
            if isinstance(member, Module):
                yield from member._walk(joined(path, name), seen)
            else:
                seen.add(id(member))
                yield joined(path, name), member

    # ---- state -----------------------------------------------------------------------------

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Set an attribute that is part of the state dict (if persistent) but not learnt."""
        setattr(self, name, tensor)
        others = tuple(n for n in self._persistent if n != name)
        self._persistent = (*others, name) if persistent else others

    def state_tensors(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by dotted path."""
        kept = {
            joined(path, name)
            for path, module in self.named_modules()
            for name in module._persistent
        }
        return {
            name: t
            for name, t in self._walk()
            if isinstance(t, Parameter) or (isinstance(t, Tensor) and name in kept)
        }

    def train(self, mode: bool = True) -> Self:
        """Training mode for this module and all below: dropout drops."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Evaluation mode: dropout lets everything through."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Clear the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, dtype: Any) -> Self:
        """Give all floating-point tensors another dtype.

        They become new tensors, so make the optimizer afterwards. Raises TypeError for a dtype
        other than float32 and float64.
        """
        wanted = _float_dtype(dtype)
        converted: dict[int, Any] = {}
        for module in list(self.modules()):
            for name, value in list(vars(module).items()):
                if any(isinstance(t, Tensor) for _, t in _found(name, value)):
                    convert = lambda member: _converted(member, wanted, converted)
                    setattr(module, name, rebuild(value, _is_member, convert))
        return self

    def double(self) -> Self:
        return self.to(np.float64)

    def float(self) -> Self:
        return self.to(np.float32)

    # ---- showing ---------------------------------------------------------------------------

    def __repr__(self) -> str:
        return "\n".join(_tree(self, ""))


class ModuleList(Module, MutableSequence):
    """Modules in a list, named `0`, `1` ..."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        # A tuple, so that every change of the list is a change of the attribute.
        self._modules = tuple(self._checked(m) for m in modules)

    def named_members(self) -> Iterator[tuple[str, Any]]:
        others = (m for m in super().named_members() if not m[0].startswith("_modules."))
        yield from ((str(i), module) for i, module in enumerate(self._modules))
        yield from others

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: Any) -> Any:
        found = self._modules[index]
        return type(self)._of(found) if isinstance(index, slice) else found

    @classmethod
    def _checked(cls, module: Any) -> Module:
        if not isinstance(module, Module):
            raise TypeError(
                f"a {cls.__name__} holds modules, not {type(module).__name__}; of a list give its "
                "entries, Sequential(*layers), and make a class with forward() of a function"
            )
        return module

    @classmethod
    def _of(cls, modules: Iterable[Module]) -> "ModuleList":
        return cls(modules)

    def __setitem__(self, index: Any, value: Any) -> None:
        changed = list(self._modules)
        changed[index] = (
            [self._checked(m) for m in value] if isinstance(index, slice) else self._checked(value)
        )
        self._modules = tuple(changed)

    def __delitem__(self, index: Any) -> None:
        changed = list(self._modules)
        del changed[index]
        self._modules = tuple(changed)

    def insert(self, index: int, value: Module) -> None:
        changed = list(self._modules)
        changed.insert(index, self._checked(value))
        self._modules = tuple(changed)


class Sequential(ModuleList):
    """Modules one after another, each on the result of the one before."""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    @classmethod
    def _of(cls, modules: Iterable[Module]) -> "Sequential":
        return cls(*modules)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x


@contextmanager
def _inside(module: Module, recorder: Trace) -> Iterator[None]:
    """Nodes recorded in this block carry the module's path below the root now running."""
    outer = recorder.module_names
    if id(module) not in outer:
        recorder.module_names = {id(m): name for name, m in module.named_modules()}
        for name, m in module.named_modules():
            m.watch(recorder, name)
    try:
        with recorder.builder.scope.inside(recorder.module_names[id(module)]):
            yield
    finally:
        recorder.module_names = outer


def _is_member(value: Any) -> bool:
    return isinstance(value, Module | Tensor)


def _found(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if _is_member(value):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in pairs:
            yield from _found(f"{name}.{key}", entry)


def _float_dtype(dtype: Any) -> np.dtype:
    try:
        wanted = np.dtype(dtype)
    except TypeError:  # the name of a device, perhaps
        wanted = None
    if wanted not in (np.float32, np.float64):
        raise TypeError(f"modules compute on CPUs in float32 or float64, not in {wanted or dtype}")
    return wanted


def _converted(member: Any, dtype: np.dtype, done: dict[int, Any]) -> Any:
    """The tensor in another dtype, the same one for each of its places."""
    if isinstance(member, Module) or member.dtype.kind != "f" or member.dtype == dtype:
        return member
    if id(member) not in done:
        array = member.numpy().astype(dtype)
        done[id(member)] = type(member)(array, requires_grad=member.requires_grad)
    return done[id(member)]


def _tree(module: Module, name: str) -> Iterator[str]:
    """`name: Linear(in_features=8, out_features=4)  36`, and the same for all below."""
    shown = ((n, v) for n, v in vars(module).items() if isinstance(v, Scalar) and n[0] != "_")
    settings = ", ".join(f"{n}={v!r}" for n, v in shown if n != "training")
    count = sum(p.size for p in module.parameters())
    label = f"{name}: " if name else ""
    yield f"{label}{type(module).__name__}({settings})" + (f"  {count:,}" if count else "")
    for child_name, child in module.named_members():
        if isinstance(child, Module):
            yield from (f"  {line}" for line in _tree(child, child_name))
