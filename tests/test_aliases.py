"""Tensors that share memory, and one tensor that comes in by two ways.

A compiled function either does what the eager one does, or raises an error that names the line.
"""

import numpy as np
import pytest

import numtape as nt
from numtape import nn, optim


def parameter(*values):
    return nt.Tensor(np.array(values, np.float64), requires_grad=True)


def last_line(function):
    """How an error names it."""
    return f"{__file__}:{max(line for *_, line in function.__code__.co_lines() if line)}"


# ---- captured tensors that share memory ---------------------------------------------------


def array_of(state):
    return state.numpy()


def second_tensor(state):
    return nt.Tensor(state.numpy())


VIEWS = {
    "flipped": nt.flip,
    "row": lambda state: state[0],
    "turned": lambda state: state.T,
    "another tensor": second_tensor,
    "the array itself": array_of,
}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("look", VIEWS.values(), ids=VIEWS.keys())
def test_captured_view_of_a_tensor_that_is_updated(look, exact):
    state = nt.tensor([[1.0, 2.0], [3.0, 4.0]])
    view = look(state)

    def step():
        state.assign(state @ state)
        return state + view

    with pytest.raises(nt.TraceError, match="shares memory with") as error:
        nt.compile(step, exact=exact)()
    assert last_line(step) in str(error.value)
    assert state.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_names_of_tensors_that_share_memory():
    layer = nn.Linear(3, 2)
    column = layer.weight.detach()[:, 0]

    @nt.compile
    def step(x):
        layer(x).sum().backward()
        layer.weight.assign(layer.weight - layer.weight.grad)
        return column * 1.0

    with pytest.raises(nt.TraceError, match=r"updates weight \(f32\[2,3\], used at .*f32\[2\]"):
        step(np.ones((1, 3), np.float32))


def test_captured_views_that_nobody_updates():
    state = nt.tensor([1.0, 2.0, 3.0, 4.0])
    tail, other = nt.flip(state), parameter(1.0)

    @nt.compile
    def step():
        other.assign(other + 1.0)
        return state + tail + other

    assert step().tolist() == [7.0, 7.0, 7.0, 7.0]


def test_columns_of_one_array_do_not_overlap():
    table = np.arange(8.0).reshape(4, 2)
    left, right = nt.Tensor(table[:, 0]), nt.Tensor(table[:, 1])

    @nt.compile
    def step():
        left.assign(left + right)
        return right * 1.0

    assert step().tolist() == [1.0, 3.0, 5.0, 7.0]
    assert left.tolist() == [1.0, 5.0, 9.0, 13.0]


def test_view_taken_inside_the_function():
    state = nt.tensor([1.0, 2.0, 3.0, 4.0])

    @nt.compile
    def step():
        tail = nt.flip(state) * 1.0
        state.assign(state + tail)
        return tail * 1.0

    assert step().tolist() == [4.0, 3.0, 2.0, 1.0]
    assert state.tolist() == [5.0, 5.0, 5.0, 5.0]


def test_tied_parameters_are_one_tensor():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @nt.compile
    def step(x):
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    before = first.weight.numpy().copy()
    step(np.ones((1, 2), np.float32))
    assert not np.array_equal(first.weight.numpy(), before)


# ---- arguments that share memory ----------------------------------------------------------


def advance(state, other):
    state.assign(state + 1.0)
    return other * 2.0


