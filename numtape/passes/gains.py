"""Gains: what scales the columns of an activation scales the next weight instead. Reassociating.

With y = z ⊙ c for a gain c, and D = gᵀ z where g is the gradient of y Wᵀ:

    y Wᵀ  = z (W ⊙ c)ᵀ          gᵀ y = D ⊙ c
    (g W) ⊙ c = g (W ⊙ c)       Σ_rows (g W) ⊙ z = Σ_rows D ⊙ W

The left sides pass over all rows of y, the right ones over the rows of W. Those are often fewer.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from numtape.ir.graph import Graph, Value, users
from numtape.ir.ops.elementwise import mul
from numtape.ir.ops.linalg import matmul_op
from numtape.ir.ops.reductions import sum_op
from numtape.ir.ops.shapes import reshape_op, transpose_op
from numtape.passes.rewrite import rebuild

Readers = Mapping[Value, list[Value]]
Inputs = tuple[Value, ...]


def gains(graph: Graph) -> Graph:
    """The graph with the gains of norms in the weights behind them, where that is less work."""
    readers, results = users(graph), set(graph.results)
    rules: dict[Value, Callable[[Inputs], Value]] = {}
    for node in graph.nodes:
        scaled = _scaled(node, readers)
        if scaled is not None and scaled.pays and results.isdisjoint(scaled.replaced):
            rules |= scaled.rules
    if not rules:
        return graph

    def rule(node: Value, inputs: Inputs) -> Value | None:
        return rules[node](inputs) if node in rules else None

    return rebuild(graph, rule)


class _Scaled(NamedTuple):
    """An activation with a gain, and all that is done with it."""

    y: Value
    product: Value
    rules: dict[Value, Callable[[Inputs], Value]]
    replaced: tuple[Value, ...]  # by nothing: must not be a result

    @property
    def pays(self) -> bool:
        """As many passes over the weight take the place of those over the activation."""
        return self.y.size > self.product.inputs[1].size > 0


def _scaled(product: Value, readers: Readers) -> _Scaled | None:
    """What a product has to do with a gain, or None where that is not all that is done."""
    if product.op is not matmul_op or product.inputs[0].op is not mul:
        return None
    y, transposed = product.inputs
    if _gain_of(y) is None or transposed.op is not transpose_op or transposed.ndim != 2:
        return None
    (weight,) = transposed.inputs
    rules = {product: lambda inputs: _forward(*inputs)}
    late = [v for v in _readers(y, readers) if v is not product]
    if not late:
        return _Scaled(y, product, rules, (y,))
    back = [v for v in readers[weight] if _is_gradient(v, y, weight)]
    if len(late) != 1 or len(back) != 1 or not _is_weight_gradient(late[0], y, back[0]):
        return None
    rules[late[0]] = lambda inputs: _weight_gradient(*inputs)
    replaced = [y, back[0]]
    for v in readers[back[0]]:
        sums = readers[v]
        if v.op is not mul:
            return None
        if _gain_of(v) is _gain_of(y):
            rules[v] = lambda inputs: _scaled_gradient(*inputs)
        elif _factor(v, back[0]) is _activation(y) and len(sums) == 1 and _sums_rows(sums[0]):
            rules[sums[0]] = lambda inputs: _gain_gradient(*inputs)
            replaced.append(v)
        else:
            return None
    return _Scaled(y, product, rules, tuple(replaced))


# ---- what is what -------------------------------------------------------------------------


def _gain_of(y: Value) -> Value | None:
    """The factor of a product of two that is one number for each column of the other."""
    gain = next((v for v in y.inputs if v.shape == y.shape[-1:] and y.ndim > 1), None)
    return gain if gain is not None and _factor(y, gain).shape == y.shape else None


def _activation(y: Value) -> Value:
    gain = _gain_of(y)
    assert gain is not None
    return _factor(y, gain)


def _factor(product: Value, other: Value) -> Value:
    a, b = product.inputs
    return b if a is other else a


def _readers(value: Value, readers: Readers) -> list[Value]:
    """Who reads a value, be it transposed or in another shape."""
    found = []
    for v in readers[value]:
        found += _readers(v, readers) if v.op in (reshape_op, transpose_op) else [v]
    return found


def _flat(value: Value) -> Value:
    """What is seen in another shape, rows in the same order."""
    while value.op is reshape_op:
        (value,) = value.inputs
    return value


def _is_gradient(node: Value, y: Value, weight: Value) -> bool:
    """Whether a node may be the gradient of y in y Wᵀ: g W."""
    return node.op is matmul_op and node.inputs[1] is weight and node.shape == y.shape


def _is_weight_gradient(node: Value, y: Value, back: Value) -> bool:
    """Whether a node is yᵀ g, rows of all axes but the last taken as one."""
    if node.op is not matmul_op or node.inputs[0].op is not transpose_op:
        return False
    rows, g = node.inputs[0].inputs[0], node.inputs[1]
    whole = rows.ndim == g.ndim == 2 and rows.shape[1] == y.shape[-1]
    return whole and _flat(rows) is y and _flat(g) is _flat(back.inputs[0])


def _sums_rows(node: Value) -> bool:
    return node.op is sum_op and node.attrs["axis"] == tuple(range(node.inputs[0].ndim - 1))


# ---- what stands in its place -------------------------------------------------------------


def _rows(x: Value) -> Value:
    """All axes but the last as one."""
    return x.reshape((x.size // x.shape[-1], x.shape[-1]))


def _forward(y: Value, transposed: Value) -> Value:
    (weight,) = transposed.inputs
    return matmul_op(_activation(y), mul(weight, _gain_of(y)).transpose())


def _weight_gradient(transposed: Value, g: Value) -> Value:
    y = _flat(transposed.inputs[0])
    return mul(_products(g, _activation(y)), _gain_of(y)).transpose()


def _products(g: Value, z: Value) -> Value:
    """D = gᵀ z over all rows."""
    return matmul_op(_rows(g).transpose(), _rows(z))


def _scaled_gradient(a: Value, b: Value) -> Value:
    back, gain = (a, b) if a.op is matmul_op else (b, a)
    g, weight = back.inputs
    return matmul_op(g, mul(weight, gain))


def _gain_gradient(product: Value) -> Value:
    a, b = product.inputs
    back, z = (a, b) if a.op is matmul_op else (b, a)
    g, weight = back.inputs
    return mul(_products(g, z), weight).sum(0)
