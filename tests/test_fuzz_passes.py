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
}


@pytest.mark.parametrize("function, arrays", CASES.values(), ids=CASES)
@pytest.mark.parametrize("exact", [True, False])
def test_compiled_is_eager(function, arrays, exact):
    expected = function(*map(nt.Tensor, arrays)).numpy()
    found = nt.compile(function, exact=exact)(*arrays).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0.0 if exact else 1e-14, atol=0.0)
