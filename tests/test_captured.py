"""What a compiled function closes over or sets may change, and the next call sees it."""

import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import parameter

import numtape as nt
from numtape import nn, optim

ONES = np.ones(3)
FACTOR = 2.0


# ---- what a function closes over ----------------------------------------------------------


def test_global_number_changes(monkeypatch):
    scale = nt.compile(lambda x: x * FACTOR)
    assert scale(ONES).tolist() == [2.0, 2.0, 2.0]
    monkeypatch.setitem(globals(), "FACTOR", 5.0)
    assert scale(ONES).tolist() == [5.0, 5.0, 5.0]
    assert "FACTOR changed" in scale.explain()


@pytest.mark.parametrize(
    "old, new", [(2.0, 5.0), (2, 2.5), (np.ones(3), 3 * np.ones(3)), (nt.ones(3), 4 * nt.ones(3))]
)
def test_closure_variable_changes(old, new):
    held = old
    scale = nt.compile(lambda x: x * held)
    before = scale(ONES).numpy()
    held = new
    after = scale(ONES).numpy()
    assert np.array_equal(before, ONES * np.asarray(old))
    assert np.array_equal(after, ONES * np.asarray(new))


@pytest.mark.parametrize("make", [list, dict, SimpleNamespace])
@pytest.mark.parametrize("old, new", [(2.0, 5.0), (nt.ones(3), nt.zeros(3))])
def test_content_of_a_container_changes(make, old, new):
    if make is list:
        held = [old]
        scale, change = nt.compile(lambda x: x * held[0]), partial(held.__setitem__, 0)
    elif make is dict:
        held = {"a": old}
        scale, change = nt.compile(lambda x: x * held["a"]), partial(held.__setitem__, "a")
    else:
        held = SimpleNamespace(a=old)
        scale, change = nt.compile(lambda x: x * held.a), partial(setattr, held, "a")
    scale(ONES)
    change(new)
    assert np.array_equal(scale(ONES).numpy(), ONES * np.asarray(new))


def test_attribute_of_the_object_whose_method_is_compiled():
    class Scaler:
        kind = "plus"

        def __init__(self):
            self.factor, self.calls = 2.0, 0

        def inner(self, x):
            return x * self.factor if self.kind == "plus" else -x

        def __call__(self, x):
            return self.inner(x)

    scaler = Scaler()
    scale = nt.compile(scaler.__call__)
    scale(ONES)
    scaler.calls += 1  # not mentioned in the function
    scale(ONES)
    assert len(scale.misses) == 1
    scaler.factor = 7.0
    assert scale(ONES).tolist() == [7.0, 7.0, 7.0]
    scaler.kind = "minus"
    assert scale(ONES).tolist() == [-1.0, -1.0, -1.0]


def test_function_called_from_the_function_changes():
    factor = 2.0

    def scaled(x):
        return x * factor

    inner = scaled

    def double(x):
        return inner(x)

    compiled = nt.compile(double)
    compiled(ONES)
    factor = 3.0
    assert compiled(ONES).tolist() == [3.0, 3.0, 3.0]
    inner = lambda x: x + 10.0
    assert compiled(ONES).tolist() == [11.0, 11.0, 11.0]


def test_log_that_the_function_keeps_is_no_reason_to_trace_again():
    log = []

    def double(x):
        log.append("traced")
        return x * 2

    compiled = nt.compile(double)
    for _ in range(3):
        compiled(ONES)
    assert log == ["traced"]


def test_captured_array_is_read_at_each_call():
    table = np.zeros(3)
    add = nt.compile(lambda x: x + table)
    add(ONES)
    table[1] = 5.0
    assert add(ONES).tolist() == [1.0, 6.0, 1.0]
    assert len(add.tapes) == 1


def test_captured_tensor_is_read_at_each_call():
    weight = parameter(1.0, 1.0, 1.0)
    scale = nt.compile(lambda x: x * weight)
    scale(ONES)
    weight.assign(2 * ONES)
    assert scale(ONES).tolist() == [2.0, 2.0, 2.0]
    assert len(scale.tapes) == 1


