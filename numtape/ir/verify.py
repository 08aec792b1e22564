"""The verifier: every shape rule run again, every value defined before it is used.

Passes must hold it before and after; in between anything goes.
"""

from numtape.ir.graph import CONSTANT, INPUT, Graph, Region, Value, line, numbering
from numtape.ir.types import DtypeError, ShapeError


class VerifyError(Exception):
    """A graph that is not well formed; the message shows the node and its surroundings."""


def verify(graph: Graph) -> Graph:
    """The graph itself, or `VerifyError` that names the first fault."""
    known: set[Value] = set(graph.inputs)
    for value in graph.inputs:
        if value.op is not INPUT:
            raise VerifyError(f"{graph.name}: an input is a {value.op.name}")
    for node in graph.nodes:
        missing = [v for v in node.inputs if v not in known]
        if missing:
            raise _fault(graph, node, f"it reads {missing[0]!r}, which is not defined before it")
        _check_type(graph, node)
        known.add(node)
    for value in graph.results:
        if value not in known:
            raise VerifyError(f"{graph.name}: the result {value!r} is not a node of the graph")
    for region in graph.regions:
        _check_region(graph, region)
    inputs = set(graph.inputs)
    for old, new in graph.updates:
        if old not in inputs or old.type[:2] != new.type[:2]:
            raise VerifyError(f"{graph.name}: {new!r} cannot update {old!r}")
    return graph


def _check_region(graph: Graph, region: Region) -> None:
    """Members stand in the order of the graph, and all compute the region's rows one by one."""
    place = {v: i for i, v in enumerate(graph.nodes)}
    places = [place.get(v, -1) for v in region.nodes]
    if -1 in places or places != sorted(places):
        raise VerifyError(f"{graph.name}: a region of {region.nodes} is not in the graph's order")
    for node in region.nodes:
        if node.rows[: len(region.rows)] != region.rows:
            raise _fault(graph, node, f"it is in a region of rows {region.rows}, which it mixes")


def _check_type(graph: Graph, node: Value) -> None:
    if node.op is CONSTANT:
        return
    try:
        expected = node.op.infer(*(v.type for v in node.inputs), **node.attrs)
    except (ShapeError, DtypeError, TypeError) as error:
        raise _fault(graph, node, error.args[0]) from None
    if expected[:2] != node.type[:2]:
        raise _fault(graph, node, f"its type is {node.type}, its inputs give {expected}")


def _fault(graph: Graph, node: Value, reason: str) -> VerifyError:
    names = numbering(graph)
    for v in node.inputs:
        names.setdefault(v, "?")
    shown = [v for v in graph.nodes if not v.is_constant]
    at = next(i for i, v in enumerate(shown) if v is node)
    around = [
        ("> " if v is node else "  ") + line(v, {**dict.fromkeys(v.inputs, "?"), **names})
        for v in shown[max(0, at - 5) : at + 6]
    ]
    return VerifyError(f"{graph.name}: {reason}\n" + "\n".join(around))
