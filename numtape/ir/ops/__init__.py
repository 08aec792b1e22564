"""The operations, a family per file. Importing this package fills the registry."""

from numtape.ir.ops import (
    activations,
    dense,
    elementwise,
    indexing,
    linalg,
    normalisation,
    random,
    ranges,
    reductions,
    shapes,
)

__all__ = [
    "activations",
    "dense",
    "elementwise",
    "indexing",
    "linalg",
    "normalisation",
    "random",
    "ranges",
    "reductions",
    "shapes",
]
