"""Reductions and running sums mean what they mean in NumPy."""

import numpy as np
import pytest
from helpers import check, drawn, same
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import numtape as nt

quick = settings(max_examples=40, deadline=None, derandomize=True)
I64, BOOL = np.dtype("i8"), np.dtype("?")


@st.composite
def reductions(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3))
    ndim = len(shape)
    axes = st.integers(-ndim, ndim - 1)
    some = st.lists(axes, unique_by=lambda a: a % ndim, max_size=ndim).map(tuple)
    return shape, draw(st.none() | axes | some), draw(st.booleans())


@quick
@given(reductions(), st.sampled_from(["sum", "prod", "mean", "max", "min", "var", "std"]))
def test_reductions(chosen, name):
    shape, axis, keepdims = chosen
    x = drawn(*shape)
    expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
    same(getattr(nt, name)(x, axis, keepdims), expected)
    same(getattr(nt.Tensor(x), name)(axis=axis, keepdims=keepdims), expected)


@quick
@given(reductions(), st.sampled_from(["any", "all"]))
def test_any_and_all(chosen, name):
    shape, axis, keepdims = chosen
    for x in (drawn(*shape) > 0, (drawn(*shape) > 0) * 2.5, drawn(*shape)):
        expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
        same(getattr(nt, name)(x, axis, keepdims), expected)
        found = getattr(nt.Tensor(x), name)(axis=axis, keepdims=keepdims)
        same(found, expected)
        assert found.dtype == BOOL


@pytest.mark.parametrize("zeros", [0, 1, 2])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_gradients_of_products_with_zeros(zeros, axis):
    x = drawn(5, 3)
    x[:zeros, 1] = 0.0
    check(lambda t: nt.prod(t, axis), lambda a: np.prod(a, axis), x)


def test_any_and_all_of_nothing():
    x = np.empty((2, 0))
    for axis in (None, 0, 1):
        same(nt.any(x, axis), np.any(x, axis))
        same(nt.all(x, axis), np.all(x, axis))


def test_products_of_nothing_and_of_integers():
    same(nt.prod(np.empty((2, 0, 3)), 1), np.ones((2, 3)))
    found = nt.Tensor(np.array([[2, 3], [4, 5]], np.int32)).prod(0)
    assert (found.tolist(), found.dtype) == ([8, 15], I64)


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "max", "min", "var", "std"])
@pytest.mark.parametrize("axis", [None, 1, (0, 2), -1])
def test_gradients_of_reductions(name, axis):
    reduce, reference = getattr(nt, name), getattr(np, name)
    check(lambda x: reduce(x, axis), lambda x: reference(x, axis), drawn(2, 3, 4))


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_places_and_running_sums(axis):
    x = drawn(3, 4)
    for name in ("argmax", "argmin"):
        for keepdims in (False, True):
            found = getattr(nt, name)(x, axis, keepdims)
            assert np.array_equal(found.numpy(), getattr(np, name)(x, axis, keepdims=keepdims))
            assert found.dtype == I64
    check(lambda t: nt.cumsum(t, axis), lambda a: np.cumsum(a, axis), x)


def test_unbiased_variance():
    x = drawn(4, 5)
    same(nt.var(x, 0, ddof=1), np.var(x, 0, ddof=1))
    same(nt.std(x, ddof=1), np.std(x, ddof=1))


@pytest.mark.parametrize("subscripts, products", [("ij,jk,kl->il", 36_000), ("ij,jk,k", 12_000)])
def test_einsum_takes_the_cheapest_order(subscripts, products):
    arrays = [np.ones(s) for s in ((50, 60), (60, 50), (50, 3))]
    if "l" not in subscripts:
        arrays[2] = arrays[2][:, 0]
    tape = nt.compile(lambda *xs: nt.einsum(subscripts, *xs)).tape(*arrays)
    assert tape.cost.products == products
