"""Pictures and reports: the structure of what is drawn, and what happens without `dot`."""

import re
import shutil

import numpy as np
import pytest

import numtape as nt
from numtape.inspect import draw as drawing
from numtape.inspect.dot import to_dot
from numtape.inspect.draw import DrawError, draw
from numtape.inspect.folding import fold_equal
from numtape.inspect.places import FORWARD, REVERSE, UPDATE, split
from numtape.inspect.scene import build_scene
from numtape.ir.graph import Builder, Graph, Value
from numtape.ir.interpreter import active
from numtape.ir.types import Type

FLOAT = np.dtype(np.float32)
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's dot is not here")


def matrix(*shape: int) -> nt.Tensor:
    return nt.tensor(np.ones(shape, np.float32), requires_grad=True)


def training_step(size: int = 4) -> Graph:
    """One layer, its gradient and plain gradient descent."""
    w, b = matrix(8, size), matrix(size)

    def step(x, y):
        d = nt.tanh(x @ w + b).reshape((-1,)) - y
        loss = (d * d).sum() * 0.5
        loss.backward()
        with nt.no_grad():
            for p in (w, b):
                p.assign(p - 0.25 * p.grad)
        return loss

    return nt.trace(step, np.ones((16, 8), np.float32), np.ones(16 * size, np.float32)).graph


def layers(count: int, widths: dict[int, int] | None = None) -> Graph:
    """`net.layers.0` ... with a mask that the first computes for all, as the passes leave it."""
    builder = Builder()
    with active(builder):
        x = builder.input(Type(FLOAT, (8, 4)), "x")
        mask = None
        for i in range(count):
            width = (widths or {}).get(i, 4)
            up = builder.input(Type(FLOAT, (4, width)), f"net.layers.{i}.up.weight")
            down = builder.input(Type(FLOAT, (width, 4)), f"net.layers.{i}.down.weight")
            with builder.scope.inside(f"net.layers.{i}"):
                mask = nt.exp(builder.inputs[0]) if mask is None else mask
                with builder.scope.inside(f"net.layers.{i}.up"):
                    hidden = x @ up
                with builder.scope.inside(f"net.layers.{i}.down"):
                    out = nt.tanh(hidden) @ down
                x = x + out * mask
        return builder.finish("net", [x])


def statements(graph: Graph, **options) -> list[str]:
    return [line.strip() for line in to_dot(graph, **options).body]


def edges(graph: Graph, **options) -> list[str]:
    return [s for s in statements(graph, **options) if " -> " in s]


def keys(graph: Graph) -> dict[Value, str]:
    """The node of each value in the text."""
    return {v: f"v{i}" for i, v in enumerate(build_scene(graph).names)}


def operations(graph: Graph, **options) -> list[str]:
    """The names that stand in bold in the nodes."""
    found = (re.search("<b>(.*?)</b>", s) for s in statements(graph, **options) if s[0] == "v")
    return [m[1] for m in found if m]


# ---- parts and boxes ----------------------------------------------------------------------


def test_the_parts_of_a_step_are_told_apart():
    graph = training_step()
    part = build_scene(graph).part
    assert part[graph.outputs[0]] == FORWARD
    assert {part[new] for _, new in graph.updates} == {UPDATE}
    assert all((part[v] == REVERSE) == v.origin.reverse for v in graph.nodes)


def test_unused_values_do_not_hide_the_update():
    builder = Builder()
    with active(builder):
        state = builder.input(Type(FLOAT, (2,)), "optimizer.state")
        with builder.scope.inside("optimizer"):
            new = state + 1.0
            unused = nt.exp(new)
        graph = builder.finish("step", [], [(state, new)])
    part = build_scene(graph).part
    assert [part[v] for v in (state, new, unused)] == [UPDATE] * 3


def test_module_paths_become_nested_boxes():
    assert split("encoder.layers.0.attention") == ("encoder", "layers.0", "attention")
    assert split("0.1.weight") == ("0.1", "weight")
    assert split("") == ()
    text = to_dot(layers(2), fold=False).source
    assert text.index("subgraph cluster_net ") < text.index('"cluster_net/layers.0"')
    assert text.index('"cluster_net/layers.0"') < text.index('"cluster_net/layers.0/up"')


