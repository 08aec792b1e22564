"""Arrays that change where a tape may read them again: never a wrong gradient."""

import copy

import numpy as np
import pytest

import numtape as nt
from numtape import nn
from numtape.ir.reading import OUT
from numtape.tracer.contents import fingerprint

ONES = np.ones(3)


def shuffled(array):
    array[...] = array[::-1].copy()


def one_entry(array):
    array[array.shape[0] // 3] *= 1.5


def all_entries(array):
    array *= 2


def two_signs(array):
    array[len(array) // 2 : len(array) // 2 + 2] *= -1


def two_exchanged(array):
    array[[1, 2]] = array[[2, 1]]


CHANGES = [shuffled, one_entry, all_entries, two_signs, two_exchanged]
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


@pytest.mark.parametrize("change", CHANGES[:-1])
def test_large_array_in_arithmetic_of_numpy_changes(change):
    array = np.linspace(0.0, 1.0, 200_000)
    compiled = nt.compile(lambda x: x * float((array[:100_000] - array[100_000:] * 2).sum()))
    before = compiled(ONES).tolist()
    change(array)
    expected = float((array[:100_000] - array[100_000:] * 2).sum())
    assert compiled(ONES).tolist() == [expected] * 3 != before


# ---- results ------------------------------------------------------------------------------


def assigned(y):
    y.assign(nt.zeros(3, np.float64))


def by_a_view(y):
    y.detach().numpy()[...] = 0.0


def by_a_view_assigned(y):
    y.detach().assign(nt.zeros(3, np.float64))


def by_a_view_without_gradients(y):
    with nt.no_grad():
        y[1:].numpy()[...] = 0.0


WRITES = [assigned, by_a_view, by_a_view_assigned, by_a_view_without_gradients]


@pytest.mark.parametrize("write", WRITES)
def test_result_that_its_rule_reads_is_written_to(write):
    x = nt.tensor(ONES, requires_grad=True)
    y = nt.exp(x)
    write(y)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward(nt.ones(3, np.float64))


@pytest.mark.parametrize("write", WRITES)
def test_result_that_no_rule_reads_is_written_to(write):
    x = nt.tensor(ONES, requires_grad=True)
    y = x * 3.0
    write(y)
    (y * 2.0).sum().backward()
    assert x.grad.tolist() == [6.0] * 3


def test_what_no_rule_reads_may_change():
    x, buffer = nt.tensor(ONES, requires_grad=True), np.ones(3)
    loss = (x + buffer).sum()
    buffer[...] = 9.0
    loss.backward()
    assert x.grad.tolist() == [1.0] * 3
    first = (x * x).sum()
    total = first.numpy()
    total += (x * x * x).sum().numpy()
    first.backward()
    assert x.grad.tolist() == [3.0] * 3


def test_a_view_of_what_is_assigned_while_tracing_that_no_rule_reads():
    def slope(linear, x):
        loss = linear(x).sum()  # reads the weight transposed, and its gradient rule x alone
        linear.weight.assign(linear.weight * 0.5)
        loss.backward()
        return linear.weight.grad

    x = nt.tensor(np.linspace(-1.0, 1.0, 32, dtype=np.float32).reshape(4, 8))
    nt.random.seed(0)
    linear = nn.Linear(8, 3)
    twin = copy.deepcopy(linear)
    found = nt.compile(lambda x: slope(linear, x))(x)
    np.testing.assert_array_equal(found.numpy(), slope(twin, x).numpy())
    np.testing.assert_array_equal(linear.weight.numpy(), twin.weight.numpy())


@pytest.mark.parametrize(
    "function, wanted, read",
    [
        (lambda x, y: x + y, (1, 1), ()),
        (lambda x, y: x * y, (1, 0), (1,)),
        (lambda x, y: x * y, (1, 1), (0, 1)),
        (lambda x, y: nt.exp(x), (1, 0), (OUT,)),
        (lambda x, y: nt.take(x, y.astype(np.int64)), (1, 0), (1,)),
        (lambda x, y: nt.reshape(x, (3, 1)), (1, 0), ()),
        (lambda x, y: x.sum(), (1, 0), ()),
    ],
)
def test_what_rules_read(function, wanted, read):
    out = function(*(nt.tensor(ONES, requires_grad=bool(w)) for w in wanted))
    assert set(out.reads) == set(read)


def test_fingerprints_tell_any_word_apart():
    rng = np.random.default_rng(3)
    array = rng.normal(size=70_000).astype(np.float32)
    before = fingerprint(array)
    for place in rng.integers(array.size, size=40):
        kept = array[place].copy()
        for other in (-kept, np.nextafter(kept, np.inf), 0.0, np.nan, np.inf):
            array[place] = other
            assert fingerprint(array) != before
        array[place] = kept
    assert fingerprint(array) == fingerprint(array.copy()) == before
    assert fingerprint(array[::-1]) != before
    assert fingerprint(np.ones(5001, np.int8)) != fingerprint(np.ones(5002, np.int8))


def test_large_arrays_under_a_compiled_call():
    """Samples of them are compared; `assign()` is noticed whatever it changes."""
    x = nt.tensor(np.ones(300_000), requires_grad=True)
    factor = nt.tensor(np.ones(300_000))
    run = nt.compile(lambda x: (x * factor).sum())

    def assigned(array):
        new = array.copy()
        new[7] = 3.0
        factor.assign(new)

    for change in (all_entries, assigned):
        loss = run(x)
        change(factor.numpy())
        with pytest.raises(RuntimeError, match="changed in place"):
            loss.backward()


def test_the_error_names_the_operation_and_what_is_viewed():
    linear = nn.Linear(8, 3)
    x = nt.tensor(np.ones((4, 8), np.float32), requires_grad=True)
    loss = linear(x).sum()
    linear.weight.assign(linear.weight * 0.5)
    message = r"f32\[8,3\], a view of f32\[3,8\], was changed in place after the matmul"
    with pytest.raises(RuntimeError, match=message):
        loss.backward()
