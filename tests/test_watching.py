"""Whatever a traced function can read may change: the next call sees it, as the eager one does."""

import functools
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

import numtape as nt
from numtape import nn, optim

HERE = sys.modules[__name__]
X = np.ones(2, np.float32)
SCALE = 2.0


class Settings:
    scale = 2.0

    def __init__(self, k=2.0):
        self.k = k

    def apply(self, x):
        return x * self.k

    def __call__(self, x):
        return self.apply(x)

    @property
    def doubled(self):
        return 2 * self.k


class GlobalRead(nn.Module):
    def forward(self, x):
        return x * SCALE


class Holding(nn.Module):
    k = 2.0

    def __init__(self):
        self.settings = Settings()

    def forward(self, x):
        return x * self.settings.k * self.k


def scaled(x):
    return x * SCALE


def multiplied(x, factor):
    return x * factor


def scaled_after(function):
    @functools.wraps(function)
    def wrapper(x):
        return function(x) * SCALE

    return wrapper


def read_k(settings, x):
    return x * settings.k


@pytest.fixture(autouse=True)
def scale(monkeypatch):
    monkeypatch.setattr(HERE, "SCALE", 2.0)
    monkeypatch.setattr(Settings, "scale", 2.0)
    monkeypatch.setattr(Holding, "k", 2.0)


def set_scale():
    HERE.SCALE = 3.0


def variable(first, second, call):
    """A function that calls a variable, and what binds it to another value."""
    held = first

    def change():
        nonlocal held
        held = second

    return lambda x: call(held, x), change


def use(held, x):
    return held(x)


def setting(target, call=use):
    return (lambda x: call(target, x)), (lambda: setattr(target, "k", 3.0))


def array(call):
    values = np.array([2.0, 2.0], np.float32)
    return (lambda x: call(values, x)), (lambda: values.fill(3.0))


def item(container, key, value, call):
    return (lambda x: call(container, x)), (lambda: container.__setitem__(key, value))


def grown():
    chosen = {2.0}
    return (lambda x: x * max(chosen)), (lambda: chosen.add(3.0))


CASES = {
    "a global, by a compiled module": lambda: (GlobalRead(), set_scale),
    "a global, by a module": lambda: (functools.partial(use, GlobalRead()), set_scale),
    "a global, by a module in numtape's": lambda: (nn.Sequential(GlobalRead()), set_scale),
    "a global, by the wrapper of a function": lambda: (
        scaled_after(lambda x: x + 0.0),
        set_scale,
    ),
    "a global, by a function in a dict": lambda: item(
        {"f": GlobalRead()}, "f", Settings(5.0), lambda table, x: table["f"](x)
    ),
    "an attribute of a callable object": lambda: setting(Settings()),
    "an attribute of a compiled object": lambda: (
        (made := Settings()),
        lambda: setattr(made, "k", 3.0),
    ),
    "an attribute behind a property": lambda: setting(Settings(), lambda s, x: x * s.doubled),
    "an attribute read by another function": lambda: setting(Settings(), read_k),
    "an attribute of an object in a list": lambda: (
        (held := [Settings()]) and (lambda x: x * held[0].k),
        lambda: setattr(held[0], "k", 3.0),
    ),
    "a setting of a class": lambda: (
        lambda x: x * Settings.scale,
        lambda: setattr(Settings, "scale", 3.0),
    ),
    "a setting of a module's class": lambda: (Holding(), lambda: setattr(Holding, "k", 3.0)),
    "an attribute of a module's object": lambda: (
        (module := Holding()),
        lambda: setattr(module.settings, "k", 3.0),
    ),
    "another object": lambda: variable(Settings(2.0), Settings(3.0), read_k),
    "another bound method": lambda: variable(Settings(2.0).apply, Settings(3.0).apply, use),
    "another partial call": lambda: variable(
        functools.partial(multiplied, factor=2.0), functools.partial(multiplied, factor=3.0), use
    ),
    "another function of numtape": lambda: variable(nt.exp, nt.tanh, use),
    "an entry of another type": lambda: item([2], 0, 2.5, lambda held, x: x * held[0]),
    "an entry of a set": grown,
    "an array in NumPy's arithmetic": lambda: array(lambda values, x: x * (1 * values)),
    "an entry of an array": lambda: array(lambda values, x: x * values[0]),
}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_change_is_seen(make):
    function, change = make()
    compiled = nt.compile(function)
    for _ in range(2):
        assert compiled(X).tolist() == function(nt.Tensor(X)).tolist()
    assert len(compiled.misses) == 1
    before = compiled(X).tolist()
    change()
    assert compiled(X).tolist() == function(nt.Tensor(X)).tolist() != before
    assert "changed" in compiled.explain()


def test_static_arguments_are_watched():
    settings = Settings()
    scale = nt.compile(read_k)
    assert scale(settings, X).tolist() == [2.0, 2.0]
    settings.k = 3.0
    assert scale(settings, X).tolist() == [3.0, 3.0]
    call = nt.compile(use)
    assert call(scaled, X).tolist() == [2.0, 2.0]
    set_scale()
    assert call(scaled, X).tolist() == [3.0, 3.0]


def test_two_and_two_point_zero_are_told_apart():
    held = [2]
    scale = nt.compile(lambda x: x * held[0])
    counts = np.arange(3)
    assert scale(counts).dtype == np.int64
    held[0] = 2.0
    assert scale(counts).dtype == np.float32


@dataclass
class Batch:
    x: np.ndarray


def test_what_is_read_anew_is_no_reason_to_trace_again():
    table, batch, view = np.ones(2), Batch(np.ones(2)), np.ones(4)
    weight = nt.tensor([1.0, 1.0])
    compiled = nt.compile(lambda b: b.x * table + view[:2] + weight)
    for value in (1.0, 2.0, 3.0):
        for given in (table, view, weight.data):
            given[:] = value
        batch.x = np.full(2, value)
        assert compiled(batch).tolist() == [value * value + 2 * value] * 2
    assert len(compiled.misses) == 1


def test_equal_partial_calls_and_methods_are_no_reason_to_trace_again():
    settings = Settings()
    held = SimpleNamespace(method=settings.apply, call=functools.partial(multiplied, factor=2.0))
    compiled = nt.compile(lambda x: held.method(held.call(x)))
    for _ in range(3):
        assert compiled(X).tolist() == [4.0, 4.0]
        held.method, held.call = settings.apply, functools.partial(multiplied, factor=2.0)
    assert len(compiled.misses) == 1


def test_attribute_read_by_getattr():
    class Settings:
        scale = 2.0

    settings = Settings()
    scaled = nt.compile(lambda x: x * getattr(settings, "scale", 1.0))
    assert scaled(np.ones(2)).tolist() == [2.0, 2.0]
    settings.scale = 3.0
    assert scaled(np.ones(2)).tolist() == [3.0, 3.0]


step, mean = 0, iter([1.0])


def test_variables_with_the_names_of_attributes_are_not_read():
    """`for step in range(...)` at the top of a script, and `optimizer.step()` in a function."""
    global step
    weight = nt.tensor([1.0, 2.0, 3.0], requires_grad=True)
    optimizer = optim.SGD([weight], lr=0.1)

    def train(x):
        loss = (weight * x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    compiled = nt.compile(train)
    for step in range(5):  # noqa: B007
        compiled(np.ones(3, np.float32))
    assert compiled.traces == 1