def test_loaded_state_and_eager_optimizer_are_seen():
    model = nn.Linear(3, 2)
    compiled = nt.compile(model)
    x = nt.Tensor(np.ones((4, 3), np.float32))
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        assert np.allclose(compiled(x).numpy(), model(x).numpy(), rtol=1e-6)
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
    model.load_state_dict({n: np.zeros_like(a) for n, a in model.state_dict().items()})
    assert not compiled(x).numpy().any()
    assert len(compiled.tapes) == 1


def test_train_and_eval_mode():
    dropout = nn.Dropout(0.5)
    compiled = nt.compile(dropout)
    x = np.ones(64, np.float32)
    assert (compiled(x).numpy() == 0).any()
    dropout.eval()
    assert (compiled(x).numpy() == 1).all()
    dropout.train()
    assert (compiled(x).numpy() == 0).any()
    assert "training changed" in compiled.explain()


def test_requires_grad_changes():
    weight = parameter(1.0, 2.0, 3.0)
    total = nt.compile(lambda x: (x * weight).sum())
    assert total(ONES).requires_grad
    weight.requires_grad = False
    assert not total(ONES).requires_grad
    weight.requires_grad = True
    total(ONES).backward()
    assert weight.grad.tolist() == [1.0, 1.0, 1.0]
    with nt.no_grad():
        assert not total(ONES).requires_grad


# ---- what the function itself changes -----------------------------------------------------


class Keeper(nn.Module):
    def __init__(self):
        self.count = 0
        self.last = None
        self.ready = False

    def forward(self, x):
        return x * self.count


class Counting(Keeper):
    def forward(self, x):
        self.count += 1
        return x * self.count


class Caching(Keeper):
    def forward(self, x):
        factor = 2 if self.last is None else 3
        self.last = x * factor
        return self.last


class Lazy(Keeper):
    def forward(self, x):
        factor = 3 if self.ready else 2
        self.ready = True
        return x * factor


def test_counter_that_the_function_keeps():
    step = nt.compile(nn.Sequential(Counting()))
    with pytest.raises(nt.TraceError, match=r"its own setting \S*count from 0 to 1, which a tape"):
        step(ONES)


@pytest.mark.parametrize("kind", [Caching, Lazy])
def test_cache_or_flag_that_the_function_sets(kind):
    eager, compiled = kind(), nt.compile(kind())
    for _ in range(5):
        assert compiled(ONES).tolist() == eager(nt.Tensor(ONES)).tolist()
    assert len(compiled.misses) == 2


@pytest.mark.parametrize("training", [True, False])
def test_mode_that_the_function_changes_and_puts_back(training):
    model = nn.Sequential(nn.Dropout(0.5)).train(training)

    @nt.compile
    def both(x):
        model.eval()
        plain = model(x)
        return plain, model.train(training)(x)

    x = np.ones(64, np.float32)
    for _ in range(3):
        plain, other = both(x)
        assert plain.numpy().all()
        assert other.numpy().all() != training
    assert len(both.misses) == 1


def test_mode_that_the_function_leaves_changed():
    model = nn.Sequential(nn.Dropout(0.5))
    evaluate = nt.compile(lambda x: model.eval()(x))
    for mode in (True, True, False, True):
        model.train(mode)
        assert evaluate(np.ones(64, np.float32)).numpy().all()
        assert not model[0].training


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: [x]], ids=["tensor", "list"])
def test_state_that_the_function_replaces(kind):
    module = Keeper()
    module.last = kind(nt.Tensor(ONES))

    @nt.compile
    def step(x):
        old = module.last[0] if isinstance(module.last, list) else module.last
        module.last = kind(module(x) + old)
        return old * 1

    step(ONES)
    with pytest.raises(nt.TraceError, match="belongs to a traced function that has ended"):
        step(ONES)


def test_setting_changed_by_another_thread_while_tracing():
    module = Keeper()

    def forward(x):
        y = module(x)
        other = threading.Thread(target=setattr, args=(module, "last", "changed"))
        other.start()
        other.join()
        return y

    step = nt.compile(forward)
    step(ONES)
    step(ONES)
    assert len(step.misses) == 2


class Swaps(nn.Module):
    def __init__(self):
        self.now, self.then = nt.tensor(ONES), nt.tensor(2 * ONES)

    def forward(self, x):
        self.now, self.then = self.then, self.now
        return x * self.then


def test_tensors_that_the_function_exchanges():
    with pytest.raises(nt.TraceError, match=r"exchanges the tensor \S*(now|then) for another"):
        nt.compile(Swaps())(ONES)
