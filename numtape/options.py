"""What tapes are made under, beside passes and threads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The most bytes of an arena, and how the compiler and its memory are checked."""

    memory: int | None = None
    validate: bool = False
    sanitize: bool = False

    def __str__(self) -> str:
        notes = ("validated" if self.validate else "", "sanitized" if self.sanitize else "")
        return ", ".join(filter(None, notes))


DEFAULT = Options()