def test_depth_limits_the_boxes():
    assert "layers.0/up" not in to_dot(layers(2), fold=False, depth=2).source
    assert "cluster_net/" not in to_dot(layers(2), depth=1, detail="ops").source


def test_captured_inputs_lie_in_the_box_that_reads_them():
    graph = layers(1)
    place = build_scene(graph).place
    assert [place[v] for v in graph.inputs] == [
        (),
        ("net", "layers.0", "up"),
        ("net", "layers.0", "down"),
    ]


# ---- operations ---------------------------------------------------------------------------


def test_constants_are_written_into_the_nodes_that_read_them():
    found = operations(training_step(), detail="ops")
    assert "mul(·, 0.5)" in found
    assert not any(name.startswith("constant") for name in found)


def test_inputs_outputs_and_updates_have_shapes_of_their_own():
    text = to_dot(training_step(), detail="ops").source
    assert text.count("shape=cylinder") == 3  # two parameters, one new value for both
    assert "captured0 ←" in text
    assert "<b>x</b>" in text
    assert "outputv" in text


def test_equal_outputs_of_folded_layers_are_named_together():
    builder = Builder()
    with active(builder):
        x = builder.input(Type(FLOAT, (2,)), "x")
        outputs = []
        for i in range(3):
            with builder.scope.inside(f"layers.{i}"):
                outputs.append(nt.exp(x))
        graph = builder.finish("three", outputs)
    assert '"outputs 0, 1, 2"' in to_dot(graph).source
    assert '"output 1"' in to_dot(graph, fold=False).source


def test_arguments_can_be_counted_instead_of_told_by_name():
    graph = training_step()
    assert build_scene(graph).arguments == frozenset(graph.inputs[:2])
    assert build_scene(graph, arguments=1).arguments == frozenset(graph.inputs[:1])


def test_views_are_dashed_or_left_out_with_edges_passing_through():
    graph = training_step()
    assert any("reshape" in s and "dashed" in s for s in statements(graph, detail="ops"))
    text = to_dot(graph, detail="ops", views=False)
    assert "reshape" not in text.source
    tanh = next(v for v in graph.nodes if v.op.name == "tanh")
    sub = next(v for v in graph.nodes if v.op.name == "sub" and not v.origin.reverse)
    assert any(f"{keys(graph)[tanh]} -> {keys(graph)[sub]}" in s for s in text.body)


def test_reverse_values_have_another_colour_and_run_upwards():
    found = edges(training_step(), detail="ops")
    assert any("dir=back" in s for s in found)
    assert any("style=dashed" in s and "constraint=false" in s for s in found)


def test_tooltips_tell_the_line_of_code():
    assert "test_inspect.py" in to_dot(training_step(), detail="ops").source


def test_labels_are_escaped():
    builder = Builder()
    with active(builder):
        x = builder.input(Type(FLOAT, (2,)), 'a<b>&"c"')
        graph = builder.finish("f<g>", [nt.exp(x)])
    text = to_dot(graph).source
    assert "a&lt;b&gt;&amp;" in text
    assert "f&lt;g&gt;" in text


# ---- folding ------------------------------------------------------------------------------


def test_equal_layers_are_drawn_once():
    graph = layers(5)
    folded, unfolded = operations(graph), operations(graph, fold=False)
    assert "layers.0–4  ×5" in to_dot(graph).source
    assert folded.count("tanh") == 1
    assert unfolded.count("tanh") == 5


def test_folding_keeps_only_neighbours_that_are_equal():
    folding = build_scene(layers(5, widths={2: 6})).folding
    assert {p[-1]: len(run) for p, run in folding.runs.items()} == {"layers.0": 2, "layers.3": 2}
    assert "layers.0–1  ×2" in to_dot(layers(5, widths={2: 6})).source


