"""The picture in which every operation is a node, inside the boxes of its modules.

Reads a `Scene`, writes Graphviz text. The reverse part runs upwards beside the forward part, so
that a module's values lie side by side: its edges are given to the layout the other way round.
"""

from graphviz import Digraph, escape

from numtape.inspect import look
from numtape.inspect.folding import Path
from numtape.inspect.look import (
    ARGUMENT,
    CAPTURED,
    FAINT,
    OUTPUT,
    PARTS,
    READ,
    SAVED,
    filled,
    label,
    text,
)
from numtape.inspect.places import REVERSE, UPDATE
from numtape.inspect.scene import Scene
from numtape.ir.graph import INPUT, Value, line
from numtape.ir.ops.random import STATE


def draw_operations(scene: Scene, picture: Digraph) -> None:
    """Add the nodes, boxes and edges of a scene to a picture."""
    if REVERSE not in scene.part.values():  # which aligns boxes better, but knots two streams
        picture.attr(newrank="true")
    _Operations(scene).draw(picture)


class _Operations:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = {v: f"v{i}" for i, v in enumerate(scene.names)}
        self.inputs = dict(zip(scene.graph.inputs, scene.graph.names, strict=True))
        self.children: dict[Path, dict[Path, None]] = {}
        self.members: dict[Path, list[Value]] = {}
        for v in scene.drawn:
            path = scene.place[v]
            self.members.setdefault(path, []).append(v)
            for length in range(1, len(path) + 1):
                self.children.setdefault(path[: length - 1], {})[path[:length]] = None
        self.assigned: dict[Path, list[tuple[str, Value]]] = {}
        for name, new in scene.updates():
            self.assigned.setdefault(scene.place[new], []).append((name, new))

    def draw(self, picture: Digraph) -> None:
        self._box(picture, ())
        for v, name in self.scene.outputs().items():
            self._output(picture, v, name)
        for x, v in self.scene.edges():
            self._edge(picture, x, v)

    def _box(self, picture: Digraph, path: Path) -> None:
        for v in self.members.get(path, ()):
            self._node(picture, v)
        for name, new in self.assigned.get(path, ()):
            self._update(picture, name, new)
        folding = self.scene.folding
        for child in self.children.get(path, ()):
            title = folding.title(child)
            with picture.subgraph(name=f"cluster_{'/'.join(child)}") as box:
                box.attr(**look.box(title, len(child), child in folding.runs))
                self._box(box, child)

    def _node(self, picture: Digraph, v: Value) -> None:
        if v.op is INPUT:
            style = self._input_style(v)
        elif v.op.view is not None:
            style = _view_style(v, self.scene)
        else:
            style = _operation_style(v, self.scene)
        picture.node(self.ids[v], tooltip=escape(self._tooltip(v)), **style)

    def _tooltip(self, v: Value) -> str:
        return self.inputs.get(v) or line(v, self.scene.names)

    def _input_style(self, v: Value) -> dict[str, str]:
        given = v in self.scene.arguments
        colour = ARGUMENT if given else CAPTURED
        module = ".".join(self.scene.place[v])
        name = self.inputs[v].removeprefix(f"{module}.")
        return {
            "label": label(text(name, bold=given), _types(v, self.scene)),
            "shape": "box" if given else "cylinder",
            "style": "filled",
            **filled(colour),
        }

    def _output(self, picture: Digraph, v: Value, name: str) -> None:
        key = f"output{self.ids[v]}"
        picture.node(key, name, fontcolor="white", **filled(OUTPUT))
        if not v.is_constant:
            upward = self.scene.part[v] == REVERSE
            self._link(picture, self.ids[v], key, upward)

    def _update(self, picture: Digraph, name: str, new: Value) -> None:
        key = f"{self.ids[new]}_{name}"
        picture.node(key, f"{name} ←", shape="cylinder", style="filled", **filled(CAPTURED))
        if not new.is_constant:
            self._link(picture, self.ids[self.scene.source(new)], key)

    def _edge(self, picture: Digraph, x: Value, v: Value) -> None:
        ends = self.scene.part[x], self.scene.part[v]
        upward = ends == (REVERSE, REVERSE)
        self._link(picture, self.ids[x], self.ids[v], upward, **_edge_style(x, *ends))

    @staticmethod
    def _link(picture: Digraph, tail: str, head: str, upward: bool = False, **style: str) -> None:
        if upward:
            picture.edge(head, tail, dir="back", **style)
        else:
            picture.edge(tail, head, **style)


def _edge_style(x: Value, tail: str, head: str) -> dict[str, str]:
    """What the reverse part and the update read from elsewhere must not pull the layout."""
    if x.dtype == STATE:  # the order of random draws, no flow of data
        return {"color": FAINT, "style": "dotted", "constraint": "false"}
    if tail == head == REVERSE:
        return {"color": PARTS[REVERSE].line}
    if tail == head:
        return {"color": FAINT} if x.op is INPUT else {}
    return {
        "color": READ if head == UPDATE else SAVED,
        "style": "dashed",
        "arrowsize": "0.4",
        "constraint": "false",
    }


def _types(v: Value, scene: Scene) -> str:
    return text(f"{scene.names[v]}  {look.type_text(v.type)}", 8, look.SOFT)


def _operation_style(v: Value, scene: Scene) -> dict[str, str]:
    sources = (scene.source(x) for x in v.inputs)
    inputs = (x if x in scene.written else None for x in sources)
    lines = [text(look.call(v, inputs), bold=True)]
    attributes = look.attributes(v)
    if attributes:
        lines.append(text(attributes, 8))
    lines.append(_types(v, scene))
    return {"label": label(*lines), **filled(PARTS[scene.part[v]])}


def _view_style(v: Value, scene: Scene) -> dict[str, str]:
    """Views are no work: small, white and dashed."""
    words = " ".join(filter(None, (v.op.name, look.attributes(v))))
    return {
        "label": label(text(words, 8, look.SOFT), _types(v, scene)),
        "style": "rounded,dashed",
        "color": PARTS[scene.part[v]].line,
        "penwidth": "0.7",
        "margin": "0.05,0.02",
    }
