"""Passes that are wrong in one way each, to be caught."""

from dataclasses import replace

import numpy as np

from numtape.ir.graph import users
from numtape.ir.op import REGISTRY
from numtape.ir.ops.elementwise import exp
from numtape.passes.rewrite import rebuild, rewrite


def turned_differences(graph):
    """x - y becomes y - x."""

    def rule(op, inputs, attrs):
        return inputs[1] - inputs[0] if op is REGISTRY["sub"] else None

    turned = set()

    def once(node, inputs):
        if node.op is REGISTRY["sub"] and node not in turned:
            turned.add(node)
            return rule(node.op, inputs, node.attrs)
        return None

    return rebuild(graph, once)


def quotients_by_inverses(graph):
    """x / 3 becomes x * (1 / 3), which rounds differently."""

    def rule(op, inputs, attrs):
        if op is REGISTRY["div"] and inputs[1].is_constant:
            return inputs[0] * (1.0 / inputs[1].attrs["value"])
        return None

    return rewrite(graph, rule)


def lost_first_use(graph):
    """Where a value is read twice, the first exp of it reads zeros."""
    readers = users(graph)

    def rule(node, inputs):
        twice = node.op is REGISTRY["exp"] and len(readers[node.inputs[0]]) > 1
        return exp(inputs[0] * 0.0) if twice else None

    return rebuild(graph, rule)


def negative_zeros(graph):
    """max(x, 0) becomes x times whether it is positive: -0.0 where x is negative."""

    def rule(op, inputs, attrs):
        relu = op is REGISTRY["maximum"] and inputs[1].is_constant
        if relu and inputs[1].attrs["value"] == 0:
            return inputs[0] * (inputs[0] > 0.0).astype(inputs[0].dtype)
        return None

    return rewrite(graph, rule)


def lost_updates(graph):
    """Storage keeps its old values."""
    updates = tuple((old, old) for old, _ in graph.updates)
    return replace(graph, updates=updates)


def wrong_dtype(graph):
    """The first output in another precision."""
    out = graph.outputs[0]
    node = REGISTRY["cast"]
    made = type(out)(
        node,
        (out,),
        {"dtype": np.dtype("f2")},
        out.type._replace(dtype=np.dtype("f2")),
        out.origin,
    )
    return replace(graph, nodes=(*graph.nodes, made), outputs=(made, *graph.outputs[1:]))
