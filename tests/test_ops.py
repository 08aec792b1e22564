"""Every operation of the registry, checked from its own examples: a new op is tested unasked."""

import numpy as np
import pytest
from helpers import differences, is_float, layouts

import numtape as nt
from numtape.ir.op import REGISTRY, Op
from numtape.ir.types import DtypeError, ShapeError, Type
from numtape.tracer.recorder import evaluate

# What stands in graphs and records but computes nothing.
MARKS = {"input", "constant", "released"}
# Floats go in, but no gradient comes out: the result is discrete, random or cut off on purpose.
NO_GRADIENT = {
    *("eq", "ne", "lt", "le", "gt", "ge", "isfinite", "isinf", "isnan", "argmax", "argmin"),
    *("logical_and", "logical_or", "logical_xor", "logical_not", "floor_divide"),
    *("arange", "linspace", "filled", "wrap_index", "uniform", "advance"),
    *("detach", "adam_scalars"),
}
# Ops whose attributes hold shapes or bounds, checked by whoever made them.
SHAPED = {"slice", "place", "reshape", "broadcast_to", "uniform", "filled"}

OPS = {name: op for name, op in REGISTRY.items() if name not in MARKS}
EXAMPLES = [
    pytest.param(op, example, id=f"{name}{i}")
    for name, op in OPS.items()
    for i, example in enumerate(op.examples)
]
each_example = pytest.mark.parametrize("op, example", EXAMPLES)


def arrays_of(example, dtype=np.float64):
    drawn = example.inputs(np.random.default_rng(7))
    return [a.astype(dtype) if is_float(a) else a for a in drawn]


def tensors(arrays):
    return [nt.Tensor(a, requires_grad=is_float(a)) for a in arrays]


def floats(arrays):
    return [i for i, a in enumerate(arrays) if is_float(a)]


def apply(op, example, arrays):
    return op(*(nt.Tensor(a) for a in arrays), **example.attrs)


def result_type(op, example, arrays):
    return op.type_of([Type(a.dtype, a.shape) for a in arrays], example.attrs)


def weights_for(op, example, arrays):
    shape = result_type(op, example, arrays).shape
    return np.random.default_rng(8).uniform(0.5, 1.5, shape)


def weighted(op, example, arrays):
    """The op as a scalar function: its result times fixed weights, summed."""
    weights = weights_for(op, example, arrays)
    return lambda *xs: (op(*xs, **example.attrs) * nt.Tensor(weights)).sum()


def differentiable_examples():
    for case in EXAMPLES:
        op, example = case.values
        arrays = arrays_of(example)
        if floats(arrays) and op.name not in NO_GRADIENT:
            yield case


each_differentiable = pytest.mark.parametrize("op, example", list(differentiable_examples()))


# ---- the registry itself ------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_op_is_complete(op: Op):
    assert op.examples, "an op brings an example"
    meanings = [op.kernel is not None or op.view is not None, op.expand is not None]
    assert sum(meanings) == 1, "an op has a kernel or view, or an expansion"
    differentiable = op.differentiable or op.expand is not None
    assert differentiable or op.name in NO_GRADIENT


@each_differentiable
def test_ops_in_gradient_rules_have_rules(op, example):
    arrays = arrays_of(example)
    traced = nt.trace(lambda *xs: op(*xs, **example.attrs), *tensors(arrays))
    if traced.joint is None:  # a rule that gives None, as the sign's
        return
    used = {v.op for v in traced.joint.graph.nodes if v.origin.reverse}
    without = {o.name for o in used if not o.differentiable and o.expand is None}
    assert without <= NO_GRADIENT | MARKS


# ---- values -------------------------------------------------------------------------------


@each_example
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 3e-6)])
def test_value(op, example, dtype, tolerance):
    arrays = arrays_of(example, dtype)
    found = apply(op, example, arrays)
    wide = [a.astype(np.float64) if is_float(a) else a for a in arrays]
    expected = np.asarray(example.reference(*wide, **example.attrs))
    assert found.shape == expected.shape
    assert found.type[:2] == result_type(op, example, arrays)[:2]
    assert found.numpy().dtype == found.dtype
    np.testing.assert_allclose(found.numpy(), expected, rtol=tolerance, atol=tolerance)


@each_example
def test_integers_mean_what_their_floats_mean(op, example):
    drawn = arrays_of(example)
    if not floats(drawn) or op.name in ("isfinite", "isinf", "isnan"):
        return
    arrays = [(np.abs(a) * 2).astype(np.int64) + 1 if is_float(a) else a for a in drawn]
    try:
        found = apply(op, example, arrays).numpy()
    except DtypeError:
        return
    np.testing.assert_allclose(found, example.reference(*arrays, **example.attrs), rtol=3e-6)
    if op.promotes == "all":
        assert found.dtype.kind in "ib"


