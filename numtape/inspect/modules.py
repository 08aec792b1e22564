"""The picture in which a module is a node: how many operations and bytes, and what flows where.

Reads a `Scene`, writes Graphviz text; for graphs too large to show every operation. A module whose
operations come before and after those of other modules (the additions around a Transformer's
layers) is drawn as several nodes, so that the arrows never run in circles. The reverse part
is counted where its forward twin is, and its arrows, which mirror the others, are left out.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from graphviz import Digraph

from numtape.inspect import look
from numtape.inspect.folding import Path
from numtape.inspect.look import ARGUMENT, CAPTURED, OUTPUT, PARTS, SOFT, filled, label, text
from numtape.inspect.places import FORWARD, REVERSE, UPDATE, inside
from numtape.inspect.scene import Scene
from numtape.ir.graph import INPUT, Value
from numtape.ir.ops.random import STATE

SHOWN = 4  # names of operations in a node


@dataclass(eq=False)
class Piece:
    """Operations of one module that are drawn as one node."""

    place: Path
    key: str
    forward: list[Value] = field(default_factory=list)
    reverse: list[Value] = field(default_factory=list)
    captured: list[Value] = field(default_factory=list)
    before: "set[Piece]" = field(default_factory=set)

    def follows(self, other: "Piece") -> bool:
        """Whether this piece needs what `other` computes."""
        pending, seen = list(self.before), set(self.before)
        while pending:
            piece = pending.pop()
            if piece is other:
                return True
            pending += piece.before - seen
            seen |= piece.before
        return False


def draw_modules(scene: Scene, picture: Digraph) -> None:
    """Add the modules of a scene, their boxes and the edges between them to a picture."""
    picture.attr(newrank="true")  # rows across boxes, as a residual encloses what it adds to
    _Modules(scene).draw(picture)


class _Modules:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.pieces: list[Piece] = []
        self.of: dict[Value, Piece] = {}
        self.latest: dict[Path, Piece] = {}
        self.read: dict[Value, list[Value]] = {}
        for x, v in scene.edges():
            if x.dtype != STATE:  # the order of random draws is no flow of data
                self.read.setdefault(v, []).append(x)
        self.updating = [v for v in scene.part if self._is_update(v)]
        self._cut_forward()
        self._count_reverse()
        self._count_captured()

    def _is_update(self, v: Value) -> bool:
        return self.scene.place[v][:1] == (UPDATE,)

    # ---- cutting the graph into pieces ------------------------------------------------------

    def _cut_forward(self) -> None:
        for v in self.scene.drawn:
            if self.scene.part[v] == REVERSE or v.op is INPUT or self._is_update(v):
                continue
            sources = {self.of[x] for x in self.read.get(v, ()) if x in self.of}
            piece = self._joined(self.scene.place[v], sources)
            piece.forward.append(v)
            piece.before |= sources - {piece}
            self.of[v] = piece

    def _joined(self, place: Path, sources: set[Piece]) -> Piece:
        """The module's latest piece, or a new one where joining it would close a circle."""
        piece = self.latest.get(place)
        if piece is None or any(s.follows(piece) for s in sources - {piece}):
            return self._new(place)
        return piece

    def _new(self, place: Path) -> Piece:
        piece = Piece(place, f"piece{len(self.pieces)}")
        self.pieces.append(piece)
        self.latest[place] = piece
        return piece

    def _count_reverse(self) -> None:
        """Reverse operations go to the piece with the same line of code, else the same module."""
        lines = {v.origin._replace(reverse=True): piece for v, piece in self.of.items()}
        for v in self.scene.drawn:
            if self.scene.part[v] == REVERSE:
                piece = lines.get(v.origin) or self._nearest(self.scene.place[v])
                piece.reverse.append(v)

    def _nearest(self, place: Path) -> Piece:
        """The last piece of a module or of what is in it; a new one where there is none."""
        if place in self.latest:
            return self.latest[place]
        found = [p for p in self.pieces if inside(p.place, place)]
        return found[-1] if found else self._new(place)

    def _count_captured(self) -> None:
        for v, sources in self.read.items():
            for x in sources:
                outside = x.op is INPUT and x not in self.scene.arguments
                if outside and v in self.of and x not in self.of:
                    self.of[v].captured.append(x)
                    self.of[x] = self.of[v]

    # ---- drawing ----------------------------------------------------------------------------

    def draw(self, picture: Digraph) -> None:
        self._arguments(picture)
        self._box(picture, ())
        for (tail, head), values in self._flows().items():
            style = {} if tail.startswith("input") else {"label": _flow(values)}
            picture.edge(tail, head, **style)
        self._outputs(picture)
        if self.updating:
            self._update(picture)

    def _arguments(self, picture: Digraph) -> None:
        graph = self.scene.graph
        for v, name in zip(graph.inputs, graph.names, strict=True):
            if v in self.scene.arguments:
                lines = text(name, bold=True), text(look.type_text(v.type), 8, SOFT)
                style = {"style": "filled", **filled(ARGUMENT)}
                picture.node(self._key(v), label(*lines), **style)

    def _key(self, v: Value) -> str:
        piece = self.of.get(v)
        return piece.key if piece else f"input{self.scene.names[v][1:]}"

    def _box(self, picture: Digraph, path: Path) -> None:
        """Draw what is in a box: its own pieces, modules of one piece, and boxes of several."""
        folding = self.scene.folding
        for child, pieces in self._contents(path).items():
            if child == path or (len(pieces) == 1 and child not in folding.runs):
                for piece in pieces:
                    name = ".".join(piece.place[len(path) :])
                    picture.node(piece.key, _piece_label(piece, name), **_piece_style(piece))
                continue
            with picture.subgraph(name=f"cluster_{'/'.join(child)}") as box:
                box.attr(**look.box(folding.title(child), len(child), child in folding.runs))
                self._box(box, child)

    def _contents(self, path: Path) -> dict[Path, list[Piece]]:
        """The pieces in a box by the box next below it, or by `path` for its own."""
        found: dict[Path, list[Piece]] = {}
        for piece in self.pieces:
            if inside(piece.place, path):
                found.setdefault(piece.place[: len(path) + 1], []).append(piece)
        return found

    def _flows(self) -> dict[tuple[str, str], dict[Value, None]]:
        """What goes from node to node in the forward part."""
        found: dict[tuple[str, str], dict[Value, None]] = {}
        for v, sources in self.read.items():
            for x in sources:
                computed = x in self.of and x.op is not INPUT
                if v in self.of and (computed or x in self.scene.arguments):
                    ends = self._key(x), self.of[v].key
                    if ends[0] != ends[1]:
                        found.setdefault(ends, {})[x] = None
        return found

    def _outputs(self, picture: Digraph) -> None:
        for v, name in self.scene.outputs().items():
            if v in self.of or v in self.scene.arguments:
                key = f"output{self.scene.names[v]}"
                picture.node(key, name, fontcolor="white", **filled(OUTPUT))
                picture.edge(self._key(v), key)
        gradients = [v for v in self.scene.graph.outputs if self.scene.part[v] == REVERSE]
        if gradients:
            words = text(look.plural(len(gradients), "gradient"), bold=True)
            picture.node("gradients", label(words), **filled(PARTS[REVERSE]))
            self._after_reverse(picture, "gradients")

    def _update(self, picture: Digraph) -> None:
        state = [v for v in self.updating if v.op is INPUT]
        rows = [
            text(UPDATE, bold=True),
            text(_amount([v for v in self.updating if v.op is not INPUT]), 9, PARTS[UPDATE].line),
        ]
        if state:
            rows.append(text(f"state {_bytes(state)}", 9, CAPTURED.line))
        picture.node(UPDATE, label(*rows), **filled(PARTS[UPDATE]))
        self._after_reverse(picture, UPDATE)

    def _after_reverse(self, picture: Digraph, key: str) -> None:
        """An arrow from where the reverse part begins: the last piece that has one."""
        differentiated = [p for p in self.pieces if p.reverse]
        if differentiated:
            style = {"label": " gradients", "style": "dashed", "color": PARTS[REVERSE].line}
            picture.edge(differentiated[-1].key, key, **style)


