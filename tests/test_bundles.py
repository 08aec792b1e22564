"""Small parameters are updated together; nobody else can tell."""

import copy

import numpy as np
import pytest

import numtape as nt
from numtape import nn, optim
from numtape.tracer.moving import are_end_to_end

X = np.linspace(-1.0, 1.0, 8, dtype=np.float32).reshape(2, 4)


def setting(kind=optim.AdamW, **settings):
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    for i, p in enumerate(model.parameters()):
        p.data = np.linspace(-1.0, 1.0 + i, p.size, dtype=np.float32).reshape(p.shape)
    return model, kind(model.parameters(), lr=0.1, **settings)


def a_step(model, optimizer):
    def step(x):
        loss = (model(x) * model(x)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def gradients(model, chosen=range(4)):
    for i, p in enumerate(model.parameters()):
        p.grad = nt.tensor(np.full(p.shape, 0.5 - i, np.float32)) if i in chosen else None


def test_small_parameters_share_one_tensor_for_each_moment():
    model, optimizer = setting()
    ((bundle,),) = optimizer.bundles
    assert [m.shape for m in bundle.moments] == [(sum(p.size for p in model.parameters()),)] * 2


def test_the_update_is_that_of_each_parameter_by_itself():
    together, optimizer = setting()
    apart, _ = setting()
    others = [optim.AdamW([p], lr=0.1) for p in apart.parameters()]
    for _ in range(3):
        gradients(together)
        gradients(apart)
        optimizer.step()
        for other in others:
            other.step()
    for p, q in zip(together.parameters(), apart.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


@pytest.mark.parametrize("chosen", [(0,), (1, 3), (0, 1, 2, 3), ()])
def test_what_has_no_gradient_stays_with_its_moments(chosen):
    model, optimizer = setting()
    gradients(model)
    optimizer.step()
    before, values = optimizer.state_dict(), [p.numpy().copy() for p in model.parameters()]
    gradients(model, chosen)
    optimizer.step()
    after = optimizer.state_dict()
    for i, (p, old) in enumerate(zip(model.parameters(), values, strict=True)):
        changed = [not np.array_equal(p.numpy(), old)]
        changed += [
            not np.array_equal(before[f"{name}.{i}"], after[f"{name}.{i}"])
            for name in optimizer.moments
        ]
        assert changed == [i in chosen] * 3


def test_a_loaded_state_is_what_the_next_step_starts_from():
    model, optimizer = setting()
    gradients(model)
    optimizer.step()
    other, fresh = setting()
    other.load_state_dict(model.state_dict())
    fresh.load_state_dict(optimizer.state_dict())
    for m, o in ((model, optimizer), (other, fresh)):
        gradients(m)
        o.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_a_copy_goes_its_own_way():
    pair = setting()
    gradients(pair[0])
    pair[1].step()
    model, optimizer = copy.deepcopy(pair)
    before = pair[1].state_dict()
    gradients(model)
    optimizer.step()
    assert all(np.array_equal(a, before[name]) for name, a in pair[1].state_dict().items())
    assert not np.array_equal(optimizer.state_dict()["first_moment.0"], before["first_moment.0"])


def test_moments_read_after_a_compiled_step_are_those_of_an_eager_one():
    def run(compiled: bool):
        model, optimizer = setting()
        step = a_step(model, optimizer)
        function = nt.compile(step, exact=True) if compiled else step
        views = optimizer.state_tensors()
        for _ in range(3):
            function(nt.tensor(X))
        return {name: view.numpy().copy() for name, view in views.items()}

    eager, replayed = run(False), run(True)
    assert eager.keys() == replayed.keys()
    for name, array in eager.items():
        np.testing.assert_array_equal(replayed[name], array)


# ---- one block of memory ------------------------------------------------------------------


def test_parameters_lie_end_to_end_and_a_compiled_step_copies_none():
    model, optimizer = setting()
    ((bundle,),) = optimizer.bundles
    assert are_end_to_end(bundle.parameters)
    compiled = nt.compile(a_step(model, optimizer))
    compiled(nt.tensor(X))
    (tape,) = compiled.tapes
    assert tape.source.count("end_to_end(") == 1
    assert "np.copyto" not in tape.source
    assert are_end_to_end(bundle.parameters)


def test_clipped_gradients_are_joined_once():
    model, optimizer = setting()

    def step(x):
        (model(x) * model(x)).sum().backward()
        optim.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()

    source = nt.compile(step).tape(nt.tensor(X)).source
    assert source.count(" join(") == 1
    assert "np.copyto" not in source


def test_a_second_optimizer_finds_them_where_they_are():
    model, first = setting()
    arrays = [p.numpy() for p in model.parameters()]
    second = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ((bundle,),) = second.bundles
    assert len(bundle.parameters) == len(arrays) == len(first.parameters)
    for p, array in zip(model.parameters(), arrays, strict=True):
        assert p.numpy() is array


def test_an_array_that_somebody_holds_stays_the_parameters_own():
    model = nn.Linear(4, 3)
    held = model.weight.numpy()
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    step = nt.compile(a_step(model, optimizer))
    before = held.copy()
    step(nt.tensor(X))
    assert model.weight.numpy() is held
    assert not np.array_equal(held, before)


def test_a_tape_from_before_the_optimizer_sees_its_updates():
    model = nn.Linear(4, 3)
    predict = nt.compile(model)
    predict(nt.tensor(X))
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    nt.compile(a_step(model, optimizer))(nt.tensor(X))
    np.testing.assert_array_equal(predict(nt.tensor(X)).numpy(), model(nt.tensor(X)).numpy())


def test_a_copy_steps_as_its_original_does():
    model, optimizer = setting()
    twin, its_optimizer = copy.deepcopy((model, optimizer))
    for pair in ((model, optimizer), (twin, its_optimizer)):
        step = nt.compile(a_step(*pair), exact=True)
        step(nt.tensor(X))
        assert step.tapes[0].plan.joins
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
        assert not np.shares_memory(p.numpy(), q.numpy())