@each_example
def test_strides_do_not_matter(op, example):
    arrays = arrays_of(example)
    for i, original in enumerate(arrays):
        if not original.ndim:
            continue
        for name, strided in layouts(original):
            inputs = [*arrays[:i], strided, *arrays[i + 1 :]]
            plain = [np.ascontiguousarray(a) for a in inputs]
            found = apply(op, example, inputs).numpy()
            expected = apply(op, example, plain).numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13, err_msg=name)


@each_example
@pytest.mark.parametrize("axis", [0, -1])
def test_no_entries(op, example, axis):
    arrays = [a.take([], axis) if a.ndim else a for a in arrays_of(example)]
    if op.name in SHAPED or not arrays:
        return
    try:
        found = apply(op, example, arrays)
    except (ShapeError, DtypeError):
        return
    assert found.shape == result_type(op, example, arrays).shape
    if found.size:
        assert np.isfinite(found.numpy()).all()
    compiled = nt.compile(lambda *xs: op(*xs, **example.attrs))(*arrays)
    assert np.array_equal(compiled.numpy(), found.numpy())
    xs = tensors(arrays)
    out = op(*xs, **example.attrs)
    if out.requires_grad:
        out.sum().backward()
        assert all(x.grad is None or x.grad.shape == x.shape for x in xs)


# ---- memory -------------------------------------------------------------------------------


def in_place_cases():
    for case in EXAMPLES:
        for position in case.values[0].inplace:
            yield pytest.param(*case.values, position, id=f"{case.id}-{position}")


@pytest.mark.parametrize("op, example, position", list(in_place_cases()))
def test_result_may_take_the_memory_of_an_input(op, example, position):
    arrays = arrays_of(example)
    result = result_type(op, example, arrays)
    if arrays[position].shape != result.shape:
        arrays[position] = np.broadcast_to(arrays[position], result.shape).copy()
    types = [Type(a.dtype, a.shape) for a in arrays]
    expected = evaluate(op, arrays, types, example.attrs)[0]
    assert arrays[position].dtype == expected.dtype
    given = [a.copy() for a in arrays]
    op.kernel(*given, out=given[position], **example.attrs)
    assert np.array_equal(given[position], expected)
    others = [i for i in range(len(given)) if i != position]
    assert all(np.array_equal(given[i], arrays[i]) for i in others)


@each_example
def test_result_may_take_the_memory_of_all_inputs(op, example):
    """Which the planner allows of ops that go entry by entry."""
    if not (op.broadcasts and len(op.inplace) > 1):
        return
    x = arrays_of(example)[0]
    types = [Type(x.dtype, x.shape)] * 2
    expected = evaluate(op, (x, x), types, example.attrs)[0]
    op.kernel(x, x, out=x, **example.attrs)
    assert np.array_equal(x, expected)


@each_example
def test_inputs_stay_as_they_are(op, example):
    arrays = arrays_of(example)
    before = [a.copy() for a in arrays]
    nt.compile(lambda *xs: op(*xs, **example.attrs))(*arrays)
    apply(op, example, arrays)
    for array, old in zip(arrays, before, strict=True):
        assert np.array_equal(array, old, equal_nan=is_float(array))


# ---- gradients ----------------------------------------------------------------------------


def gradients(function, arrays):
    """The gradients of a scalar function for its float inputs."""
    return nt.grad(function, floats(arrays))(*(nt.Tensor(a) for a in arrays))


@each_differentiable
def test_first_gradient(op, example):
    arrays = arrays_of(example)
    function = weighted(op, example, arrays)
    found = gradients(function, arrays)
    value = lambda *moved: function(*moved).item()
    for i, g in zip(floats(arrays), found, strict=True):
        expected = differences(value, arrays, i)
        np.testing.assert_allclose(g.numpy(), expected, rtol=1e-6, atol=1e-8)


@each_differentiable
def test_strides_do_not_matter_for_gradients(op, example):
    arrays = arrays_of(example)
    for i, original in enumerate(arrays):
        for _, strided in layouts(original) if original.ndim else ():
            inputs = [*arrays[:i], strided, *arrays[i + 1 :]]
            plain = [np.ascontiguousarray(a) for a in inputs]
            function = weighted(op, example, inputs)
            pairs = zip(gradients(function, inputs), gradients(function, plain), strict=True)
            for found, expected in pairs:
                near = {"rtol": 1e-13, "atol": 1e-13}
                np.testing.assert_allclose(found.numpy(), expected.numpy(), **near)


