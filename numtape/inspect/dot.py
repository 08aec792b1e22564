"""Graphs as pictures: chooses the level of detail and writes the title and the legend.

`operations` and `modules` draw; `draw` puts the result into a file.
"""

from graphviz import Digraph

from numtape.inspect import look
from numtape.inspect.look import ARGUMENT, CAPTURED, OUTPUT, PARTS
from numtape.inspect.modules import draw_modules
from numtape.inspect.operations import draw_operations
from numtape.inspect.places import parts
from numtape.inspect.scene import Scene, build_scene
from numtape.ir.graph import Graph

READABLE = 120  # nodes: those of a small GPT's forward pass, not of an encoder-decoder's
DETAILS = ("auto", "ops", "modules")


def to_dot(
    graph: Graph,
    *,
    detail: str = "auto",
    fold: bool = True,
    depth: int | None = None,
    views: bool = True,
    arguments: int | None = None,
    title: str | None = None,
) -> Digraph:
    """A picture of a graph for Graphviz; its text is `.source`.

    detail     "ops": a node for each operation; "modules": a node for each module, with what it
               computes and holds; "auto": operations if at most `READABLE` nodes are to be drawn,
               else modules, and the line below the title says so.
    fold       draw equal sibling modules (`layers.0`, `layers.1` ...) once, marked `×N`.
    depth      how many levels of modules are told apart; all by default.
    views      draw reshapes, slices and other views, which cost nothing ("ops" only).
    arguments  how many leading inputs are arguments, the others being captured; by default the
               names that the tracer gives tell.
    title      the name of the graph by default.

    Raises `ValueError` for an unknown `detail`.
    """
    if detail not in DETAILS:
        raise ValueError(f"detail must be one of {', '.join(DETAILS)}, not {detail!r}")
    scene = build_scene(graph, fold, depth, views and detail != "modules", arguments)
    if detail == "auto":
        detail = "ops" if len(scene.drawn) <= READABLE else "modules"
        scene = build_scene(graph, fold, depth, views and detail != "modules", arguments)
    picture = Digraph(graph.name, graph_attr=look.GRAPH, node_attr=look.NODE, edge_attr=look.EDGE)
    (draw_modules if detail == "modules" else draw_operations)(scene, picture)
    notes = _notes(scene, detail)
    picture.attr(label=look.heading(title or graph.name, notes, _legend(scene)))
    return picture


def _notes(scene: Scene, detail: str) -> str:
    graph = scene.graph
    notes = [look.plural(graph.operations, "operation"), look.number_of_bytes(graph.nbytes)]
    if detail == "modules":
        notes.append("a node for each module")
    return " · ".join(notes)


def _legend(scene: Scene) -> dict[str, look.Colour]:
    """The colours that occur."""
    captured = len(scene.arguments) < len(scene.graph.inputs)
    entries = {"argument": ARGUMENT} if scene.arguments else {}
    entries |= {"captured": CAPTURED} if captured else {}
    present = set(parts(scene.graph).values())
    entries |= {part: colour for part, colour in PARTS.items() if part in present}
    return entries | {"output": OUTPUT}
