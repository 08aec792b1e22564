"""Optimizers and clipping against straight NumPy, and traced."""

import math

import numpy as np
import pytest

import numtape as nt
from numtape import nn, optim
from numtape.ir.verify import verify
from numtape.tracer.tensor import Structure

STEPS = 25
SHAPES = [(3, 4), (4,), ()]


def starts(dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(dtype) for shape in SHAPES]


def gradients(dtype=np.float64):
    rng = np.random.default_rng(1)
    return [[rng.normal(size=shape).astype(dtype) for shape in SHAPES] for _ in range(STEPS)]


def run(make, dtype=np.float64):
    """The parameters after every step of an optimizer fed with fixed gradients."""
    parameters = [nn.Parameter(array) for array in starts(dtype)]
    optimizer = make(parameters)
    history = []
    for step in gradients(dtype):
        for parameter, g in zip(parameters, step, strict=True):
            parameter.grad = nt.tensor(g)
        optimizer.step()
        history.append([p.numpy().copy() for p in parameters])
    return history


def check(history, reference, rtol):
    """Every step against `reference(p, g, state, t) -> p`, one parameter at a time."""
    for i, p in enumerate(starts()):
        state = {}
        for t, step in enumerate(gradients(), start=1):
            p = reference(p, step[i], state, t)
            np.testing.assert_allclose(history[t - 1][i], p, rtol=rtol, atol=rtol)


def sgd(p, g, state, t, lr, momentum=0.0, nesterov=False, weight_decay=0.0, dampening=0.0):
    g = g + weight_decay * p
    if momentum:
        velocity = g if t == 1 else momentum * state["v"] + (1 - dampening) * g
        state["v"] = velocity
        g = g + momentum * velocity if nesterov else velocity
    return p - lr * g


def adam(p, g, state, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    b1, b2 = betas
    if decoupled:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    m = state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    v = state["v"] = b2 * state.get("v", 0) + (1 - b2) * g**2
    return p - lr / (1 - b1**t) * m / (np.sqrt(v) / math.sqrt(1 - b2**t) + eps)


SGD_SETTINGS = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.2},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
]
ADAM_SETTINGS = [
    {"lr": 0.01},
    {"lr": 0.01, "betas": (0.5, 0.8), "eps": 0.1},
    {"lr": 0.01, "weight_decay": 0.3},
    {"lr": 0.01, "betas": (0.0, 0.0), "weight_decay": 0.1},
]
CASES = [
    *((optim.SGD, settings) for settings in SGD_SETTINGS),
    *((optim.Adam, settings) for settings in ADAM_SETTINGS),
    *((optim.AdamW, {"weight_decay": 0.01, **settings}) for settings in ADAM_SETTINGS),
]


def reference_of(kind, settings):
    if kind is optim.SGD:
        return lambda p, g, state, t: sgd(p, g, state, t, **settings)
    decoupled = kind is optim.AdamW
    return lambda p, g, state, t: adam(p, g, state, t, decoupled=decoupled, **settings)


@pytest.mark.parametrize(("kind", "settings"), CASES)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_steps_equal_the_formulas(kind, settings, dtype, rtol):
    history = run(lambda parameters: kind(parameters, **settings), dtype)
    assert all(p.dtype == dtype for p in history[-1])
    check(history, reference_of(kind, settings), rtol)


# ---- groups, rates and state --------------------------------------------------------------


def test_groups_have_their_own_rate_and_decay():
    p, q = nn.Parameter(np.ones(1)), nn.Parameter(np.ones(1))
    optimizer = optim.SGD(
        [{"params": [p], "lr": 0.5, "weight_decay": 1.0}, {"params": [q]}], lr=0.25
    )
    p.grad, q.grad = nt.tensor(np.ones(1)), nt.tensor(np.ones(1))
    optimizer.step()
    assert p.item() == 1 - 0.5 * (1 + 1) and q.item() == 0.75
    optimizer.lr = 0.125
    assert [g.lr.item() for g in optimizer.groups] == [0.125, 0.125]


def test_a_schedule_cannot_be_set_later():
    optimizer = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
    with pytest.raises(TypeError, match="a schedule is given when an optimizer is made"):
        optimizer.lr = optim.schedules.constant(0.1)


def test_the_rate_can_be_set_between_steps_without_a_new_trace():
    p = nn.Parameter(np.ones(1))
    optimizer = optim.SGD([p], lr=1.0)
    count, tensor = Structure.changes, optimizer.lr
    for rate in (0.5, 0.25):
        optimizer.lr = rate
        p.grad = nt.tensor(np.ones(1))
        optimizer.step()
    assert p.item() == 0.25
    assert optimizer.lr is tensor and Structure.changes == count