def test_edges_of_a_repetition_enter_it_and_leave_it_once():
    graph = layers(3)
    scene = build_scene(graph)
    last = graph.outputs[0]
    assert scene.source(last) is not last
    drawn = list(scene.edges())
    assert len(drawn) == len(set(drawn))
    order = {v: i for i, v in enumerate(scene.drawn)}
    assert all(order[x] < order[v] for x, v in drawn)  # no edge from a layer back to itself
    assert any(s.startswith(f"{keys(graph)[scene.source(last)]} -> output") for s in edges(graph))


def test_what_layers_share_does_not_keep_them_from_being_equal():
    graph = layers(3)
    mask = next(v for v in graph.nodes if v.op.name == "exp")
    assert mask.origin.module == "net.layers.0"
    assert build_scene(graph).place[mask] == ("net",)


def test_a_fold_inside_a_fold_stands_for_everything():
    builder = Builder()
    with active(builder):
        x = builder.input(Type(FLOAT, (2,)), "x")
        for i in range(4):
            with builder.scope.inside(f"blocks.{i // 2}.heads.{i % 2}"):
                x = nt.exp(x)
        graph = builder.finish("nested", [x])
    place = {v: split(v.origin.module) for v in graph.nodes}
    part = dict.fromkeys(graph.nodes, FORWARD)
    folding = fold_equal(graph.nodes, place, part, UPDATE)
    assert set(folding.stands.values()) == {graph.nodes[0]}
    assert len(folding.stands) == 3


def test_the_updates_of_parameters_fold_whatever_their_shapes():
    text = to_dot(training_step(), detail="ops").source
    assert "parameter.0–1  ×2" in text
    assert text.count("←") == 1


# ---- modules ------------------------------------------------------------------------------


def test_modules_are_nodes_with_what_they_compute_and_hold():
    text = to_dot(layers(3), detail="modules").source
    assert "layers.0–2  ×3" in text
    assert "<b>up</b>" in text
    assert "1 op, 128 B" in text
    assert "captured 64 B" in text
    assert 'label=" f32[8, 4]"' in text


def test_a_module_whose_parts_enclose_others_never_makes_a_circle():
    """`up` feeds nothing of the layer's own but the layer's product needs `down`."""
    found = edges(layers(1), detail="modules")
    pairs = {tuple(re.findall(r"\w+", s)[:2]) for s in found}
    assert not any((head, tail) in pairs for tail, head in pairs)


def test_the_reverse_part_and_the_update_are_counted():
    text = to_dot(training_step(), detail="modules").source
    assert "reverse" in text
    assert "gradients" in text
    assert "<b>update</b>" in text


def test_large_graphs_are_drawn_by_module_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr("numtape.inspect.dot.READABLE", 10)
    assert "a node for each module" in to_dot(layers(3), fold=False).source
    assert "a node for each module" not in to_dot(layers(3), fold=False, detail="ops").source
    with pytest.raises(ValueError, match="detail must be one of auto, ops, modules"):
        to_dot(layers(1), detail="all")


# ---- files --------------------------------------------------------------------------------


def test_text_needs_no_program(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = draw(layers(2), tmp_path / "net.dot", title="Two layers")
    assert "Two layers" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["net.dot"]


def test_a_missing_program_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DrawError, match=r"apt install graphviz(.|\n)*ends in \.dot"):
        draw(layers(2), tmp_path / "net.svg")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.dot, \.gv, \.svg, \.png, \.pdf"):
        draw(layers(1), tmp_path / "net.jpeg")


def test_too_many_nodes_are_refused_with_advice_but_written_as_text(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "MOST_NODES", 10)
    with pytest.raises(DrawError, match='detail="modules"'):
        draw(layers(4), tmp_path / "net.png", fold=False, detail="ops")
    draw(layers(4), tmp_path / "net.gv", fold=False, detail="ops")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = draw(layers(1), tmp_path / "net.dot")
    before = path.read_text(encoding="utf-8")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        draw(layers(2), path)
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


@needs_dot
@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_images(tmp_path, ending):
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[ending]
    path = draw(training_step(), tmp_path / f"step.{ending}", detail="ops")
    assert path.read_bytes().startswith(start)


@needs_dot
def test_modules_as_an_image(tmp_path):
    text = draw(layers(3), tmp_path / "net.svg", detail="modules").read_text(encoding="utf-8")
    assert "layers.0–2" in text
