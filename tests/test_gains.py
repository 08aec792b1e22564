"""Gains in the weights behind them: when, and that nothing changes but rounding."""

import numpy as np
import pytest
from helpers import written
from test_passes import NAMES, PASSES, traced

import numtape as nt
from numtape import nn
from numtape.ir.verify import verify
from numtape.nn import functional as F
from numtape.passes import PIPELINE, optimise

RNG = np.random.default_rng(0)
X, W, GAIN = RNG.normal(size=(4, 8, 6)), RNG.normal(size=(5, 6)), RNG.normal(size=6)


def before(function, *arguments):
    graph, _ = optimise(traced(function, *arguments), PIPELINE[: NAMES.index("gains")])
    return graph


def norm(x, w, gain):
    return F.rms_norm(x, (6,), gain) @ w.T


def gradients(x, w, gain):
    return nt.grad(lambda *a: nt.sin(norm(*a)).sum(), argnums=(0, 1, 2))(x, w, gain)


def turned(x, w, gain):
    """What looks like the gradient of a weight, with rows in another order."""
    y = x * gain
    g = nt.sin(y @ w.T)
    back = g @ w
    return y.swapaxes(0, 1).reshape(-1, 6).T @ g.reshape(-1, 5), back * gain


def test_rows_in_another_order_are_another_product():
    tensors = [nt.tensor(a) for a in (X, W, GAIN)]
    for a, b in zip(nt.compile(turned)(*tensors), turned(*tensors), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-12)


def products(graph):
    return [v for v in graph.nodes if v.op.name == "matmul"]


def scaled(graph, size):
    """Products with a gain that make so many entries."""
    vectors = {v for v in graph.inputs if v.ndim == 1}
    return [
        v for v in graph.nodes if v.op.name == "mul" and v.size == size if {*v.inputs} & vectors
    ]


def test_forward():
    graph = before(lambda z, w, gain: (z * gain) @ w.T, X, W, GAIN)
    assert written(verify(PASSES["gains"].apply(graph))) == [
        "%3: f64[5,6] = mul(%1, %2)",
        "%4: f64[6,5] = transpose(%3, axes=(1, 0))",
        "%5: f64[4,8,5] = matmul(%0, %4)",
        "return %5",
    ]


def test_gradients():
    """The activation is no longer scaled, nor is its gradient; the weight is, and its own."""
    graph = before(gradients, X, W, GAIN)
    assert (len(scaled(graph, X.size)), len(scaled(graph, W.size))) == (2, 0)
    after = verify(PASSES["gains"].apply(graph))
    assert (len(scaled(after, X.size)), len(scaled(after, W.size))) == (0, 2)
    assert len(products(after)) == len(products(graph)) == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_changes_but_rounding(dtype):
    tensors = [nt.tensor(a.astype(dtype)) for a in (X, W, GAIN)]
    close = 1e-5 if dtype == np.float32 else 1e-12
    found = nt.compile(gradients)(*tensors)
    for a, b in zip(found, gradients(*tensors), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=close, atol=close)


def shared(x, w, gain):
    y = F.rms_norm(x, (6,), gain)
    return y @ w.T + y.sum()


def shown(x, w, gain):
    y = F.rms_norm(x, (6,), gain)
    return y @ w.T, y


def twice(x, w, gain):
    y = F.rms_norm(x, (6,), gain)
    return nt.grad(lambda y: nt.sin(y @ w.T).sum())(y), y.sum()


def backward(x, w, gain, read):
    """What gradients do, but for what is read of the one that goes back."""
    y = x * gain
    g = nt.sin(y @ w.T)
    return y.reshape(-1, 6).T @ g.reshape(-1, 5), read(g @ w)


def test_the_gradient_of_a_gain():
    graph = before(lambda *a: backward(*a, lambda back: (back * a[0]).sum((0, 1))), X, W, GAIN)
    assert PASSES["gains"].apply(graph) is not graph


@pytest.mark.parametrize(
    "function, arguments",
    [
        (norm, (X[:1, :3], W, GAIN)),  # more rows in the weight
        (shared, (X, W, GAIN)),
        (shown, (X, W, GAIN)),
        (twice, (X, W, GAIN)),
        (lambda x, w, gain: F.rms_norm(x, (6,), gain) @ w, (X, RNG.normal(size=(6, 6)), GAIN)),
        (lambda x, w, gain: F.layer_norm(x, (6,), gain, gain) @ w.T, (X, W, GAIN)),
        (lambda x, w, gain: (x * x) @ w.T, (X, W, GAIN)),
        (lambda x, w, gain: (x[..., :1] * gain) @ w.T, (X, W, GAIN)),
        (turned, (X, W, GAIN)),
        (lambda x, w, gain: (x * gain) @ w.T, (X, W[:0], GAIN)),
        (lambda *a: backward(*a, lambda back: (back * a[0]).sum(2)), (X, W, GAIN)),
        (lambda *a: backward(*a, lambda back: (back * 0.5).sum((0, 1))), (X, W, GAIN)),
    ],
    ids=[
        "few rows",
        "shared",
        "shown",
        "gradient shown",
        "not transposed",
        "bias",
        "no gain",
        "repeated",
        "turned",
        "empty",
        "summed otherwise",
        "times something else",
    ],
)
def test_what_stays(function, arguments):
    graph = before(function, *arguments)
    assert PASSES["gains"].apply(graph) is graph


def test_a_model_with_norms_in_front_of_its_weights():
    """Losses and parameters of some steps, compiled against eager."""

    def trained(run):
        nt.random.seed(0)
        model = nn.Sequential(nn.RMSNorm(8), nn.Linear(8, 4), nn.RMSNorm(4), nn.Linear(4, 2))
        for p in model.parameters():
            p.assign(p.numpy() + 0.1 * noise(p.shape))
        optimizer = nt.optim.AdamW(model.parameters(), 1e-2)

        def step(x):
            loss = nt.square(model(x)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        step = run(step)
        losses = [float(step(nt.tensor(X[:, :, :4].reshape(16, 8)))) for _ in range(5)]
        return losses, [p.numpy() for p in model.parameters()]

    eager, compiled = trained(lambda step: step), trained(nt.compile)
    np.testing.assert_allclose(compiled[0], eager[0], rtol=1e-5)
    for a, b in zip(compiled[1], eager[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def noise(shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)
