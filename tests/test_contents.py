"""Arrays that change where a tape may read them again: never a wrong gradient."""

import numpy as np
import pytest

import numtape as nt

ONES = np.ones(3)


def shuffled(array):
    array[...] = array[::-1].copy()


def one_entry(array):
    array[array.shape[0] // 3] *= 1.5


def all_entries(array):
    array *= 2


CHANGES = [shuffled, one_entry, all_entries]
SIZES = [5, 3_000, 100_003]


def change_and_go_back(run, get, change, n):
    """`run(x)` is differentiated after `change` of what `get()` gives."""
    x = nt.tensor(np.linspace(0.5, 1.5, n), requires_grad=True)
    loss = run(x)
    change(get())
    with pytest.raises(
        RuntimeError, match=r"test_contents\.py:\d+: f64\[\d+\] was changed in place"
    ):
        loss.backward()
    assert x.grad is None


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("compiled", [False, True])
def test_array_changes_before_backward(change, n, compiled):
    array, strided = np.linspace(1.0, 2.0, n), np.linspace(1.0, 2.0, 2 * n)[::2]
    tensor = nt.tensor(array)
    for given, get in (
        (array, lambda: array),
        (strided, lambda: strided),
        (tensor, tensor.numpy),
        (tensor, lambda: tensor.data),
    ):
        run = lambda x, given=given: (x * given).sum()
        change_and_go_back(nt.compile(run) if compiled else run, get, change, n)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("n", SIZES)
def test_result_changes_before_backward(change, n):
    kept = []

    def run(x):
        kept.append(nt.exp(x))
        kept.append(kept[0].numpy())
        return kept[0].sum()

    change_and_go_back(run, lambda: kept[1], change, n)


def test_arguments_and_results_of_a_compiled_call_may_change():
    x = nt.tensor([1.0, 2.0], requires_grad=True)
    factor = np.array([3.0, 4.0], np.float32)
    y = nt.compile(lambda x, f: nt.exp(x * f))(x, factor)
    factor[...] = 0
    y.numpy()[...] = 0
    y.backward(nt.ones(2))
    assert x.grad.numpy() == pytest.approx([3 * np.exp(3), 4 * np.exp(8)])


@pytest.mark.parametrize("change", CHANGES)
def test_large_array_in_arithmetic_of_numpy_changes(change):
    array = np.linspace(0.0, 1.0, 200_000)
    compiled = nt.compile(lambda x: x * float((array[:100_000] - array[100_000:] * 2).sum()))
    before = compiled(ONES).tolist()
    change(array)
    expected = float((array[:100_000] - array[100_000:] * 2).sum())
    assert compiled(ONES).tolist() == [expected] * 3 != before
