"""What passes must not confuse: one function for each mistake that random programs rarely meet."""

import numpy as np
import pytest

import numtape as nt


def drawn(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


CASES = {
    "every other row of a part of a join": (
        lambda a, b: nt.concatenate([a, b])[0:4:2] * 2.0,
        (drawn(4, 3), drawn(5, 3)),
    ),
    "parts side by side, of which one is a join the other way": (
        lambda a, b, c: (
            nt.pad(nt.concatenate([a, b]), ((0, 0), (0, 3))) + nt.pad(c, ((0, 0), (2, 0)))
        ),
        (drawn(2, 2), drawn(3, 2), drawn(5, 3)),
    ),
    "a copy in an order that is not its own inverse": (
        lambda x: nt.exp(x).transpose(1, 2, 0, 3).reshape(12, 10),
        (drawn(2, 3, 4, 5),),
    ),
    "a row sum of a product with a repeated column": (
        lambda x, y: (x * y).sum(-1),
        (drawn(4, 9), drawn(4, 1)),
    ),
    "one order of axes behind another": (
        lambda x: x.transpose(1, 2, 0).transpose(1, 0, 2) * 2.0,
        (drawn(2, 3, 4),),
    ),
    "a slice of a frame that is not where its content lies": (
        lambda x: nt.pad(x, 1)[0:2, 0:3],
        (drawn(2, 3),),
    ),
    "frames of other numbers than 0": (
        lambda a, b: nt.pad(a, (0, 2), 1) + nt.pad(b, (2, 0), 1),
        (drawn(2), drawn(2)),
    ),
    "frames with room between their contents": (
        lambda a, b: nt.pad(a, (0, 3)) + nt.pad(b, (3, 0)),
        (drawn(2), drawn(2)),
    ),
    "frames whose contents touch at a corner": (
        lambda a, b: nt.pad(a, (0, 2)) + nt.pad(b, (2, 0)),
        (drawn(2, 2), drawn(2, 2)),
    ),
    "a sum over the first and the last axis": (
        lambda x: x.sum((0, 2)),
        (drawn(9, 3, 2),),
    ),
    "a join in an order that is not its own inverse": (
        lambda a, b: nt.concatenate([a, b], 1).transpose(1, 2, 0, 3).reshape(24, 10),
        (drawn(2, 3, 4, 5), drawn(2, 3, 4, 5)),
    ),
    "a choice between equals that are repeated": (
        lambda x, y: nt.where(x > 0.0, nt.exp(y), nt.exp(y)),
        (drawn(3, 4), drawn(4)),
    ),
    "a repeated row in another shape": (
        lambda x: x.broadcast_to((3, 4)).reshape(4, 3) * 2.0,
        (drawn(4),),
    ),
}


@pytest.mark.parametrize("function, arrays", CASES.values(), ids=CASES)
@pytest.mark.parametrize("exact", [True, False])
def test_compiled_is_eager(function, arrays, exact):
    expected = function(*map(nt.Tensor, arrays)).numpy()
    found = nt.compile(function, exact=exact)(*arrays).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0.0 if exact else 1e-14, atol=0.0)