def test_a_schedule_is_followed_from_step_one():
    p = nn.Parameter(np.zeros(1))
    optimizer = optim.SGD([p], lr=lambda step: step * 10.0)
    assert optimizer.lr.item() == 10.0
    for expected in (10.0, 20.0, 30.0):
        before = p.item()
        p.grad = nt.tensor(np.ones(1))
        optimizer.step()
        assert before - p.item() == expected == optimizer.lr.item()
    with pytest.raises(ValueError, match="follows the schedule"):
        optimizer.lr = 0.1


def test_parameters_without_a_gradient_stay():
    p, q = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    optimizer = optim.AdamW([p, q], lr=0.1)
    p.grad = nt.tensor(np.ones(2))
    optimizer.step()
    assert (p.numpy() != 1).all() and (q.numpy() == 1).all()
    optimizer.zero_grad()
    assert p.grad is None


def test_a_run_resumes_bit_for_bit_from_its_state():
    def one_step(parameters, optimizer, step):
        for p, g in zip(parameters, step, strict=True):
            p.grad = nt.tensor(g)
        optimizer.step()

    parameters = [nn.Parameter(array) for array in starts()]
    optimizer = optim.AdamW(parameters, lr=lambda step: 0.1 / step)
    for step in gradients()[:5]:
        one_step(parameters, optimizer, step)
    copies = [nn.Parameter(p.numpy().copy()) for p in parameters]
    resumed = optim.AdamW(copies, lr=lambda step: 0.1 / step)
    resumed.load_state_dict(optimizer.state_dict())
    for step in gradients()[5:10]:
        one_step(parameters, optimizer, step)
        one_step(copies, resumed, step)
    for p, q in zip(parameters, copies, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_a_state_that_does_not_fit_is_refused_whole():
    optimizer = optim.AdamW([nn.Parameter(np.ones(2))])
    state = {name: array + 1 for name, array in optimizer.state_dict().items()}
    assert sorted(state) == ["first_moment.0", "groups.0.lr", "second_moment.0", "steps"]
    state["velocity.0"] = state.pop("first_moment.0")
    with pytest.raises(ValueError, match=r"(?s)first_moment.0: missing.*velocity.0: unknown"):
        optimizer.load_state_dict(state)
    assert optimizer.steps.item() == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: optim.SGD([]), ValueError, "needs parameters and got none"),
        (lambda p: optim.SGD(p), TypeError, "a list of parameters, not one tensor"),
        (lambda p: optim.SGD([p, p]), ValueError, "given twice"),
        (lambda p: optim.SGD([p, 1.0]), TypeError, "parameter 1 is a float, not a tensor"),
        (lambda p: optim.SGD([p * 2]), ValueError, "parameter 0 .*not a float tensor made by"),
        (lambda p: optim.SGD([{"params": [p]}, p]), TypeError, "a dict with"),
        (lambda p: optim.SGD([{"params": [p], "betas": 0}]), ValueError, r"not \['betas'\]"),
        (lambda p: optim.SGD([p], lr=-1.0), ValueError, "lr is a finite number not below 0"),
        (lambda p: optim.SGD([p], nesterov=True), ValueError, "nesterov needs a momentum"),
        (lambda p: optim.Adam([p], betas=(1.0, 0.9)), ValueError, r"betas\[0\] lies in \[0, 1\)"),
        (lambda p: optim.Adam([p], eps=math.nan), ValueError, "eps is a finite number"),
        (lambda p: optim.AdamW([p], weight_decay=-1), ValueError, "weight_decay is a finite"),
    ],
)
def test_what_cannot_be_optimized_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(nn.Parameter(np.ones(2)))


# ---- clipping -----------------------------------------------------------------------------


def given(*arrays):
    parameters = [nn.Parameter(np.zeros_like(a)) for a in arrays]
    for p, a in zip(parameters, arrays, strict=True):
        p.grad = nt.tensor(a)
    return parameters


def test_clipping_scales_to_the_norm():
    arrays = [np.full((2, 2), 3.0), np.full(3, -2.0)]
    norm = math.sqrt(sum((a * a).sum() for a in arrays))
    parameters = given(*arrays)
    found = optim.clip_grad_norm_(parameters, 1.5)
    np.testing.assert_allclose(found.item(), norm)
    for p, a in zip(parameters, arrays, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), a * 1.5 / (norm + 1e-6))


