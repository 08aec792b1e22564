"""When two results agree: to the bit, or as well as their roundings allow.

A pass that is not exact may add up in another order. What that changes is about what it changes
to round each result anew: of the size of `TOLERANCES` beside the largest entry, and more where
the program itself magnifies roundings (Adam divides gradients that should be zero by their own
size). How much a program magnifies is measured, by runs with every result moved in its last
place, and only where the plain tolerance does not do.
"""

from collections.abc import Callable, Sequence

import numpy as np

TOLERANCES = {  # beside the largest entry: some 80 units in the last place of float32,
    np.dtype(np.float16): 1e-2,  # where sums of thousands differ by their order, and for float64
    np.dtype(np.float32): 1e-5,  # more, since nothing else in a program is that small
    np.dtype(np.float64): 1e-12,
}
SAMPLES = 4  # noisy runs
ROOM = 32.0  # times the most that these moved a result: few runs do not find the worst case

Arrays = Sequence[np.ndarray]


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether all entries are the same bits; one NaN is as good as another."""
    if (x.dtype, x.shape) != (y.dtype, y.shape):
        return False
    if x.dtype.kind != "f":
        return bool((x == y).all())
    bits = f"u{x.dtype.itemsize}"
    return bool(((x.view(bits) == y.view(bits)) | (np.isnan(x) & np.isnan(y))).all())


def distance(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How far apart the entries are; infinite where only one is NaN, or an infinity differs."""
    x, y = (a.astype(np.float64) for a in (found, expected))
    with np.errstate(all="ignore"):
        apart = np.abs(x - y)
        apart[(x == y) | (np.isnan(x) & np.isnan(y))] = 0.0
    return np.nan_to_num(apart, nan=np.inf, posinf=np.inf)


def differing(
    found: Arrays, expected: Arrays, exact: bool, noisy: Callable[[], Sequence[Arrays]]
) -> int | None:
    """The position of the first result that differs more than it may, or None.

    `noisy` gives the expected results of several runs with roundings moved.
    """
    samples: Sequence[Arrays] | None = None
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        if same_bits(x, y):
            continue
        if exact or (x.dtype, x.shape) != (y.dtype, y.shape):
            return i
        apart = distance(np.atleast_1d(x), np.atleast_1d(y))
        if (apart <= allowed(y)).all():
            continue
        samples = noisy() if samples is None else samples
        moved = [distance(np.atleast_1d(s[i]), np.atleast_1d(y)) for s in samples]
        if (apart > allowed(y) + ROOM * np.max(moved, axis=0)).any():
            return i
    return None


def allowed(expected: np.ndarray) -> float:
    """What a result may differ by where nothing magnifies roundings; integers not at all."""
    if expected.dtype.kind != "f":
        return 0.0
    finite = np.abs(expected[np.isfinite(expected)])
    return TOLERANCES[expected.dtype] * float(finite.max(initial=0.0))
