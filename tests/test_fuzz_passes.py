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
    "joined parts whose rows a reshape has moved": (
        lambda a, b: nt.concatenate([a.T.reshape(3, 4), b.T.reshape(3, 4)], 1),
        (drawn(2, 6), drawn(2, 6)),
    ),
    "a copy of what reads a repeated matrix": (
        lambda x, y: (nt.exp(x) * y).transpose(1, 0, 2).reshape(3, 8),
        (drawn(2, 3, 4), drawn(3, 4)),
    ),
    "numbers side by side": (
        lambda x: x + nt.stack([nt.full((), number, np.float64) for number in (2.0, 3.0)]),
        (drawn(2),),
    ),
    "numbers with all their digits": (
        lambda x: x * (nt.full((), 0.1, np.float64) * 0.7),
        (drawn(3),),
    ),
    "a product of a turned stack": (
        lambda x, y: x.transpose(1, 0, 2) @ y,
        (drawn(2, 3, 4), drawn(4, 5)),
    ),
    "a sum of nothing, repeated": (
        lambda x: (x / 0.0).broadcast_to((0, 3)).sum(0),
        (np.ones((1, 3)),),
    ),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("function, arrays", CASES.values(), ids=CASES)
@pytest.mark.parametrize("exact", [True, False])
def test_compiled_is_eager(function, arrays, exact):
    expected = function(*map(nt.Tensor, arrays)).numpy()
    found = nt.compile(function, exact=exact)(*arrays).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0.0 if exact else 1e-14, atol=0.0)


# ---- old values ---------------------------------------------------------------------------

LATE = {
    "storage that the reverse part multiplies with": lambda x, state: x * state,
    "a part of it that the forward part reads as well": lambda x, state: x[:2] * state[1:3],
    "a gradient that is handed on through it": lambda x, state: (x * state).tanh() @ state,
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("function", LATE.values(), ids=LATE)
def test_a_reverse_part_reads_storage_as_it_was(function, exact):
    """What the forward tape updates is read by the reverse tape, which runs later."""

    def slopes(compiled):
        weight, state = nt.Tensor(drawn(4, 4), requires_grad=True), nt.Tensor(drawn(4, 4))

        def step():
            result = function(weight, state * 1.0)  # a copy that is left out
            state.assign(state * 0.5 + 1.0)
            return result

        run = nt.compile(step, exact=exact) if compiled else step
        for _ in range(2):
            (run() * 3.0).sum().backward()
        return weight.grad.numpy()

    np.testing.assert_allclose(slopes(True), slopes(False), rtol=1e-14)
