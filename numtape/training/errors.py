"""The ways in which training fails, below everything else in it.

Each message says which file, what is wrong with it, with values, and what to do instead.
"""


class DataError(ValueError):
    """Text, tokens or lengths that cannot be trained on."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or one that must not be trusted."""


class DamagedError(CheckpointError):
    """A checkpoint that is not, or no longer, what was written."""


class TrainingError(RuntimeError):
    """Training that cannot go on."""
