"""What tapes are made and kept under, beside passes and threads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The most bytes of an arena, how the compiler and its memory are checked, and how many tapes
    and bytes of them are kept."""

    memory: int | None = None
    validate: bool = False
    sanitize: bool = False
    max_tapes: int = 64
    max_bytes: int = 1 << 30

    def __str__(self) -> str:
        notes = ("validated" if self.validate else "", "sanitized" if self.sanitize else "")
        return ", ".join(filter(None, notes))


DEFAULT = Options()
