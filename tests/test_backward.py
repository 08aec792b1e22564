"""Reverse mode: gradients of any order, and errors where a gradient would be wrong."""

import gc
import threading
import weakref

import numpy as np
import pytest

import numtape as nt
from numtape.nn import functional as F
from numtape.tracer.recorder import EAGER


def leaf(*values):
    return nt.Tensor(np.array(values, np.float64), requires_grad=True)


# ---- grad and value_and_grad --------------------------------------------------------------


def test_orders():
    f = lambda x: x**5
    x, expected = 2.0, [80.0, 160.0, 240.0, 240.0, 120.0]
    for n in expected:
        f = nt.grad(f)
        assert f(np.float64(x)).item() == n
        assert nt.compile(f)(np.float64(x)).item() == n


def test_perturbations_are_not_confused():
    """d/dx [x · d/dy (x y)] = 2x."""
    x = np.float64(3.0)
    assert nt.grad(lambda x: x * nt.grad(lambda y: x * y)(np.float64(1.0)))(x).item() == 6.0
    assert nt.grad(lambda x: x * nt.grad(lambda y: x + y)(x))(x).item() == 1.0
    inner = lambda x: nt.grad(lambda y: x * x)(np.float64(1.0))  # ignores y
    assert nt.grad(lambda x: x + inner(x))(x).item() == 1.0


def test_value_and_grad():
    value, (a, b) = nt.value_and_grad(lambda x, y: (x * y).sum(), (0, 1))(
        np.array([1.0, 2.0]), np.array([3.0, 4.0])
    )
    assert (value.item(), a.tolist(), b.tolist()) == (11.0, [3.0, 4.0], [1.0, 2.0])


def test_nested_arguments():
    def loss(parameters, x):
        return ((x @ parameters["w"] + parameters["layers"][0]) ** 2).sum()

    parameters = {"w": np.eye(2), "layers": [np.zeros(2)], "name": "static"}
    found = nt.grad(loss)(parameters, np.array([1.0, 2.0]))
    assert found["w"].tolist() == [[2.0, 4.0], [4.0, 8.0]]
    assert found["layers"][0].tolist() == [2.0, 4.0]
    assert found["name"] == "static"


def test_argument_that_does_not_matter():
    found = nt.grad(lambda x, y: x.sum(), (0, 1))(np.ones(2), np.full((2, 3), np.inf))
    assert found[1].tolist() == [[0.0] * 3] * 2
    assert nt.grad(lambda x: nt.Tensor(2.0))(np.ones(2)).tolist() == [0.0, 0.0]


def test_function_that_gives_no_scalar():
    for function in (lambda x: x, lambda x: 1.0, lambda x: (x.sum(), x.sum())):
        with pytest.raises(ValueError, match="returns a scalar"):
            nt.grad(function)(np.ones(2))


def test_grad_leaves_no_traces():
    x, weight = nt.Tensor(np.ones(2)), leaf(3.0, 4.0)
    found = nt.grad(lambda t: (t * t * 2).sum())(x)
    assert not found.requires_grad
    assert x.grad is None
    penalty = nt.grad(lambda t: (t * t * weight).sum())(x)
    assert penalty.requires_grad  # it depends on the weight
    penalty.sum().backward()
    assert weight.grad.tolist() == [2.0, 2.0]
    with nt.no_grad():
        assert not nt.grad(lambda t: (t * t * weight).sum())(x).requires_grad


def test_mixed_second_derivatives():
    f = lambda x, y: (nt.sin(x) * nt.exp(y)).sum()
    x, y = np.array([0.3, -0.7]), np.array([0.1, 0.9])
    across = nt.grad(lambda y: nt.grad(f)(x, y).sum())(y)
    np.testing.assert_allclose(across.numpy(), np.cos(x) * np.exp(y), rtol=1e-14)
    other = nt.grad(lambda x: nt.grad(lambda y: f(x, y))(y).sum())(x)
    np.testing.assert_allclose(other.numpy(), np.cos(x) * np.exp(y), rtol=1e-14)


def test_hessian_of_a_composite():
    x = np.array([0.5, -1.0, 2.0])
    rows = [nt.grad(lambda t, i=i: nt.grad(lambda u: F.softmax(u)[0])(t)[i])(x) for i in range(3)]
    hessian = np.array([r.numpy() for r in rows])
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-15)
    np.testing.assert_allclose(hessian.sum(0), 0, atol=1e-15)


def test_create_graph():
    x = leaf(1.0, 2.0)
    (x**3).sum().backward(create_graph=True)
    first = x.grad
    assert first.tolist() == [3.0, 12.0]
    x.grad = None
    first.sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]


# ---- backward -----------------------------------------------------------------------------


def test_uses_are_summed():
    x = leaf(2.0)
    y = x * x
    (y + y * x + x).sum().backward()
    assert x.grad.tolist() == [2 * 2 + 3 * 4 + 1]


