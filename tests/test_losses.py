"""Losses against plain NumPy, gradients against differences."""

import numpy as np
import pytest
from helpers import check_gradient, softmax

import numtape as nt
from numtape import nn
from numtape.ir.types import ShapeError
from numtape.nn import functional as F

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))
LOGITS = RNG.normal(size=(2, 3, 5))
TARGET = np.array([[0, 4, 1], [1, 2, 0]])


def reference_cross_entropy(logits, target, ignore, smoothing):
    log_p = np.log(softmax(logits)).reshape(-1, logits.shape[-1])
    losses = []
    for row, wanted in zip(log_p, target.ravel(), strict=True):
        if wanted != ignore:
            smoothed = np.full(len(row), smoothing / len(row))
            smoothed[wanted] += 1 - smoothing
            losses.append(-(smoothed * row).sum())
    return np.mean(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore", [None, 0, -1])
def test_cross_entropy(ignore, smoothing):
    loss = nn.CrossEntropyLoss(ignore_index=ignore, label_smoothing=smoothing)
    expected = reference_cross_entropy(LOGITS, TARGET, ignore, smoothing)
    np.testing.assert_allclose(loss(LOGITS, TARGET).item(), expected, rtol=1e-12)
    check_gradient(lambda logits: loss(logits, TARGET), LOGITS)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore", [None, 0, -1])
def test_cross_entropy_by_row(ignore, smoothing):
    settings = {"ignore_index": ignore, "label_smoothing": smoothing}
    rows = nn.CrossEntropyLoss(**settings, reduction="none")
    total = nn.CrossEntropyLoss(**settings, reduction="sum")
    counted = ignore != TARGET
    found = rows(LOGITS, TARGET).numpy()
    assert found.shape == TARGET.shape
    assert not found[~counted].any()
    expected = reference_cross_entropy(LOGITS, TARGET, ignore, smoothing)
    np.testing.assert_allclose(found.sum() / counted.sum(), expected, rtol=1e-12)
    np.testing.assert_allclose(total(LOGITS, TARGET).item(), found.sum(), rtol=1e-12)
    for loss in (rows, total):
        check_gradient(lambda logits, loss=loss: loss(logits, TARGET), LOGITS)


def test_cross_entropy_is_zero_when_every_target_is_ignored():
    logits = nt.tensor(LOGITS, requires_grad=True)
    loss = F.cross_entropy(logits, np.zeros((2, 3), int), ignore_index=0)
    loss.backward()
    assert loss.item() == 0.0
    np.testing.assert_array_equal(logits.grad.numpy(), 0)


def test_cross_entropy_survives_large_logits():
    loss = F.cross_entropy(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]))
    np.testing.assert_allclose(loss.item(), 5e3)


def test_losses_name_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"need a target of shape \(2, 3\)"):
        F.cross_entropy(LOGITS, np.zeros(5, int))
    with pytest.raises(ShapeError, match=r"f64\[3,4\] and the target f64\[3\] differ"):
        F.mse_loss(X, X[:, 0])
    with pytest.raises(ShapeError, match=r"need a target of shape \(2, 3\)"):
        F.cross_entropy(LOGITS, np.zeros(5, int), reduction="none")
    with pytest.raises(ValueError, match="reduction is 'mean', 'sum' or 'none', not 'avg'"):
        F.mse_loss(X, X, reduction="avg")
    with pytest.raises(ValueError, match=r"lies in \[0, 1\), got 1.0"):
        nn.CrossEntropyLoss(label_smoothing=1.0)


def test_mse_loss():
    target = RNG.normal(size=(3, 4))
    np.testing.assert_allclose(nn.MSELoss()(X, target).item(), ((X - target) ** 2).mean())
    check_gradient(lambda x, t: nn.MSELoss()(x, t), X, target)
    squares = (X - target) ** 2
    np.testing.assert_allclose(nn.MSELoss(reduction="none")(X, target).numpy(), squares)
    np.testing.assert_allclose(F.mse_loss(X, target, reduction="sum").item(), squares.sum())
