"""What tapes are made under, beside passes and threads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The most bytes of an arena, and how the compiler and its memory are checked."""

    memory: int | None = None
    validate: bool = False

    def __str__(self) -> str:
        return "validated" if self.validate else ""


DEFAULT = Options()
