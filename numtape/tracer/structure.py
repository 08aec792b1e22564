"""Arguments and results in any nesting of tuples, lists, dicts and dataclasses, as flat leaves."""

import dataclasses
from collections.abc import Callable
from typing import Any

Path = str


def flatten(tree: Any, is_leaf: Callable[[Any], bool], path: Path = "") -> list[tuple[Path, Any]]:
    """The leaves in order, each with its path such as `[0]['ids'].mask`."""
    if is_leaf(tree):
        return [(path, tree)]
    return [
        pair for name, child in _children(tree) for pair in flatten(child, is_leaf, path + name)
    ]


def rebuild(tree: Any, is_leaf: Callable[[Any], bool], leaf: Callable[[Any], Any]) -> Any:
    """The same nesting with every leaf replaced by `leaf(leaf)`."""
    if is_leaf(tree):
        return leaf(tree)
    parts = [rebuild(child, is_leaf, leaf) for _, child in _children(tree)]
    if isinstance(tree, dict):
        return dict(zip(tree, parts, strict=True))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*parts)
    if isinstance(tree, tuple | list):
        return type(tree)(parts)
    if _is_dataclass(tree):
        names = [f.name for f in dataclasses.fields(tree)]
        return dataclasses.replace(tree, **dict(zip(names, parts, strict=True)))
    return tree


def skeleton(tree: Any, is_leaf: Callable[[Any], bool]) -> Any:
    """The nesting and everything static in it, hashable; leaves stand as None."""
    if is_leaf(tree):
        return None
    children = tuple((name, skeleton(child, is_leaf)) for name, child in _children(tree))
    if children or isinstance(tree, tuple | list | dict):
        return (type(tree), children)
    return (type(tree), tree)


def _children(tree: Any) -> list[tuple[Path, Any]]:
    if isinstance(tree, dict):
        return [(f"[{k!r}]", v) for k, v in tree.items()]
    if isinstance(tree, tuple | list):
        return [(f"[{i}]", v) for i, v in enumerate(tree)]
    if _is_dataclass(tree):
        return [(f".{f.name}", getattr(tree, f.name)) for f in dataclasses.fields(tree)]
    return []


def _is_dataclass(tree: Any) -> bool:
    return dataclasses.is_dataclass(tree) and not isinstance(tree, type)
