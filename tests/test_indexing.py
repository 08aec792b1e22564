"""Indexing and products: NumPy's meaning in all its shapes, and gradients that accumulate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_functions import check, drawn, same

import numtape as nt

quick = settings(max_examples=60, deadline=None, derandomize=True)
a, b = np.array([[2, 0], [1, 1]]), np.array([0, -1])

KEYS = {
    "int": 1,
    "negative int": -2,
    "ints": (0, -1),
    "slice": slice(1, 3),
    "step": (slice(None), slice(None, None, 2)),
    "reversed": (slice(None, None, -1), slice(3, None, -2)),
    "beyond": slice(1, 99),
    "empty": slice(2, 1),
    "ellipsis": (..., 1),
    "ellipsis between": (0, ..., slice(1, 2)),
    "new axes": (None, slice(None), None, 1),
    "new axis last": (..., None),
    "everything": (...,),
    "array": a,
    "list": ([0, 2, 2],),
    "array last": (..., b),
    "repeated": np.array([1, 1, 1, 0]),
    "negative": np.array([-1, -3, 2]),
    "two together": (a, b),
    "two at the end": (slice(None), a, b),
    "two apart": (a, slice(None), b),
    "with int": (0, slice(None), b),
    "with slice": (slice(0, 2), b),
    "after int": (1, b),
    "three": (b, b, b),
    "broadcasting": (np.array([[0], [1]]), np.array([0, 1, 2])),
    "with new axis": (None, b, slice(1, None)),
    "with ellipsis": (b, ..., np.array([0, 2])),
    "no indices": np.array([], np.int64),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_keys(key):
    check(lambda t: t[key], lambda x: x[key], drawn(3, 4, 5))


# NumPy counts an integer among the index arrays where it decides whose axes stand together.
@pytest.mark.parametrize("key", [(0, slice(None), b), (b, slice(None), 0), (b, 0), (0, b, 1)])
def test_integers_among_arrays(key):
    x = drawn(3, 4, 5)
    same(nt.Tensor(x)[key], x[key])


@quick
@given(st.data())
def test_basic_keys(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5))
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    x = drawn(*shape)
    same(nt.Tensor(x)[key], x[key])


@quick
@given(st.data())
def test_array_keys(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    key = data.draw(hnp.integer_array_indices(shape, dtype=np.int64))
    x = drawn(*shape)
    same(nt.Tensor(x)[key], x[key])
    gradient = np.zeros_like(x)
    np.add.at(gradient, key, 1.0)
    same(nt.grad(lambda t: t[key].sum())(x), gradient)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint64])
def test_narrow_indices_reach_every_entry(dtype):
    x = drawn(100, 200)
    i, j = np.array([99, 50], dtype), np.array([120, 3], dtype)
    same(nt.Tensor(x)[i, j], x[i, j])
    same(nt.compile(lambda t, a, b: t[a, b])(x, i, j), x[i, j])
    same(nt.take(nt.Tensor(x[0]), j), x[0][j])
    if np.dtype(dtype).kind == "i":
        same(nt.Tensor(x)[:, -j], x[:, -j])


def test_indices_as_tensors_are_read_at_each_call():
    x, index = drawn(5, 2), np.array([4, -5, 4])
    pick = nt.compile(lambda t, i: t[i])
    same(pick(x, index), x[index])
    same(pick(x, np.array([0, 1, 2])), x[:3])
    assert len(pick.tapes) == 1


@pytest.mark.parametrize(
    "key, error, message",
    [
        (3, IndexError, "index 3"),
        (-4, IndexError, "index -4"),
        ((0, 0, 0, 0), IndexError, "too many"),
        ((..., ...), IndexError, "too many"),
        (np.array([0, 3]), IndexError, "index 3 at position"),
        (np.array([True, False, True]), TypeError, "where"),
        (1.5, TypeError, "integers"),
        ("a", TypeError, "integers"),
        (slice(0.5, 2), TypeError, "slice bounds"),
    ],
)
def test_keys_that_do_not_fit(key, error, message):
    with pytest.raises(error, match=message):
        nt.Tensor(drawn(3, 4, 5))[key]


def test_iteration_and_length():
    x = drawn(3, 2)
    assert len(nt.Tensor(x)) == 3
    assert [row.tolist() for row in nt.Tensor(x)] == x.tolist()
    with pytest.raises(TypeError, match="scalar"):
        len(nt.Tensor(1.0))


# ---- products -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x, y",
    [
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((3,), (5, 3, 4)),
        ((5, 2, 3), (3,)),
        ((4, 1, 2, 3), (5, 3, 2)),
        ((1, 2, 3), (5, 3, 2)),
        ((2, 1), (1, 2)),
    ],
)
def test_matmul(x, y):
    check(lambda a, b: a @ b, np.matmul, drawn(*x), drawn(*y))
    same(nt.matmul(drawn(*x), drawn(*y)), np.matmul(drawn(*x), drawn(*y)))


SUBSCRIPTS = {
    "ij,jk": [(2, 3), (3, 4)],
    "ij,jk->ki": [(2, 3), (3, 4)],
    "ij": [(2, 3)],
    "ji": [(2, 3)],
    "ij->": [(2, 3)],
    "ij->j": [(2, 3)],
    "ii": [(3, 3)],
    "ii->i": [(3, 3)],
    "iij->ij": [(3, 3, 2)],
    "iii->i": [(3, 3, 3)],
    "i,i": [(3,), (3,)],
    "i,j": [(3,), (4,)],
    "i,j->ji": [(3,), (4,)],
    "ij,ij->ij": [(2, 3), (2, 3)],
    "bij,bjk->bik": [(2, 3, 4), (2, 4, 5)],
    "bhqd,bhkd->bhqk": [(2, 2, 3, 4), (2, 2, 5, 4)],
    "bqhd,bkhd->bhqk": [(2, 3, 2, 4), (2, 5, 2, 4)],
    "...i,...i->...": [(2, 3, 4), (2, 3, 4)],
    "...ij,jk->...ik": [(2, 3, 4), (4, 5)],
    "...i,ji": [(2, 3), (4, 3)],
    "i...->...": [(2, 3, 4)],
    "...ii->...i": [(2, 3, 3)],
    "ij,jk,kl->il": [(2, 3), (3, 4), (4, 2)],
    "i,i,i->": [(3,), (3,), (3,)],
    "ij,k->ijk": [(2, 3), (4,)],
    "ij , jk -> ik": [(2, 3), (3, 4)],
    "ii,ij->j": [(3, 3), (3, 2)],
    ",i->i": [(), (3,)],
    "abc->cab": [(2, 3, 4)],
}


@pytest.mark.parametrize("subscripts, shapes", SUBSCRIPTS.items(), ids=SUBSCRIPTS)
def test_einsum(subscripts, shapes):
    arrays = [drawn(*s) for s in shapes]
    check(lambda *xs: nt.einsum(subscripts, *xs), lambda *xs: np.einsum(subscripts, *xs), *arrays)
    found = nt.compile(lambda *xs: nt.einsum(subscripts, *xs))(*arrays)
    same(found, np.einsum(subscripts, *arrays))


@pytest.mark.parametrize(
    "subscripts, shapes",
    [("...ij,...jk->...ik", [(5, 1, 2, 3), (4, 3, 2)]), ("...i,...i", [(2, 3), (3,)])],
)
def test_einsum_broadcasts_ellipses(subscripts, shapes):
    arrays = [drawn(*s) for s in shapes]
    check(lambda *xs: nt.einsum(subscripts, *xs), lambda *xs: np.einsum(subscripts, *xs), *arrays)


@pytest.mark.parametrize(
    "subscripts, shapes, message",
    [
        ("ij,jk->ik", [(2, 3), (4, 5)], "'j'"),
        ("ij->ik", [(2, 3)], "'k'"),
        ("ij,jk", [(2, 3)], "2 terms"),
        ("ijk", [(2, 3)], "'ijk'"),
    ],
)
def test_einsum_that_does_not_fit(subscripts, shapes, message):
    with pytest.raises(ValueError, match=message):
        nt.einsum(subscripts, *(drawn(*s) for s in shapes))


@pytest.mark.parametrize("width", [1, 7, 300])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_gradients_of_rows_accumulate(width, dtype):
    rng = np.random.default_rng(width)
    table, weight = rng.normal(size=(40, width)), rng.normal(size=(3, 50, width))
    index = rng.integers(0, 40, (3, 50)).astype(dtype)
    expected = np.zeros_like(table)
    np.add.at(expected, index, weight)

    def slope(table, index):
        return nt.grad(lambda t: (nt.take(t, index, axis=0) * weight).sum())(table)

    assert np.array_equal(slope(table, index).numpy(), expected)
    assert np.array_equal(nt.compile(slope, exact=True)(table, index).numpy(), expected)