@each_differentiable
def test_backward_gives_the_gradient(op, example):
    arrays = arrays_of(example)
    function = weighted(op, example, arrays)
    xs = tensors(arrays)
    loss = function(*xs)
    if loss.requires_grad:
        loss.backward()
    for i, g in zip(floats(arrays), gradients(function, arrays), strict=True):
        left = np.zeros_like(arrays[i]) if xs[i].grad is None else xs[i].grad.numpy()
        assert np.array_equal(left, g.numpy())


@each_differentiable
def test_second_gradient(op, example):
    arrays = arrays_of(example)
    function = weighted(op, example, arrays)
    places = floats(arrays)
    rng = np.random.default_rng(9)
    weights = [nt.Tensor(rng.uniform(0.5, 1.5, arrays[i].shape)) for i in places]

    def slope(*xs):
        found = nt.grad(function, places)(*xs)
        return sum((g * w).sum() for g, w in zip(found, weights, strict=True))

    second = gradients(slope, arrays)
    moves = [rng.uniform(-1.0, 1.0, arrays[i].shape) for i in places]

    def along(distance):
        moved = list(arrays)
        for i, move in zip(places, moves, strict=True):
            moved[i] = arrays[i] + distance * move
        return slope(*(nt.Tensor(a) for a in moved)).item()

    expected = (along(1e-5) - along(-1e-5)) / 2e-5
    found = sum((g.numpy() * m).sum() for g, m in zip(second, moves, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("op, example", [p for p in EXAMPLES if p.values[0].entrywise])
def test_entrywise_ops_repeat_their_inputs_themselves(op, example):
    arrays = arrays_of(example)
    shape = (2, *np.broadcast_shapes(*(a.shape for a in arrays)))
    repeated = apply(op, example, [np.broadcast_to(a, shape) for a in arrays])
    expected = np.broadcast_to(apply(op, example, arrays).numpy(), shape)
    assert np.array_equal(repeated.numpy(), expected)


# ---- compiled -----------------------------------------------------------------------------


def value_and_gradients(op, example, arrays):
    """A function of tensors that gives the result and, where there are any, its gradients."""
    if op.name in NO_GRADIENT or not floats(arrays):
        return lambda *xs: (op(*xs, **example.attrs),)
    weights = nt.Tensor(weights_for(op, example, arrays).astype(arrays[floats(arrays)[0]].dtype))

    def both(*xs):
        weigh = lambda *ys: (op(*ys, **example.attrs) * weights).sum()
        return op(*xs, **example.attrs), *nt.grad(weigh, floats(arrays))(*xs)

    return both


@each_example
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_compiled_equals_eager(op, example, dtype):
    arrays = arrays_of(example, dtype)
    function = value_and_gradients(op, example, arrays)
    eager = function(*(nt.Tensor(a) for a in arrays))
    exact = nt.compile(function, exact=True)(*arrays)
    free = nt.compile(function)(*arrays)
    tolerance = 1e-5 if dtype == np.float32 else 1e-11
    for expected, same, near in zip(eager, exact, free, strict=True):
        assert same.type == near.type == expected.type
        assert np.array_equal(same.numpy(), expected.numpy())
        np.testing.assert_allclose(near.numpy(), expected.numpy(), rtol=tolerance, atol=tolerance)


@each_differentiable
def test_reverse_tape_equals_eager(op, example):
    arrays = arrays_of(example)
    function = lambda *xs: op(*xs, **example.attrs)
    if not function(*tensors(arrays)).requires_grad:  # a rule that gives None, as the sign's
        return
    weights = weights_for(op, example, arrays)
    eager, compiled = tensors(arrays), tensors(arrays)
    function(*eager).backward(weights)
    nt.compile(function, exact=True)(*compiled).backward(weights)
    for x, y in zip(eager, compiled, strict=True):
        assert (x.grad is None) == (y.grad is None)
        assert x.grad is None or np.array_equal(x.grad.numpy(), y.grad.numpy())


@each_example
def test_compiled_reads_strided_arrays_where_they_are(op, example):
    arrays = arrays_of(example)
    for i, original in enumerate(arrays):
        for name, strided in layouts(original) if original.ndim else ():
            held = [nt.Tensor(a) for a in (*arrays[:i], strided, *arrays[i + 1 :])]
            function = lambda held=held: op(*held, **example.attrs)
            found = nt.compile(lambda f=function: f(), exact=True)()
            assert np.array_equal(found.numpy(), function().numpy()), name