def _flow(values: Collection[Value]) -> str:
    if len(values) > 1:
        return f" {len(values)} values"
    return f" {look.type_text(next(iter(values)).type)}"


def _piece_label(piece: Piece, name: str) -> str:
    """Its name, or its operations where it has none; then what each part of the step costs."""
    operations = _operation_names(piece.forward or piece.reverse)
    rows = [text(name or operations, bold=True)]
    if name:
        rows.append(text(operations, 8, SOFT))
    for part, values in ((FORWARD, piece.forward), (REVERSE, piece.reverse)):
        if values:
            words = f"{part} {_amount(values)}" if piece.reverse else _amount(values)
            rows.append(text(words, 9, PARTS[part].line))
    if piece.captured:
        rows.append(text(f"captured {_bytes(piece.captured)}", 9, CAPTURED.line))
    return label(*rows)


def _piece_style(piece: Piece) -> dict[str, str]:
    return filled(PARTS[FORWARD if piece.forward else REVERSE])


def _operation_names(values: list[Value]) -> str:
    names = list(dict.fromkeys(v.op.name for v in values))
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")


def _amount(values: list[Value]) -> str:
    """`12 ops, 1.5 MiB`: views are neither."""
    work = [v for v in values if v.op.view is None]
    return f"{look.plural(len(work), 'op')}, {_bytes(work)}"


def _bytes(values: Iterable[Value]) -> str:
    return look.number_of_bytes(sum(v.type.nbytes for v in values))
