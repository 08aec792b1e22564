"""Modules: what is found in them, their state, their modes, and what a trace sees of them."""

import copy

import numpy as np
import pytest

import numtape as nt
from numtape import nn
from numtape.tracer.tensor import Structure


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.5)
        self.scale = 2.0

    def forward(self, x):
        return self.dropout(self.linear(x)) * self.scale


class Network(nn.Module):
    def __init__(self) -> None:
        self.embedding = nn.Embedding(6, 4)
        self.layers = nn.ModuleList(Block(4) for _ in range(2))
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight  # tied
        self.register_buffer("positions", nt.tensor(np.ones((3, 4), np.float32)))
        self.register_buffer("mask", nt.tensor(np.ones(3, bool)), persistent=False)

    def forward(self, index):
        x = self.embedding(index) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


NAMES = [
    "embedding.weight",
    "layers.0.linear.weight",
    "layers.0.linear.bias",
    "layers.1.linear.weight",
    "layers.1.linear.bias",
]
INDEX = np.array([[0, 1, 5]])


# ---- what is found ------------------------------------------------------------------------


def test_parameters_are_found_once_by_dotted_path():
    model = Network()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert len(list(model.parameters())) == 5
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in model.parameters())


def test_modules_are_found_by_path_with_the_root_first():
    model = Network()
    names = dict(model.named_modules())
    assert names[""] is model
    assert names["layers.1.dropout"] is model.layers[1].dropout
    assert [type(m) for m in model.children()] == [nn.Embedding, nn.ModuleList, nn.Linear]


def test_modules_and_tensors_in_plain_lists_and_dicts_are_found():
    module = nn.Module()
    module.parts = {"a": [nn.Linear(2, 3)], "b": nn.Parameter(np.ones(2, np.float32))}
    assert [name for name, _ in module.named_parameters()] == [
        "parts.a.0.weight",
        "parts.a.0.bias",
        "parts.b",
    ]


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)