def test_clipping_leaves_small_gradients_and_none_alone():
    p, q = given(np.array([0.3, 0.4])), nn.Parameter(np.zeros(2))
    assert optim.clip_grad_norm_([*p, q], 1.0).item() == 0.5
    np.testing.assert_array_equal(p[0].grad.numpy(), [0.3, 0.4])
    assert q.grad is None
    assert optim.clip_grad_norm_(q, 1.0).item() == 0.0


def test_clipping_keeps_the_dtype_of_each_gradient():
    p, q = given(np.full(2, 3.0, np.float32), np.full(2, 4.0))
    optim.clip_grad_norm_([p, q], 1.0)
    assert p.grad.dtype == np.float32 and q.grad.dtype == np.float64


def test_clipping_keeps_dtypes_that_are_not_the_parameters():
    p, q = given(np.full(2, 3.0, np.float32), np.full(2, 4.0, np.float32))
    q.grad = nt.tensor(np.full(2, 4.0))
    optim.clip_grad_norm_([p, q], 1.0)
    assert p.grad.dtype == np.float32 and q.grad.dtype == np.float64
    np.testing.assert_allclose(p.grad.numpy(), np.full(2, 3.0 / math.sqrt(50.0)), rtol=1e-6)


# ---- traced -------------------------------------------------------------------------------


def training(kind, settings):
    nt.random.seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = kind(model.parameters(), **settings)

    def train_step(x, target):
        loss = nn.CrossEntropyLoss()(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return model, optimizer, train_step


X, TARGET = np.ones((2, 4), np.float32), np.array([0, 2])


def same(tensors, others) -> bool:
    return {id(t) for t in tensors} == {id(t) for t in others}


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_traced_step_updates_parameters_and_state(kind, settings):
    model, optimizer, train_step = training(kind, settings)
    before = optimizer.state_dict()
    traced = nt.trace(train_step, X, TARGET)
    verify(traced.graph)
    moments = [m for parts in optimizer.bundles for bundle in parts for m in bundle.moments]
    assert same(traced.targets, [*model.parameters(), optimizer.steps, *moments])
    assert any(source is optimizer.lr for source in traced.captured)
    assert {n.origin.module for n in traced.graph.nodes} >= {"0", "2", "optimizer"}
    for name, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_traced_step_keeps_single_precision_on_arrays():
    _, _, train_step = training(optim.AdamW, {"lr": 0.1, "weight_decay": 0.1})
    graph = nt.trace(train_step, X, TARGET).graph
    assert all(n.dtype != np.float64 for n in graph.nodes if n.shape)


def test_a_schedule_is_part_of_the_traced_step():
    schedule = optim.schedules.warmup_cosine(0.1, 5, 10)
    _, optimizer, train_step = training(optim.AdamW, {"lr": schedule})
    traced = nt.trace(train_step, X, TARGET)
    assert any(target is optimizer.lr for target in traced.targets)
    assert "cos" in {n.op.name for n in traced.graph.nodes}


def test_settings_are_watched_and_rates_are_not():
    _, optimizer, train_step = training(optim.AdamW, {"lr": 0.1})
    traced = nt.trace(train_step, X, TARGET)
    optimizer.lr = 0.2
    train_step(X, TARGET)
    # Eager training leaves gradients, which is another matter.
    optimizer.zero_grad()
    assert all(watch.holds() for watch in traced.watches)
    optimizer.betas = (0.8, 0.9)
    optimizer.groups[0].weight_decay = 0.5
    assert [w.what for w in traced.watches if not w.holds()] == [
        "optimizer.betas",
        "optimizer.groups.0.weight_decay",
    ]


def test_training_lowers_the_loss():
    for kind, settings in [(optim.SGD, {"lr": 0.5, "momentum": 0.9}), (optim.AdamW, {"lr": 0.1})]:
        _, _, train_step = training(kind, settings)
        losses = [train_step(X, TARGET).item() for _ in range(20)]
        assert losses[-1] < losses[0]


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_compiled_steps_equal_eager_ones_bit_for_bit(kind, settings):
    runs = []
    for wrap in (lambda step: step, lambda step: nt.compile(step, exact=True)):
        model, optimizer, train_step = training(kind, settings)
        step = wrap(train_step)
        losses = []
        for i in range(4):
            optimizer.lr = 0.1 / (i + 1)
            losses.append(step(X, TARGET).item())
        runs.append((losses, model.state_dict(), optimizer.state_dict()))
    assert len(step.tapes) == 1
    assert runs[0][0] == runs[1][0]
    for eager, compiled in zip(runs[0][1:], runs[1][1:], strict=True):
        for name, array in eager.items():
            np.testing.assert_array_equal(array, compiled[name])
