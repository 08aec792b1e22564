"""Calls of compiled functions one after another: what each leaves for the next.

A compiled function either does what the eager one does, or raises an error that names the line.
"""

import gc
from functools import partial

import numpy as np
import pytest
from helpers import parameter, training_step

import numtape as nt
from numtape import optim

ONES = np.ones(3)


def last_line(function):
    """How an error names it."""
    return f"{__file__}:{max(line for *_, line in function.__code__.co_lines() if line)}"


# ---- calls one after another --------------------------------------------------------------


def test_outputs_fed_back():
    step = nt.compile(lambda y: y * 2 + 1)
    y = nt.Tensor(np.zeros(3))
    for _ in range(5):
        y = step(y)
    assert y.tolist() == [31.0, 31.0, 31.0]


def test_two_forwards_before_a_backward():
    weight = parameter(1.0, 2.0, 3.0)
    loss = nt.compile(lambda x: (x * weight * weight).sum())
    first, second = loss(ONES), loss(2 * ONES)
    first.backward()
    assert weight.grad.tolist() == [2.0, 4.0, 6.0]
    second.backward()
    assert weight.grad.tolist() == [6.0, 12.0, 18.0]


def test_gradients_accumulate_over_compiled_calls():
    weight = parameter(1.0, 2.0, 3.0)
    loss = nt.compile(lambda x: (x * weight).sum())
    (loss(ONES) + loss(2 * ONES)).backward()
    loss(4 * ONES).backward()
    assert weight.grad.tolist() == [7.0, 7.0, 7.0]


def test_gradients_accumulate_inside_a_compiled_function():
    weight = parameter(1.0, 2.0, 3.0)

    @nt.compile
    def accumulate(x):
        (x * weight).sum().backward()

    seen = []
    for factor in (1.0, 2.0, 4.0, 8.0):
        accumulate(factor * ONES)
        seen.append(weight.grad.tolist()[0])
    assert seen == [1.0, 3.0, 7.0, 15.0]
    weight.grad = None
    accumulate(ONES)
    assert weight.grad.tolist() == [1.0, 1.0, 1.0]
    assert len(accumulate.misses) <= 3  # with and without a gradient before


def test_gradient_of_an_argument_accumulates():
    def accumulate(x):
        (x * x).sum().backward()

    for run in (accumulate, nt.compile(accumulate)):
        x = parameter(1.0, 2.0, 3.0)
        run(x)
        run(x)
        assert x.grad.tolist() == [4.0, 8.0, 12.0]


def test_compiled_step_reads_the_gradient_of_each_call():
    weight = parameter(0.0, 0.0, 0.0)
    optimizer = optim.SGD([weight], lr=1.0)
    step = nt.compile(lambda: optimizer.step())
    for factor in (1.0, 2.0, 4.0):
        optimizer.zero_grad()
        (weight * factor).sum().backward()
        step()
    assert weight.tolist() == [-7.0, -7.0, -7.0]
    assert len(step.misses) == 1


def test_gradient_that_a_compiled_step_used_up():
    weight = parameter(1.0, 2.0, 3.0)
    optimizer = optim.SGD([weight], lr=0.1)
    nt.compile(training_step(weight, optimizer, clear=True))(ONES)
    with pytest.raises(RuntimeError, match="used up inside a compiled step"):
        _ = weight.grad
    optimizer.zero_grad()
    assert weight.grad is None


def test_accumulating_onto_a_used_up_gradient():
    weight = parameter(1.0, 2.0, 3.0)
    optimizer = optim.SGD([weight], lr=0.1)
    step = nt.compile(training_step(weight, optimizer, clear=False))
    step(ONES)
    with pytest.raises(RuntimeError, match="zero_grad"):
        step(ONES)


def test_step_without_zero_grad_adds_to_the_gradient_there_is():
    ends = []
    for run in (lambda f: f, nt.compile):
        weight = parameter(1.0, 2.0, 3.0)
        weight.grad = nt.Tensor(10 * ONES)
        run(training_step(weight, optim.SGD([weight], lr=0.1), clear=False))(ONES)
        ends.append(weight.tolist())
    assert ends[0] == ends[1]


