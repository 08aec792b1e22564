"""Modules that are loaded when first used, so that `import numtape` stays quick.

Only for what most programs never need (drawing, profiles, budgets). Everything else is imported
where it is used.
"""

import importlib.util
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    """Stands for a module; whoever asks it for something first loads that.

    Python's own lazy loader may show a module half made to a second thread (until Python 3.12).
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def lazy(name: str) -> ModuleType:
    """The module `name`, loaded on first access to one of its attributes.

    Raises ModuleNotFoundError at once where it is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"{name} is not installed", name=name)
    return _Lazy(name)
