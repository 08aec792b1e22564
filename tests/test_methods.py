"""`@nt.compile` on a method: a compiled function for each object."""

import copy
import gc
import weakref

import numpy as np

import numtape as nt
from numtape import nn

X = np.ones((2, 3), np.float32)


class Scaled(nn.Module):
    def __init__(self, factor):
        self.factor = factor
        self.inner = nn.Linear(3, 2)

    def forward(self, x):
        return self.inner(x) * self.factor

    @nt.compile
    def apply(self, x):
        return self(x)


class Doubled(Scaled):
    @nt.compile
    def apply(self, x):
        return super().apply(x) * 2.0


def assert_applies(module):
    np.testing.assert_allclose(module.apply(X).numpy(), module(nt.Tensor(X)).numpy(), rtol=1e-6)


def test_objects_have_settings_and_parameters_of_their_own():
    modules = Scaled(2.0), Scaled(3.0)
    for _ in range(2):
        for module in modules:
            assert_applies(module)
    modules[0].factor = 5.0
    modules[1].inner.weight.assign(np.zeros((2, 3)))
    for module in modules:
        assert_applies(module)
    assert [len(module.apply.misses) for module in modules] == [2, 1]


def test_method_that_calls_the_one_it_overrides():
    module = Doubled(2.0)
    expected = 2 * module(nt.Tensor(X)).numpy()
    np.testing.assert_allclose(module.apply(X).numpy(), expected, rtol=1e-6)


def test_copies_compile_for_themselves():
    module = Scaled(2.0)
    module.apply(X)
    for other in (copy.copy(module), copy.deepcopy(module)):
        other.factor = 7.0
        assert_applies(other)
    assert_applies(module)


def test_object_is_freed_with_its_tapes():
    module = Scaled(2.0)
    module.apply(X)
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


def test_static_methods_and_classes_stay_as_they_are():
    class Both:
        double = staticmethod(nt.compile(lambda x: x * 2))

    assert Both.double is Both().double
    assert Both().double(X).tolist() == (2 * X).tolist()
    assert isinstance(Scaled.apply, type(Both.double))
