"""Exact mode: compiled equals eager to the bit, whatever a program does with layouts.

NumPy and BLAS choose the order of a sum by where its entries lie in memory. So a pass that keeps
every entry, but not its place, still changes what is added up from them.
"""

import numpy as np
import pytest

import numtape as nt


def drawn(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


STACK, WIDE, SQUARE = drawn(4, 1, 64), drawn(4, 2, 64), drawn(50, 50)
WEIGHT, COLUMN, ROW = drawn(64, 33), drawn(64, 1), drawn(1, 64)


def parts_and_their_gradient(x, w):
    def loss(x):
        left, right = nt.split(x, 2, axis=1)
        return ((left @ w) ** 2).sum() + (right * right).sum()

    g = nt.grad(loss)(x)
    return g, g[:, :1] @ w, g.sum(0)


PROGRAMS = {
    "slice of a join": (
        lambda a, b, w: nt.concatenate([a, b], 1)[:, :1] @ w,
        (STACK, STACK * 2, WEIGHT),
    ),
    "slice of a frame": (
        lambda a, w: nt.pad(a, ((0, 0), (0, 1), (0, 0)))[:, :1] @ w,
        (STACK, WEIGHT),
    ),
    "sum of a function of a repeated column": (
        lambda v: nt.exp(v.broadcast_to((64, 1000))).sum(),
        (COLUMN,),
    ),
    "product of a function of a repeated row": (
        lambda v, w: nt.exp(v.broadcast_to((8, 1, 64))) @ w,
        (ROW, WEIGHT),
    ),
    "sum of a repeated product": (
        lambda v, u: (v.broadcast_to((64, 1000)) * u.broadcast_to((64, 1000))).sum(),
        (COLUMN, COLUMN * 3),
    ),
    "reshape of a copy": (lambda x, w: x[:, :1].reshape(-1).reshape(4, 1, 64) @ w, (WIDE, WEIGHT)),
    "frame of nothing": (lambda x: nt.pad(x.T, 0).sum(0), (SQUARE,)),
    "transposed and back": (lambda x: x.T.T.sum(0) + x.T.sum(0), (SQUARE,)),
    "only ones move": (lambda x, w: x.swapaxes(0, 1).swapaxes(0, 2) @ w, (STACK[:1], WEIGHT[:1])),
    "transposed times 1": (lambda x: (x.T * 1.0).sum(0), (SQUARE,)),
    "transposed by 1": (lambda x: (x.T / 1.0).sum(), (SQUARE,)),
    "transposed minus 0": (lambda x: (x.T - 0.0).sum(0), (SQUARE,)),
    "transposed, negative twice": (lambda x: x.T.__neg__().__neg__().sum(0), (SQUARE,)),
    "transposed either way": (lambda x: nt.where(x.T > 0, x.T, x.T).sum(0), (SQUARE,)),
    "slice times 1": (lambda x, w: (x[:, :1] * 1.0) @ w, (WIDE, WEIGHT)),
    "detached transpose": (lambda x: (x.T.detach() * 1.0).sum(0) + x.T.detach().sum(0), (SQUARE,)),
    "reversed": (lambda x: nt.flip(nt.flip(x, 0), 0).sum(0) + nt.flip(x).sum(), (SQUARE,)),
    "minus -0": (lambda x: 1.0 / (x * 0.0 - -0.0), (SQUARE,)),
    "frames of either 0": (lambda x: 1.0 / nt.pad(x, 1) - 1.0 / nt.pad(x, 1, -0.0), (SQUARE,)),
    "gradients of parts": (parts_and_their_gradient, (WIDE, WEIGHT)),
}


def bits(results):
    results = results if isinstance(results, tuple) else (results,)
    return [(r.dtype, r.shape, r.numpy().tobytes()) for r in results]


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("function, arrays", PROGRAMS.values(), ids=PROGRAMS)
def test_layouts(function, arrays):
    assert bits(nt.compile(function, exact=True)(*arrays)) == bits(
        function(*map(nt.Tensor, arrays))
    )


def part(x, r):
    axis = int(r.integers(x.ndim))
    return x[(slice(None),) * axis + (slice(x.shape[axis] // 3, None),)]


def part_of_join(x, r):
    axis = int(r.integers(x.ndim))
    joined = nt.concatenate([x, x * 0.5], axis)
    return joined[(slice(None),) * axis + (slice(x.shape[axis]),)]


STEPS = (
    part,
    part_of_join,
    lambda x, r: x.transpose(tuple(r.permutation(x.ndim).tolist())),
    lambda x, r: x.reshape(-1).reshape(x.shape),
    lambda x, r: x.reshape(x.shape[0], -1),
    lambda x, r: x * 1.0,
    lambda x, r: x.__neg__().__neg__(),
    lambda x, r: nt.exp(x[..., :1].broadcast_to(x.shape) * 0.1),
    lambda x, r: nt.pad(x, 1)[tuple(slice(1, 1 + n) for n in x.shape)],
    lambda x, r: nt.pad(x, 0),
    lambda x, r: nt.where(x > 0, x, x),
    lambda x, r: nt.flip(x, int(r.integers(x.ndim))),
    lambda x, r: x.sum(int(r.integers(x.ndim)), keepdims=True).broadcast_to(x.shape),
)


def program(seed):
    """A function that sums and multiplies views of copies of views."""

    def sums(x):
        r = np.random.default_rng(seed)
        values = [x]
        for _ in range(8):
            values.append(STEPS[r.integers(len(STEPS))](values[r.integers(len(values))], r))
        for v in values[-3:]:
            yield from (v.sum(), *(v.sum(a) for a in range(v.ndim)), v @ v.swapaxes(-1, -2))

    def with_gradient(x):
        g = nt.grad(lambda x: sum((s * s).mean() for s in sums(x)))(x)
        return *sums(x), g, g.sum(0)

    return with_gradient


@pytest.mark.parametrize("seed", range(30))
def test_random_layouts(seed):
    x = drawn(*[(8, 6, 40), (4, 1, 64), (1, 33, 50), (64, 1, 17), (12, 50)][seed % 5])
    function = program(seed)
    assert bits(nt.compile(function, exact=True)(x)) == bits(function(nt.Tensor(x)))
