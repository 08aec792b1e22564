"""Arguments and results in any nesting of tuples, lists, dicts and dataclasses, as flat leaves."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

Path = str


def flatten(tree: Any, is_leaf: Callable[[Any], bool], path: Path = "") -> list[tuple[Path, Any]]:
    """The leaves in order, each with its path such as `[0]['ids'].mask`."""
    if is_leaf(tree):
        return [(path, tree)]
    return [
        pair for name, child in children(tree) for pair in flatten(child, is_leaf, path + name)
    ]


def rebuild(tree: Any, is_leaf: Callable[[Any], bool], leaf: Callable[[Any], Any]) -> Any:
    """The same nesting with every leaf replaced by `leaf(leaf)`."""
    if is_leaf(tree):
        return leaf(tree)
    parts = [rebuild(child, is_leaf, leaf) for _, child in children(tree)]
    if isinstance(tree, tuple):
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict | list) or _is_dataclass(tree):
        return _with(tree, parts)
    return tree


def _with(tree: Any, parts: list[Any]) -> Any:
    """A copy, of the same type and settings, with other children."""
    copied = copy.copy(tree)
    if isinstance(tree, dict):
        copied.update(zip(tree, parts, strict=True))
    elif isinstance(tree, list):
        copied[:] = parts
    else:
        for name, part in zip(_fields(tree), parts, strict=True):
            object.__setattr__(copied, name, part)  # also where the dataclass is frozen
    return copied


Skeleton = tuple[tuple[Path, Any], ...]


def skeleton(tree: Any, is_leaf: Callable[[Any], bool], path: Path = "") -> Skeleton:
    """The nesting and everything static in it by path, hashable; leaves stand as None.

    Raises TypeError for static values that are not hashable.
    """
    if is_leaf(tree):
        return ((path, None),)
    parts = children(tree)
    if parts or isinstance(tree, tuple | list | dict):
        inner = (entry for name, c in parts for entry in skeleton(c, is_leaf, path + name))
        return ((path, type(tree)), *inner)
    if type(tree).__hash__ is None:
        raise TypeError(
            f"the argument {readable(path)} is a {type(tree).__name__}, which is neither an array "
            "nor hashable; pass arrays, numbers, strings, or tuples, lists and dicts of them"
        )
    return ((path, (type(tree), tree)),)


def changed_static(old: Skeleton, new: Skeleton, names: Sequence[str] = ()) -> str:
    """The first place in which two skeletons differ, in words; empty where they do not."""
    before, after = dict(old), dict(new)
    for path in dict.fromkeys((*after, *before)):
        a, b = before.get(path, "absent"), after.get(path, "absent")
        if a != b:
            name = readable(path, names)
            if a == "absent" and any(readable(p, names) == name for p in before):
                return f"argument {name} is given {_way(path)}, it was not"
            return f"argument {name} is {_shown(b)}, it was {_shown(a)}"
    return ""


def _shown(entry: Any) -> str:
    if entry is None:
        return "an input (array or float)"
    if isinstance(entry, tuple):
        return repr(entry[1])
    return entry if isinstance(entry, str) else f"a {entry.__name__}"


def _way(path: Path) -> str:
    return "by position" if path.startswith("[0]") else "by keyword"


def parameter_names(function: Callable) -> tuple[str, ...]:
    """What a function calls its positional arguments, one that takes the rest with a star.

    Empty where Python cannot tell.
    """
    try:
        found = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):
        return ()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in found if p.kind in plain]
    return (*names, *(f"*{p.name}" for p in found if p.kind is inspect.Parameter.VAR_POSITIONAL))


def readable(path: Path, names: Sequence[str] = ()) -> str:
    """A path in (arguments, keywords): `[0][1]` as the second name, `[1]['mask']` as `mask`.

    Without a name for it, it is `arg1`; among the rest, `*batch`, it is `batch[0]`.
    """
    if path.startswith("[0]["):
        number, _, rest = path[4:].partition("]")
        return _positional(int(number), names) + rest
    return path[3:].removeprefix("['").replace("']", "", 1)


def _positional(number: int, names: Sequence[str]) -> str:
    if number < len(names) and not names[number].startswith("*"):
        return names[number]
    if names and names[-1].startswith("*"):
        return f"{names[-1][1:]}[{number - len(names) + 1}]"
    return f"arg{number}"


def children(tree: Any) -> list[tuple[Path, Any]]:
    """What is directly inside, each with the end of its path; nothing where it is no nesting."""
    if isinstance(tree, dict):
        return [(f"[{k!r}]", v) for k, v in tree.items()]
    if isinstance(tree, tuple | list):
        return [(f"[{i}]", v) for i, v in enumerate(tree)]
    if _is_dataclass(tree):
        return [(f".{name}", getattr(tree, name)) for name in _fields(tree)]
    return []


def _fields(tree: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(tree) if hasattr(tree, f.name)]


def _is_dataclass(tree: Any) -> bool:
    return dataclasses.is_dataclass(tree) and not isinstance(tree, type)