# ---- changes in place ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [np.array, nt.tensor])
def test_argument_is_updated(make):
    def advance(x):
        x.assign(x + 1)
        return x * 2

    x = make([1.0, 2.0])
    compiled = nt.compile(advance)
    assert compiled(x).tolist() == [4.0, 6.0]
    assert compiled(x).tolist() == [6.0, 8.0]
    assert x.tolist() == [3.0, 4.0]


def test_update_of_an_argument_is_seen_by_backward():
    x, weight = nt.tensor([1.0, 2.0]), nt.tensor([3.0, 4.0], requires_grad=True)
    loss = (x * weight).sum()
    nt.compile(lambda x: x.assign(x * 0))(x)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_old_value_of_an_updated_tensor_is_returned():
    count = nt.tensor([0.0, 10.0])

    def advance():
        old = count * 1.0
        count.assign(count + 1)
        return old, count

    compiled = nt.compile(advance)
    for i in range(3):
        old, new = compiled()
        assert old.tolist() == [i, 10.0 + i]
        assert new.tolist() == [i + 1, 11.0 + i]


@pytest.mark.parametrize("exact", [False, True])
def test_old_value_is_read_by_the_reverse_tape(exact):
    weight, scale = parameter(1.0, 1.0, 1.0), nt.Tensor(2 * ONES)

    def loss(x):
        old = (scale * 1.0).reshape(3, 1)
        scale.assign(scale * 10)
        return (x * weight * old[:, 0]).sum()

    nt.compile(loss, exact=exact)(ONES).backward()
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("compiled", [False, True])
def test_captured_tensor_changes_between_forward_and_backward(compiled):
    """An error where backward() reads it again; the gradient of before where it does not."""
    weight, scale = parameter(1.0, 1.0, 1.0), nt.Tensor(2 * ONES)
    function = lambda x: (x * weight * scale).sum()
    loss = nt.compile(function) if compiled else function
    value = loss(nt.Tensor(ONES))
    weight.assign(5 * ONES)
    value.backward()
    assert weight.grad.tolist() == [2.0] * 3
    value = loss(nt.Tensor(ONES))
    scale.assign(5 * ONES)
    with pytest.raises(RuntimeError, match="changed in place"):
        value.backward()


def test_tensors_that_swap():
    a, b = nt.tensor([1.0, 2.0]), nt.tensor([3.0, 4.0])

    def swap():
        old = a * 1.0
        a.assign(b)
        b.assign(old)

    nt.compile(swap)()
    assert (a.tolist(), b.tolist()) == ([3.0, 4.0], [1.0, 2.0])


@pytest.mark.parametrize(
    "view", [lambda w: w.T, lambda w: w[::-1, ::-1], lambda w: w.reshape(2, 2)]
)
def test_tensor_assigned_from_a_view_of_itself(view):
    weight = nt.tensor([[1.0, 2.0], [3.0, 4.0]])
    expected = view(weight).numpy().copy()
    nt.compile(lambda: weight.assign(view(weight)))()
    assert np.array_equal(weight.numpy(), expected)


def test_view_of_a_tensor_that_was_assigned():
    """Eager, the view sees the new value; a graph cannot, and says so."""
    weight = nt.tensor([1.0, 2.0])

    def stale():
        view = weight.reshape(2, 1)
        weight.assign(weight + 1)
        return view * 2

    assert stale().tolist() == [[4.0], [6.0]]
    with pytest.raises(nt.TraceError, match=last_line(stale)):
        nt.compile(stale)()


def test_assigning_to_a_result():
    with pytest.raises(nt.TraceError, match="name"):
        nt.compile(lambda x: (x * 2).assign(x))(ONES)


# ---- compile in compile -------------------------------------------------------------------


def test_compiled_function_inside_another_is_part_of_it():
    inner = nt.compile(lambda x: x * 2)
    outer = nt.compile(lambda x: inner(x) + 1)
    assert outer(ONES).tolist() == [3.0, 3.0, 3.0]
    assert len(inner.tapes) == 0
    assert inner(ONES).tolist() == [2.0, 2.0, 2.0]