def test_gradients_of_several_calls_are_summed():
    x = leaf(1.0, 2.0)
    for factor in (1.0, 10.0):
        (x * factor).sum().backward()
    assert x.grad.tolist() == [11.0, 11.0]
    x.grad = None
    assert x.grad is None


def test_broadcasting_is_undone():
    x, bias = nt.Tensor(np.ones((4, 3)), requires_grad=True), leaf(1.0, 2.0, 3.0)
    scalar = nt.Tensor(2.0, dtype=np.float64, requires_grad=True)
    ((x + bias) * scalar).sum().backward()
    assert bias.grad.tolist() == [8.0, 8.0, 8.0]
    assert scalar.grad.shape == ()
    assert scalar.grad.item() == 36.0


def test_gradients_have_the_dtype_of_what_they_are_for():
    x, y = nt.tensor([1.0], requires_grad=True), leaf(2.0)
    (x * y).sum().backward()
    assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)


def test_weights_of_backward():
    x = leaf(1.0, 2.0)
    (x * x).backward(np.array([1.0, 10.0]))
    assert x.grad.tolist() == [2.0, 40.0]
    with pytest.raises(ValueError, match="shape"):
        (x * x).backward(np.ones(3))


def test_long_chains_need_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(3000):
        y = y + 1.0
    y.sum().backward()
    assert x.grad.tolist() == [1.0]
    assert nt.grad(lambda t: (t + y.detach()).sum())(np.ones(1)).tolist() == [1.0]


def test_not_a_scalar():
    with pytest.raises(ValueError, match=r"f64\[2\].*sum\(\).*test_backward\.py:\d+\)"):
        (leaf(1.0, 2.0) * 2).backward()


def test_nothing_to_differentiate():
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        nt.Tensor(np.ones(())).backward()


def test_backward_twice():
    x = leaf(1.0, 2.0)
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad.tolist() == [4.0, 8.0]
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        loss.backward()


def test_shared_part_passed_twice():
    x = leaf(1.0, 2.0)
    shared = x * x
    shared.sum().backward()
    with pytest.raises(RuntimeError, match="retain_graph"):
        (shared * 2).sum().backward()


@pytest.mark.parametrize("view", [lambda t: t, lambda t: t.reshape(1, 2), lambda t: t[::-1]])
def test_change_in_place_before_backward(view):
    x, factor = leaf(1.0, 2.0), nt.Tensor(np.array([3.0, 4.0]))
    loss = (x * view(factor)).sum()
    factor.assign(factor * 2)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_change_in_place_of_what_is_not_used_again():
    x, other = leaf(1.0, 2.0), nt.Tensor(np.zeros(2))
    loss = (x * x).sum()
    other.assign(np.ones(2))
    loss.backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_no_grad():
    x = leaf(1.0, 2.0)
    with nt.no_grad():
        y = (x * 2).sum()
    assert not y.requires_grad
    with pytest.raises(RuntimeError, match="no_grad"):
        y.backward()
    assert (x * 2).requires_grad


def test_detach():
    x = leaf(1.0, 2.0)
    y = (x * 2).detach()
    assert not y.requires_grad
    assert np.shares_memory(x.detach().numpy(), x.numpy())
    (x * y).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_what_can_require_a_gradient():
    with pytest.raises(TypeError, match="only floats"):
        nt.tensor([1, 2], requires_grad=True)
    y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="detach"):
        y.requires_grad = False
    assert not y.is_leaf
    assert leaf(1.0).is_leaf


def test_integers_and_masks_on_the_way():
    x, index = leaf(1.0, 2.0, 3.0), nt.tensor([0, 0, 2])
    mask = x > 1.5
    loss = (nt.take(x, index) * mask).sum()
    loss.backward()
    assert x.grad.tolist() == [1.0, 0.0, 1.0]


def test_gradients_do_not_share_memory():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (a + b).sum().backward()
    a.grad.data[...] = 7.0
    assert b.grad.tolist() == [1.0, 1.0]
    seed = np.ones(2)
    a.grad = None
    (a * 1.0 + 0.0).backward(seed)
    a.grad.data[...] = 5.0
    assert seed.tolist() == [1.0, 1.0]


def test_backward_lets_go_of_what_it_used():
    x = leaf(1.0, 2.0)
    middle = x * 2
    held = weakref.ref(middle)
    loss = (middle * middle).sum()
    del middle
    loss.backward()
    gc.collect()
    assert held() is None


def test_threads_do_not_share_what_rules_compute():
    seen = []
    node = nt.Tensor(np.ones(2), requires_grad=True).exp()
    with EAGER._around(node, release=False):
        thread = threading.Thread(target=lambda: seen.append(EAGER._shared))
        thread.start()
        thread.join()
        assert EAGER._shared == {}
    assert seen == [None]