@pytest.mark.parametrize("look", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("turned", [False, True])
def test_argument_that_is_updated_and_a_view_of_it(look, turned):
    function = (lambda a, b: advance(b, a)) if turned else advance
    compiled, state = nt.compile(function), nt.tensor([[1.0, 2.0], [3.0, 4.0]])
    views = (look(state), state) if turned else (state, look(state))
    names = r"updates b .*memory with a " if turned else r"updates state .*memory with other "
    with pytest.raises(nt.TraceError, match=names):
        compiled(*views)
    assert state.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    apart = (v.numpy().copy() if isinstance(v, nt.Tensor) else v.copy() for v in views)
    compiled(*map(nt.Tensor, apart))  # the same tape
    with pytest.raises(nt.TraceError, match=names):
        compiled(*views)


def test_one_array_given_twice_and_updated():
    array = np.ones(2)
    with pytest.raises(nt.TraceError, match=r"state \(f64\[2\]\), which shares .* other"):
        nt.compile(advance)(array, array)


def test_argument_that_shares_memory_with_a_captured_tensor():
    state, constant = nt.tensor([1.0, 2.0]), nt.tensor([3.0, 4.0])

    @nt.compile
    def step(x):
        state.assign(state + x)
        return x * constant

    step(constant.numpy())
    for view in (state.numpy(), nt.flip(state)):
        with pytest.raises(nt.TraceError, match=r"updates captured0 .* memory with x"):
            step(view)
    assert state.tolist() == [4.0, 6.0]

    @nt.compile
    def fill(x):
        x.assign(constant * 2.0)

    with pytest.raises(nt.TraceError, match=r"updates x .* memory with captured0"):
        fill(constant.numpy())
    assert constant.tolist() == [3.0, 4.0]


def test_halves_of_one_array_do_not_overlap():
    table = np.arange(8.0)
    first, second = nt.Tensor(table[:4]), nt.Tensor(table[4:])
    assert nt.compile(advance)(first, second).tolist() == [8.0, 10.0, 12.0, 14.0]
    assert table.tolist() == [1.0, 2.0, 3.0, 4.0, 4.0, 5.0, 6.0, 7.0]


def test_arguments_that_share_memory_which_nobody_updates():
    state = nt.tensor([1.0, 2.0])
    assert nt.compile(lambda a, b: a + b)(state, nt.flip(state)).tolist() == [3.0, 3.0]


# ---- one tensor that comes in twice -------------------------------------------------------


def sum_of_both(p, q):
    (p * 2 + q * 3).sum().backward()
    return p * 0


def test_gradient_of_one_tensor_given_twice():
    both, weight = nt.compile(sum_of_both), parameter(1.0, 1.0)
    both(weight, weight)
    assert weight.grad.tolist() == [5.0, 5.0]
    both(weight, weight)
    assert weight.grad.tolist() == [10.0, 10.0]


def test_result_of_one_tensor_given_twice():
    weight = parameter(1.0, 2.0)
    nt.compile(lambda p, q: (p * q * q).sum())(weight, weight).backward()
    assert weight.grad.tolist() == [3.0, 12.0]


def test_update_of_one_tensor_given_twice():
    def step(p, *, others):
        p.assign(p + 1)
        return others[0] * 1

    state = nt.tensor([1.0, 1.0])
    assert nt.compile(step)(state, others=[state]).tolist() == [2.0, 2.0]
    assert state.tolist() == [2.0, 2.0]


def test_one_tensor_twice_and_two_tensors_have_tapes_of_their_own():
    both = nt.compile(sum_of_both)
    first, second = parameter(1.0), parameter(1.0)
    both(first, second)
    assert (first.grad.tolist(), second.grad.tolist()) == ([2.0], [3.0])
    first.grad = second.grad = None
    both(second, second)
    assert second.grad.tolist() == [5.0]
    first.grad = second.grad = None
    both(second, first)
    assert (first.grad.tolist(), second.grad.tolist()) == ([3.0], [2.0])
    assert len(both.tapes) == 2
    assert "argument q is argument p" in both.explain()


WEIGHT = parameter(1.0, 1.0)


def uses(p):
    (p * 2 + WEIGHT * 3).sum().backward()
    return p * 0


def assigns(p):
    WEIGHT.assign(WEIGHT * 1)
    return p * 1


def reads_gradient(p):
    (p * 2).sum().backward()
    return WEIGHT.grad


def clears_gradient(p):
    WEIGHT.grad = None
    return p * 1


@pytest.mark.parametrize("function", [uses, assigns, reads_gradient, clears_gradient])
def test_tensor_that_is_argument_and_captured(function):
    try:
        step, other = nt.compile(function), parameter(1.0, 1.0)
        with pytest.raises(nt.TraceError, match=r"p \(f64\[2\]\) is also used from"):
            step(WEIGHT)
        if function is not reads_gradient:
            step(other)
            with pytest.raises(nt.TraceError, match=r"p \(f64\[2\]\) is also used from"):
                step(WEIGHT)
    finally:
        WEIGHT.grad = None