def test_what_an_inner_compiled_function_closes_over_is_watched():
    factor = 2.0
    inner = nt.compile(lambda x: x * factor)
    outer = nt.compile(lambda x: inner(x) + 1)
    outer(ONES)
    factor = 3.0
    assert outer(ONES).tolist() == [4.0, 4.0, 4.0]


def test_compiling_while_tracing():
    def outer(x):
        return nt.compile(lambda y: y * x)(x + 1)

    assert nt.compile(outer)(2 * ONES).tolist() == [6.0, 6.0, 6.0]


def test_gradients_of_compiled_and_compiled_gradients():
    cube = lambda x: (x * x * x).sum()
    x = np.array([1.0, 2.0])
    for function in (nt.compile(nt.grad(cube)), nt.grad(nt.compile(cube))):
        assert function(x).tolist() == [3.0, 12.0]
    assert nt.compile(nt.grad(lambda x: nt.grad(cube)(x).sum()))(x).tolist() == [6.0, 12.0]


def test_gradient_of_a_compiled_call_is_not_differentiated_again():
    cube = nt.compile(lambda x: (x * x * x).sum())
    with pytest.raises(RuntimeError, match=r"compile\(grad\(f\)\)"):
        nt.grad(lambda x: nt.grad(cube)(x).sum())(np.array([1.0, 2.0]))


# ---- backward through one call, again and in part -----------------------------------------


def squares_and_cube(p, q):
    return (nt.exp(p) * p).sum(), (q * q * q).sum(), (p * q).astype(np.float32)


def left(*tensors):
    return [None if t.grad is None else t.grad.tolist() for t in tensors]


@pytest.mark.parametrize("chosen", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("captured", [False, True])
def test_outputs_leave_gradients_where_eager_mode_does(chosen, captured):
    found = []
    for run in (lambda f: f, lambda f: nt.compile(f, exact=True)):
        p, q = parameter(1.0, 2.0), parameter(3.0, 4.0)
        held = partial(squares_and_cube, p, q)
        outputs = run(lambda h=held: h())() if captured else run(squares_and_cube)(p, q)
        assert [t.dtype for t in outputs] == [np.float64, np.float64, np.float32]
        sum(outputs[i].sum() for i in chosen).backward()
        found.append(left(p, q))
    assert found[0] == found[1]


def test_output_that_depends_by_the_sign_alone():
    found = []
    for run in (lambda f: f, nt.compile):
        p, q = parameter(1.0, -2.0), parameter(3.0, 4.0)
        first, second = run(lambda p, q: (nt.sign(p) * q, p * q))(p, q)
        first.sum().backward(retain_graph=True)
        found.append(left(p, q))
        second.sum().backward()
        found.append(left(p, q))
    assert found[:2] == found[2:]
    assert found[0][0] is None


@pytest.mark.parametrize("exact", [False, True])
def test_backward_again_with_retain_graph(exact):
    found = []
    for run in (lambda f: f, lambda f: nt.compile(f, exact=exact)):
        p, q = parameter(1.0, 2.0), parameter(3.0, 4.0)
        outputs = run(lambda p, q: (nt.exp(p * q / 8).tanh().sum(), (q.exp() * p).sum()))(p, q)
        weight = nt.tensor(1.0, np.float64)
        for output in (*outputs, *outputs):
            output.backward(weight, retain_graph=True)
            found.append(left(p, q))
            weight.assign(weight * 2)
        outputs[0].backward()
        found.append(left(p, q))
    np.testing.assert_allclose(found[:5], found[5:], rtol=1e-14)


def test_memory_of_a_retained_call():
    p = parameter(1.0, 2.0)
    loss = nt.compile(lambda x: (nt.exp(p) * x).sum())
    kept = loss(ONES[:2])
    kept.backward(retain_graph=True)
    blocks = loss.tapes[0]._tape
    assert blocks.arenas == 0
    loss(2 * ONES[:2]).backward()
    kept.backward()
    assert p.grad.tolist() == pytest.approx([4 * np.exp(1.0), 4 * np.exp(2.0)])
    gc.collect()
    assert blocks.arenas == 2
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        kept.backward()


def test_in_place_change_after_a_retained_backward():
    p = parameter(1.0, 2.0)
    loss = nt.compile(lambda: (p * p).sum())()
    loss.backward(retain_graph=True)
    p.assign(p * 2)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()
