"""Graphs: how they are built, written, checked, and what a verifier says of a broken one."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import run_graph

import numtape as nt
from numtape import nn
from numtape.ir.graph import Builder, Value, ancestors, users
from numtape.ir.interpreter import active
from numtape.ir.location import Origin
from numtape.ir.ops.elementwise import exp, mul
from numtape.ir.ops.linalg import matmul_op
from numtape.ir.types import Type, common_dtype, dtype_name, normalise_axes
from numtape.ir.verify import VerifyError, verify

F32 = np.dtype(np.float32)


def build(function, *types, **options):
    """The graph of a function on graph values."""
    builder = Builder(**options)
    inputs = [builder.input(t, f"x{i}") for i, t in enumerate(types)]
    with active(builder):
        outputs = function(*inputs)
    return builder.finish("test", outputs if isinstance(outputs, tuple) else (outputs,))


def vector(n=3, dtype=F32):
    return Type(dtype, (n,))


def without_notes(graph):
    return "\n".join(line.split("   #")[0] for line in str(graph).splitlines())


# ---- building -----------------------------------------------------------------------------


def test_equal_computations_are_one_value_where_numbered():
    function = lambda x: exp(x) * exp(x) + exp(x)
    assert build(function, vector()).operations == 5
    assert build(function, vector(), number=True).operations == 3


def test_attributes_and_dtypes_tell_values_apart():
    function = lambda x: (x.sum(0), x.sum(1), x.astype(np.float64), x.astype(np.int64))
    graph = build(function, Type(F32, (2, 2)), number=True)
    assert len(set(graph.outputs)) == 4


def test_constants_are_shared_but_not_across_dtypes_and_signs():
    builder = Builder()
    one = builder.constant(1, F32)
    assert builder.constant(1, F32) is one
    assert builder.constant(1.0, F32) is not one
    assert builder.constant(1, np.dtype(np.int64)) is not one
    assert builder.constant(0.0, F32) is not builder.constant(-0.0, F32)


def test_simplify_may_answer_for_a_node():
    graph = build(lambda x: x * 1.0, vector(), simplify=lambda op, inputs, attrs: inputs[0])
    assert graph.nodes[-1].is_constant
    assert graph.outputs == graph.inputs


def test_users_and_ancestors():
    graph = build(lambda x, y: (x + y) * x, vector(), vector())
    x, y = graph.inputs
    total, product = graph.nodes
    assert users(graph) == {x: [total, product], y: [total], total: [product], product: []}
    assert ancestors([total]) == {x, y, total}


def test_a_graph_value_is_no_number_and_no_array():
    graph = build(lambda x: x + 1.0, vector())
    with pytest.raises(TypeError, match="truth"):
        bool(graph.outputs[0])
    with pytest.raises(TypeError, match="graph"):
        nt.Tensor(graph.outputs[0])


# ---- text ---------------------------------------------------------------------------------


def test_text():
    graph = build(lambda x, w: ((x @ w) * 2.0).sum(1), Type(F32, (8, 4)), Type(F32, (4, 3)))
    assert without_notes(graph) == (
        "graph test\n"
        "  %0: f32[8,4] = input 'x0'\n"
        "  %1: f32[4,3] = input 'x1'\n"
        "  %2: f32[8,3] = matmul(%0, %1)\n"
        "  %3: f32[8,3] = mul(%2, 2.0)\n"
        "  %4: f32[8] = sum(%3, axis=(1,))\n"
        "  return %4"
    )


def test_text_of_updates():
    count = nt.tensor([1.0])
    graph = (
        nt.compile(lambda x: count.assign(count + x)).tape(np.ones(1, np.float32)).graph("traced")
    )
    assert str(graph).splitlines()[-1].strip().startswith("update %1 <- %2")


class Tiny(nn.Module):
    def __init__(self):
        self.layers = nn.ModuleList([nn.Linear(4, 3)])

    def forward(self, x):
        return self.layers[0](x)


def test_notes_name_the_line_the_module_and_the_reverse_part():
    model = Tiny()

    def step(x):
        loss = model(x).sum()  # the line
        loss.backward()
        return loss, model.layers[0].weight.grad

    line = step.__code__.co_firstlineno + 1
    text = str(nt.compile(step).tape(np.ones((8, 4), np.float32)).graph("traced"))
    (product,) = [s for s in text.splitlines() if "matmul" in s and "grad" not in s]
    assert ": f32[8,3] = matmul(%0, " in product
    assert product.endswith("layers.0")
    (total,) = [s for s in text.splitlines() if " sum(" in s and "grad" not in s]
    assert total.endswith(f"# test_graph.py:{line}")
    reverse = [s for s in text.splitlines() if s.endswith("layers.0 grad")]
    assert any("matmul" in s for s in reverse)


def test_operators_carry_the_users_line():
    values = nt.trace(lambda x: nt.minimum(nt.mean(x), 1.0), np.ones(3)).graph.nodes
    files = {v.origin.file for v in values if not v.is_constant}
    assert files == {__file__}


# ---- the verifier -------------------------------------------------------------------------


def product_graph():
    return build(lambda x, w: exp(x @ w), Type(F32, (8, 4)), Type(F32, (4, 3)))


def test_sound_graphs_pass():
    graph = product_graph()
    assert verify(graph) is graph


def test_wrong_type():
    graph = product_graph()
    product, result = graph.nodes
    wrong = Value(matmul_op, product.inputs, {}, Type(F32, (8, 9)), Origin("mlp.py", 14))
    broken = replace(graph, nodes=(wrong, result))
    with pytest.raises(
        VerifyError, match=r"its type is f32\[8,9\], its inputs give f32\[8,3\]"
    ) as e:
        verify(broken)
    assert "> %2: f32[8,9] = matmul(%0, %1)   # mlp.py:14" in str(e.value)


def test_use_before_definition():
    graph = product_graph()
    with pytest.raises(VerifyError, match="not defined before it") as error:
        verify(replace(graph, nodes=graph.nodes[::-1]))
    assert "exp" in str(error.value)


def test_value_from_another_graph():
    graph, other = product_graph(), product_graph()
    with pytest.raises(VerifyError, match="not defined"):
        verify(replace(graph, nodes=(graph.nodes[0], other.nodes[1])))
    with pytest.raises(VerifyError, match="not a node of the graph"):
        verify(replace(graph, outputs=other.outputs))


def test_bad_updates():
    graph = build(lambda x: exp(x.sum(0)), Type(F32, (2, 3)))
    (x,), out = graph.inputs, graph.outputs[0]
    with pytest.raises(VerifyError, match=r"f32\[3\].* cannot update <f32\[2,3\]"):
        verify(replace(graph, updates=((x, out),)))
    with pytest.raises(VerifyError, match="cannot update"):
        verify(replace(graph, updates=((out, out),)))


def test_shapes_that_do_not_fit():
    x, y = (Builder().input(vector(n), "x") for n in (3, 4))
    node = Value(mul, (x, y), {}, vector(), Origin())
    graph = replace(build(lambda a, b: a, vector(), vector()), inputs=(x, y), nodes=(node,))
    with pytest.raises(VerifyError, match="do not broadcast"):
        verify(replace(graph, outputs=(node,)))


def test_error_shows_the_surroundings():
    def chain(x):
        for _ in range(20):
            x = x + 1.0
        return x

    graph = build(chain, vector())
    nodes = list(graph.nodes)
    old = nodes[12]
    nodes[12] = Value(old.op, old.inputs, {}, vector(4), Origin())
    with pytest.raises(VerifyError) as error:
        verify(replace(graph, nodes=tuple(nodes)))
    shown = str(error.value).splitlines()[1:]
    assert len(shown) == 11
    assert [s.startswith(">") for s in shown].index(True) == 5


# ---- the reference interpreter of these tests ---------------------------------------------


def test_reference_interpreter_gives_what_eager_mode_gives():
    x = np.linspace(-1, 1, 6).reshape(2, 3)
    function = lambda t: nn.functional.softmax(t.T @ t) + nt.tril(t.T @ t)
    graph = nt.trace(function, x).graph
    assert np.array_equal(run_graph(graph, [x])[0], function(nt.Tensor(x)).numpy())


# ---- types --------------------------------------------------------------------------------


def test_types_are_shown_short():
    assert str(Type(F32, (8, 4))) == "f32[8,4]"
    assert str(Type(np.dtype(bool), ())) == "bool[]"
    assert [dtype_name(np.dtype(d)) for d in ("i4", "u8", "f8")] == ["i32", "u64", "f64"]


def test_axes():
    assert normalise_axes(None, 3) == (0, 1, 2)
    assert normalise_axes((-1, 0), 3) == (0, 2)
    assert normalise_axes(np.int64(1), 3) == (1,)
    for axes in (3, -4, (0, 0), (0, -3)):
        with pytest.raises(ValueError, match="axis"):
            normalise_axes(axes, 3)


def test_weak_scalars_only_lift_the_kind():
    i32, f64 = np.dtype("i4"), np.dtype("f8")
    assert common_dtype([i32], [np.dtype("i8")]) == i32
    assert common_dtype([i32], [f64]) == F32
    assert common_dtype([F32], [f64]) == F32
    assert common_dtype([i32, F32], []) == F32
