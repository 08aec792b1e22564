"""Random numbers without state: the source of every shuffle, crop and sample in training.

A counter-based generator makes step N a pure function of (seed, N), so that a run which
resumes at step N draws what an uninterrupted run would have drawn, without replaying N steps.
"""

from enum import IntEnum

import numpy as np

SEED_LIMIT = 2**64


class Stream(IntEnum):
    """Who draws: two streams never share a number, whatever the seed."""

    CROPS = 1
    SHUFFLES = 2
    TRAINING_DATES = 3
    HELD_OUT_DATES = 4
    CALENDAR = 5


def generator(seed: int, stream: Stream, step: int = 0) -> np.random.Generator:
    """The generator of one step of one stream.

    Raises ValueError for a seed or step outside 0 .. 2**64 - 1.
    """
    for name, value in (("seed", seed), ("step", step)):
        if not 0 <= value < SEED_LIMIT:
            raise ValueError(f"the {name} is {value}; use a whole number from 0 to 2**64 - 1")
    key = np.array([seed, stream], np.uint64)
    counter = np.array([0, step, 0, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
