"""What tells one call of a compiled function from another, and how that is said to people.

A key holds the nesting of the arguments with everything static in it, whether gradients are
wanted, which tensors are given twice, and then dtype and shape of every leaf.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from numtape.tracer.recorder import grad_enabled
from numtape.tracer.structure import Skeleton, changed_static, flatten, readable, skeleton
from numtape.tracer.tensor import Tensor
from numtape.tracer.trace import input_type, is_array

Key = tuple[Any, ...]
_LEAVES = frozenset((np.ndarray, Tensor))


def flattened(args: tuple, kwargs: dict) -> tuple[Skeleton, list[Any]]:
    """The nesting of the arguments, and the leaves in it."""
    if not kwargs and _LEAVES.issuperset(map(type, args)):  # as a rule: nothing need be walked
        return _flat_nesting(len(args)), list(args)
    tree = (args, kwargs)
    return skeleton(tree, is_array), [leaf for _, leaf in flatten(tree, is_array)]


@cache
def _flat_nesting(count: int) -> Skeleton:
    """The nesting of so many positional arguments that are leaves."""
    return skeleton(((0.0,) * count, {}), is_array)


def key_of(nesting: Skeleton, leaves: list[Any]) -> Key:
    return (nesting, grad_enabled(), _repeats(leaves), *map(_signature, leaves))


def _repeats(leaves: list[Any]) -> tuple[tuple[int, int], ...]:
    """Which tensors are given more than once: the place of each again, and its first place."""
    if len(set(map(id, leaves))) == len(leaves):
        return ()
    tensors = [(i, id(leaf)) for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    first: dict[int, int] = {}
    pairs = ((i, first.setdefault(key, i)) for i, key in tensors)
    return tuple((i, j) for i, j in pairs if i != j)


def _signature(leaf: Any) -> tuple:
    """dtype, shape, whether it is a number, wants a gradient, and has none yet."""
    if type(leaf) is np.ndarray:
        return leaf.dtype, leaf.shape, False, False, True
    if isinstance(leaf, Tensor):
        return *leaf.type, leaf.requires_grad, leaf._grad is None
    if isinstance(leaf, float):  # no tensor, even of the same type: it cannot be assigned
        return input_type(leaf)
    return *input_type(leaf), False, True


def leaf_names(nesting: Skeleton, names: Sequence[str]) -> list[str]:
    """What the leaves are called, where the function calls its arguments by these names."""
    return [readable(path, names) for path, entry in nesting if entry is None]


def differences(old: Key, new: Key, names: Sequence[str]) -> list[str]:
    """What differs between two calls, in words."""
    leaves = leaf_names(new[0], names)
    found = []
    if old[0] != new[0]:
        found.append(changed_static(old[0], new[0], names) or _reordered(old[0], new[0], names))
    if old[1] != new[1]:
        found.append("gradients are " + ("wanted" if new[1] else "not wanted"))
    for i, j in sorted({*old[2]} ^ {*new[2]}):
        same = "" if (i, j) in new[2] else " not"
        found.append(f"argument {leaves[i]} is{same} argument {leaves[j]}")
    for name, a, b in zip(leaves, old[3:], new[3:], strict=False):
        if a != b:
            found.append(f"argument {name} is {_shown(b)}, it was {_shown(a)}")
    return found


def gathered(changes: Sequence[str]) -> Iterator[str]:
    """One for each kind of setting: train() and eval() change it in every module below."""
    kinds: dict[str, list[str]] = {}
    for change in changes:
        kinds.setdefault(change.rpartition(".")[2], []).append(change)
    for first, *others in kinds.values():
        yield f"{first} (and {len(others)} more like it)" if others else first


def _reordered(old: Skeleton, new: Skeleton, names: Sequence[str]) -> str:
    pairs = zip(old, new, strict=True)
    path = next(now for (before, _), (now, _) in pairs if now != before)
    return f"argument {readable(path, names)} comes at another place in the order"


def _shown(signature: tuple) -> str:
    dtype, shape, _, *gradient = signature
    if not gradient:
        return "a number"
    notes = {(True, True): " with requires_grad", (True, False): " with a gradient in .grad"}
    kind = "" if shape else "an array "  # what could be taken for a number
    return f"{kind}{dtype}{list(shape)}{notes.get(tuple(gradient), '')}"
