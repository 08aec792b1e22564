"""The operations, a family per file. Importing this package fills the registry."""

from numtape.ir.ops import (
    activations,
    attention,
    dense,
    elementwise,
    indexing,
    linalg,
    normalisation,
    parts,
    random,
    ranges,
    reductions,
    shapes,
    updates,
)

__all__ = [
    "activations",
    "attention",
    "dense",
    "elementwise",
    "indexing",
    "linalg",
    "normalisation",
    "parts",
    "random",
    "ranges",
    "reductions",
    "shapes",
    "updates",
]