def test_the_tree_shows_settings_and_parameter_counts():
    text = repr(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    assert text.splitlines() == [
        "Sequential()  16",
        "  0: Linear(in_features=3, out_features=4)  16",
        "  1: ReLU()",
    ]


def test_a_module_list_is_a_list():
    a, b, c = nn.Identity(), nn.Identity(), nn.Identity()
    layers = nn.ModuleList([a])
    layers.append(b)
    layers.insert(0, c)
    assert list(layers) == [c, a, b] and len(layers) == 3 and layers[-1] is b
    del layers[0]
    layers[0] = c
    assert isinstance(layers[:1], nn.ModuleList) and list(layers[:1]) == [c]
    assert list(nn.Sequential(a, b)[1:]) == [b]


def test_a_sequential_keeps_parameters_of_its_own():
    module = nn.Sequential(nn.Linear(2, 2))
    module.gain = nn.Parameter(np.ones(2, np.float32))
    assert [name for name, _ in module.named_parameters()] == ["0.weight", "0.bias", "gain"]


# ---- state --------------------------------------------------------------------------------


def test_the_state_holds_parameters_and_persistent_buffers_once():
    state = Network().state_dict()
    assert sorted(state) == sorted([*NAMES, "positions"])
    assert all(isinstance(array, np.ndarray) for array in state.values())


def test_a_state_is_a_copy_and_loads_into_another_model():
    nt.random.seed(1)
    one, two = Network().eval(), Network().eval()
    state = one.state_dict()
    expected = one(INDEX).numpy()
    one.layers[0].linear.weight.assign(np.zeros((4, 4), np.float32))
    two.load_state_dict(state)
    np.testing.assert_array_equal(two(INDEX).numpy(), expected)
    assert two.head.weight is two.embedding.weight


def test_a_wrong_state_is_refused_whole_with_every_fault_named():
    model = Network()
    before = model.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    del state["positions"]
    state["extra"] = np.ones(1)
    state["layers.0.linear.bias"] = np.ones(5, np.float32)
    state["layers.1.linear.bias"] = np.ones(4)
    with pytest.raises(ValueError) as error:
        model.load_state_dict(state)
    message = str(error.value)
    assert "positions: missing" in message
    assert "extra: unknown, not in Network" in message
    assert "layers.0.linear.bias: shape (5,) where (4,) is wanted" in message
    assert "layers.1.linear.bias: dtype float64 where float32 is wanted" in message
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_without_strict_unknown_and_missing_keys_pass_but_shapes_do_not():
    layer = nn.Linear(2, 2)
    layer.load_state_dict({"bias": np.ones(2, np.float32), "other": np.ones(1)}, strict=False)
    np.testing.assert_array_equal(layer.bias.numpy(), 1)
    with pytest.raises(ValueError, match="bias: shape"):
        layer.load_state_dict({"bias": np.ones(3, np.float32)}, strict=False)


def test_a_buffer_can_stop_being_persistent():
    module = nn.Module()
    module.register_buffer("b", nt.tensor([1.0]))
    assert list(module.state_dict()) == ["b"] and list(module.parameters()) == []
    module.register_buffer("b", nt.tensor([1.0]), persistent=False)
    assert module.state_dict() == {}


def test_double_converts_floats_and_keeps_ties():
    model = Network().double()
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    assert model.positions.dtype == np.float64 and model.mask.dtype == np.bool_
    assert model.head.weight is model.embedding.weight
    assert isinstance(model.head.weight, nn.Parameter)
    assert model.float().head.weight.dtype == np.float32


def test_only_the_two_float_dtypes_are_taken():
    with pytest.raises(TypeError, match="float32 or float64, not in int64"):
        nn.Linear(1, 1).to(np.int64)


def test_modes_reach_every_module():
    model = Network().eval()
    assert not any(m.training for m in model.modules())
    assert all(m.training for m in model.train().modules())


def test_zero_grad_clears_all_gradients():
    model = Network()
    model(INDEX).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_a_deep_copy_shares_nothing_and_keeps_ties():
    model = Network()
    copied = copy.deepcopy(model)
    assert copied.head.weight is copied.embedding.weight is not model.head.weight
    assert isinstance(copied.head.weight, nn.Parameter)
    assert list(copied.state_dict()) == list(model.state_dict())


# ---- what a trace sees --------------------------------------------------------------------


def broken(traced) -> list[str]:
    return [watch.what for watch in traced.watches if not watch.holds()]


def test_nodes_carry_the_path_of_their_module():
    model = Network().eval()
    graph = nt.trace(lambda index: model(index).sum(), INDEX).graph
    modules = {node.op.name: node.origin.module for node in graph.nodes}
    paths = {node.origin.module for node in graph.nodes}
    assert {"embedding", "layers.0.linear", "layers.1.linear", "layers.1", "head"} <= paths
    assert modules["sum"] == ""


def test_a_module_outside_the_running_root_is_a_root_itself():
    other = nn.Sequential(nn.Linear(4, 4))

    class Outer(nn.Module):
        def __init__(self) -> None:
            self.inner = nn.Linear(4, 4)
            self.call = lambda x: other(x)

        def forward(self, x):
            return self.inner(self.call(x))

    traced = nt.trace(Outer(), np.ones((2, 4), np.float32))
    paths = [n.origin.module for n in traced.graph.nodes if n.op.name == "matmul"]
    assert paths == ["0", "inner"]


def test_parameters_read_while_tracing_are_inputs_and_watched():
    model = Network()
    traced = nt.trace(model, INDEX)
    assert any(source is model.head.weight for source in traced.captured)
    assert broken(traced) == []
    model.head.weight = nn.Parameter(np.zeros((6, 4), np.float32))
    assert broken(traced) == ["head.weight"]


def test_a_change_of_mode_or_setting_breaks_a_watch_and_back_mends_it():
    model = Network()
    traced = nt.trace(model, INDEX)
    model.eval()
    assert "layers.1.dropout.training" in broken(traced)
    model.train()
    assert broken(traced) == []
    model.layers[1].scale = 3.0
    model.layers[0].dropout.p = 0.1
    assert broken(traced) == ["layers.0.dropout.p", "layers.1.scale"]


def test_an_attribute_of_the_class_is_watched_until_the_object_has_its_own():
    class Scaled(nn.Module):
        factor = 2.0

        def forward(self, x):
            return x * self.factor

    module = Scaled()
    traced = nt.trace(module, np.ones(2, np.float32))
    module.factor = 3.0
    assert broken(traced) == ["factor"]


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers.append(nn.Identity()),
        lambda layers: layers.pop(),
        lambda layers: layers.reverse(),
        lambda layers: layers.__setitem__(0, nn.Identity()),
        lambda layers: layers.__delitem__(0),
    ],
)
def test_a_change_of_a_module_list_breaks_a_watch_and_is_counted(change):
    model = Network()
    traced = nt.trace(model, INDEX)
    count = Structure.changes
    change(model.layers)
    assert "layers._modules" in broken(traced)
    assert Structure.changes > count


def test_plain_lists_are_watched_on_every_call():
    class Listed(nn.Module):
        def __init__(self) -> None:
            self.scales = [1.0, 2.0]

        def forward(self, x):
            return x * self.scales[0]

    module = Listed()
    traced = nt.trace(module, np.ones(2, np.float32))
    module.scales[0] = 5.0
    assert broken(traced) == ["scales"]
    assert [w.counted for w in traced.watches if w.what == "scales"] == [False]


def test_only_real_changes_are_counted():
    model = Network().train()
    count = Structure.changes
    model.train()
    model.layers[0].scale = model.layers[0].scale
    assert Structure.changes == count
    model.eval()
    assert Structure.changes > count
    count = Structure.changes
    del model.mask
    assert Structure.changes > count


def test_a_deleted_attribute_breaks_its_watch():
    model = Network()
    traced = nt.trace(model, INDEX)
    del model.positions
    assert "positions" in broken(traced)


def test_a_copied_module_can_be_used_beside_the_first():
    model = nn.Linear(2, 3)
    other = copy.deepcopy(model)
    assert isinstance(other.weight, nn.Parameter) and other.weight.requires_grad
    x = np.ones((2, 2), np.float32)
    (model(x) + other(x)).sum().backward()
    np.testing.assert_array_equal(model.weight.grad.numpy(), other.weight.grad.numpy())


def test_a_compiled_module_follows_modes_and_structure():
    model = Network().eval()
    compiled = nt.compile(model, exact=True)
    np.testing.assert_array_equal(compiled(INDEX).numpy(), model(INDEX).numpy())
    model.train()
    nt.random.seed(7)
    dropped = compiled(INDEX).numpy().copy()
    nt.random.seed(7)
    np.testing.assert_array_equal(dropped, model(INDEX).numpy())
    model.eval().layers.pop()
    np.testing.assert_array_equal(compiled(INDEX).numpy(), model(INDEX).numpy())
