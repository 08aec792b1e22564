"""The two ways in which files fail, below everything else in training: data, and checkpoints.

Each message says which file, what is wrong with it, with values, and what to do instead.
"""


class DataError(ValueError):
    """Text, tokens or lengths that cannot be trained on."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or one that must not be trusted."""
