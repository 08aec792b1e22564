"""Programs for tests to compile: random ones, and the training steps of two small models."""

import numpy as np
import pytest

import numtape as nt
from numtape import nn, optim
from numtape.transformer import GPT

SHAPE = (4, 6)


def bounded(x):
    return x.tanh()


# Each takes a generator and a pool of (4, 6) float tensors and gives one more of that shape.
def _add(rng, a, b):
    return bounded(a + b)


def _mixed(rng, a, b):
    return bounded(a * b - b * 0.5)


def _select(rng, a, b):
    return nt.where(a > b, a, -b)


def _product(rng, a, b):
    return bounded(a @ b.T @ a)


def _turned(rng, a, b):
    return a.T.reshape(SHAPE) + b.reshape(6, 4).T


def _reversed(rng, a, b):
    return nt.flip(a, int(rng.integers(2))) * b[::-1, ::-1]


def _stepped(rng, a, b):
    return nt.concatenate([a[::2], b[1::2]], axis=0)


def _views_of_views(rng, a, b):
    return a.reshape(2, 2, 6).swapaxes(0, 1)[:, ::-1].reshape(SHAPE) - b.T[1:].T[:, :1]


def _rows(rng, a, b):
    return a - a.mean(1, keepdims=True) + b.max(0)


def _totals(rng, a, b):
    return bounded(a.sum() * 0.1 + b.sum(0) * 0.2 + b.sum(1, keepdims=True))


def _softmax(rng, a, b):
    return nn.functional.softmax(a * 2.0, int(rng.integers(2))) + b


def _norm(rng, a, b):
    return nn.functional.layer_norm(a, (6,), b[0], b[1])


def _gelu(rng, a, b):
    return nn.functional.gelu(a) * nt.sigmoid(b)


def _gathered(rng, a, b):
    return nt.take(a, rng.integers(-4, 4, 4)) + b[np.array([0, 2, 2, 1])]


def _scattered(rng, a, b):
    return bounded(nt.index_add(a, rng.integers(0, 4, 3), b[:3]))


def _running(rng, a, b):
    return bounded(a.cumsum(1)) + nt.tril(b)


def _narrow(rng, a, b):
    return a.astype(np.float32).astype(np.float64) * b


def _parts(rng, a, b):
    left, middle, right = nt.split(a, 3, axis=1)
    return nt.concatenate([right, middle * b[:, 2:4], left], axis=1)


def _stacked(rng, a, b):
    return nt.stack([a, b, a * b]).max(0)


def _framed(rng, a, b):
    return nt.pad(a[1:3, 1:5], 1) + b


def _powers(rng, a, b):
    return nt.sqrt(a * a + 1.0) / (nt.exp(b) + 1.0)


def _indices(rng, a, b):
    return a + nt.take(b, b.argmax(0)[:4] % 4)


STEPS = [f for name, f in sorted(globals().items()) if name.startswith("_") and callable(f)]


class RandomProgram:
    """A function of two arrays that mixes many ops on shared values, the same at every run.

    `update` lets it change its state between other uses; `learn` ends with a gradient step.
    """

    def __init__(self, seed, length=14, update=False, learn=False):
        self.seed, self.length, self.update, self.learn = seed, length, update, learn
        rng = np.random.default_rng(seed)
        self.arguments = [rng.normal(size=SHAPE) for _ in range(2)]
        values = [rng.normal(size=SHAPE) for _ in range(2)]
        self.state = [nt.Tensor(v, requires_grad=learn) for v in values]

    def __call__(self, x, y):
        rng = np.random.default_rng(self.seed)
        pool = [x, y, *(s * 1.0 for s in self.state)]
        for _ in range(self.length):
            step = STEPS[rng.integers(len(STEPS))]
            a, b = (pool[i] for i in rng.integers(len(pool), size=2))
            pool.append(step(rng, a, b))
            if self.update and rng.random() < 0.3:
                target = self.state[rng.integers(2)]
                target.assign(pool[rng.integers(len(pool))])
                pool.append(target * 1.0)
        chosen = [pool[i] for i in rng.integers(len(pool), size=3)]
        return self._learned(chosen) if self.learn else (*chosen, pool[-1].T, pool[-1])

    def _learned(self, chosen):
        loss = sum((t * t).mean() for t in chosen) + sum((s * s).sum() for s in self.state)
        for s in self.state:
            s.grad = None
        loss.backward()
        gradients = [s.grad for s in self.state]
        with nt.no_grad():
            for s, g in zip(self.state, gradients, strict=True):
                s.assign(s - g * 0.1)
        return loss, *gradients, *(s * 1.0 for s in self.state)


def mlp_step(seed=0):
    """The training step of a small perceptron, and its arguments."""
    nt.random.seed(seed)
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    arguments = (rng.normal(size=(24, 16)).astype(np.float32), rng.integers(0, 4, 24))
    return training_step(model, optimizer), arguments


def gpt_step(seed=0, layers=2, width=32, length=16, batch=4, dropout=0.0):
    """The training step of a small language model, and its arguments."""
    nt.random.seed(seed)
    rng = np.random.default_rng(seed)
    model = GPT(29, length, width, heads=2, layers=layers, dropout=dropout)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    arguments = tuple(rng.integers(0, 29, (batch, length)) for _ in range(2))
    return training_step(model, optimizer), arguments


def training_step(model, optimizer):
    def step(x, target):
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


TRAINING = {
    "mlp": mlp_step,
    "gpt": gpt_step,
    "gpt with dropout": lambda: gpt_step(dropout=0.1),
}
each_step = pytest.mark.parametrize("make", TRAINING.values(), ids=TRAINING)


def forward_and_reverse():
    """A tape in two parts."""
    weight = nt.Tensor(np.ones((6, 4)), requires_grad=True)
    function = lambda x: (nt.exp(x @ weight).sum(1) * (x @ weight).max(1)).sum()
    return function, (np.linspace(-1, 1, 30).reshape(5, 6),)


def chain(x):
    y = nt.exp(x)
    return (y + 1.0) * 2.0 * y


def rows(x):
    y = nt.exp(x - x.mean(1, keepdims=True))
    return y / (y * y).sum(1, keepdims=True), y.max(1)
