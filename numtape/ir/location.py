"""Where a value comes from: the line of model code, the module path, and the forward twin.

The plumbing of numtape is told from model code by file-name prefix alone, without touching the
file system, because this runs once per recorded operation.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import NamedTuple

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_FILES = ("budget.py", "calls.py", "compiler.py", "functions.py", "options.py", "tape.py")
_FOLDERS = ("ir", "tracer", "passes", "runtime", "checking", "caching", "nn", "optim")
_PLUMBING = tuple(PACKAGE + part for part in (*_FOLDERS, *_FILES))
_GENERATED = ("<frozen", "<numtape")  # parts of Python, and tapes
_STANDARD = os.path.dirname(os.__file__) + os.sep


class Origin(NamedTuple):
    """The line (`file:line`) and module path of a value; `reverse` for values of the gradient."""

    file: str = ""
    line: int = 0
    module: str = ""
    reverse: bool = False

    def __str__(self) -> str:
        place = f"{os.path.basename(self.file)}:{self.line}" if self.file else ""
        parts = (place, self.module, "grad" if self.reverse else "")
        return " ".join(part for part in parts if part)


def model_line() -> tuple[str, int]:
    """The innermost line outside the plumbing: user code, or a model of this package."""
    return _innermost(_is_model)


def user_line() -> str:
    """The innermost line outside numtape altogether as `file:line`, for error messages."""
    file, line = user_place()
    return f"{file}:{line}" if file else "an unknown line"


def user_place() -> tuple[str, int]:
    """The file and number of that line, for warnings."""
    file, line = _innermost(is_user_file)
    return (file, line) if file else model_line()


def _innermost(wanted: Callable[[str], bool]) -> tuple[str, int]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if wanted(file):
            return file, frame.f_lineno
        frame = frame.f_back
    return "", 0


@lru_cache(maxsize=1024)
def _is_model(file: str) -> bool:
    return not file.startswith(_PLUMBING) and not _is_standard(file)


@lru_cache(maxsize=1024)
def is_user_file(file: str) -> bool:
    """Whether code is the user's (or another library's), not numtape's nor Python's own."""
    return not file.startswith(PACKAGE) and not _is_standard(file)


def _is_standard(file: str) -> bool:
    return file.startswith(_GENERATED) or (
        file.startswith(_STANDARD) and "site-packages" not in file
    )


class Located(Exception):
    """An error whose message ends in the user's line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.line = user_line()

    @property
    def reason(self) -> str:
        """The message without the line."""
        return self.args[0]

    def __str__(self) -> str:
        return f"{self.reason} (at {self.line})"


class OutOfRange(Located, IndexError):
    """An index for which there is no entry."""


class Scope:
    """What new values inherit: the module now running, or the origin of the value rewritten."""

    def __init__(self) -> None:
        self.module = ""
        self.inherited: Origin | None = None

    def origin(self) -> Origin:
        if self.inherited is not None:
            return self.inherited
        return Origin(*model_line(), self.module)

    @contextmanager
    def inherit(self, origin: Origin | None) -> Iterator[None]:
        previous, self.inherited = self.inherited, origin
        try:
            yield
        finally:
            self.inherited = previous

    @contextmanager
    def inside(self, module: str) -> Iterator[None]:
        previous, self.module = self.module, module
        try:
            yield
        finally:
            self.module = previous
