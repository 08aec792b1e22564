"""AdamW in NumPy over one vector that holds all parameters, tile by tile."""

import numpy as np

from benchmarks.models import BETAS, DECAY, EPS, LEARNING_RATE, Shapes

TILE = 1 << 15  # floats: five of these arrays fit into the second-level cache
ALIGNMENT = 16  # floats in a line of cache


class AdamW:
    """`values` and `gradients` by name are views into the vectors that `step` works on."""

    def __init__(self, shapes: Shapes, start: dict[str, np.ndarray]) -> None:
        sizes = [-int(np.prod(s)) // ALIGNMENT * -ALIGNMENT for s in shapes.values()]
        vectors = np.zeros((4, sum(sizes)), np.float32)
        self.values, self.gradients = (_views(v, shapes, sizes) for v in vectors[:2])
        for name, value in start.items():
            self.values[name][...] = value
        scratch = np.empty(TILE, np.float32)
        self.tiles = [
            (*(v[i : i + TILE] for v in vectors), scratch[: vectors.shape[1] - i])
            for i in range(0, vectors.shape[1], TILE)
        ]
        self.count = 0

    def step(self) -> None:
        self.count += 1
        (b1, b2), n = BETAS, self.count
        # Moments are kept as sums, m / (1 - b1) and v / (1 - b2): two passes fewer.
        scale = ((1 - b2**n) / (1 - b2)) ** 0.5
        size = LEARNING_RATE * (1 - b1) / (1 - b1**n) * scale
        eps, kept = EPS * scale, 1 - LEARNING_RATE * DECAY
        for p, g, m, v, s in self.tiles:
            np.multiply(m, b1, out=m)
            np.add(m, g, out=m)
            np.multiply(g, g, out=s)
            np.multiply(v, b2, out=v)
            np.add(v, s, out=v)
            np.sqrt(v, out=s)
            np.add(s, eps, out=s)
            np.divide(m, s, out=s)
            np.multiply(s, size, out=s)
            np.multiply(p, kept, out=p)
            np.subtract(p, s, out=p)


def _views(vector: np.ndarray, shapes: Shapes, sizes: list[int]) -> dict[str, np.ndarray]:
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    return {
        name: part[: int(np.prod(shape))].reshape(shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
