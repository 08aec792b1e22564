"""What goes wrong when a function is traced once and replayed: each trap is a test.

A compiled function either does what the eager one does, or raises an error that names the line.
"""

from functools import partial

import numpy as np
import pytest
from helpers import lines_of, parameter

import numtape as nt
from numtape import nn, optim

ONES = np.ones(3)


# ---- numbers ------------------------------------------------------------------------------


def test_float_arguments_are_given_at_each_call():
    scale = nt.compile(lambda x, factor: x * factor)
    assert scale(ONES, 2.0).tolist() == [2.0, 2.0, 2.0]
    assert scale(ONES, 3.0).tolist() == [3.0, 3.0, 3.0]
    assert len(scale.tapes) == 1


def test_float_arguments_take_the_dtype_they_meet():
    scale = nt.compile(lambda x, factor: x * factor + factor)
    assert scale(np.ones(2, np.float32), 0.1).dtype == np.float32
    assert scale(np.ones(2), 0.1).tolist() == [0.1 + 0.1] * 2


def test_integer_arguments_are_static():
    repeat = nt.compile(lambda x, n: nt.concatenate([x] * n))
    assert [repeat(ONES, n).shape for n in (2, 3, 2)] == [(6,), (9,), (6,)]
    assert len(repeat.tapes) == 2


def test_integers_floats_and_booleans_are_told_apart():
    add = nt.compile(lambda x, y: x + y)
    counts = np.arange(3)
    found = [add(counts, y).dtype for y in (1, 1.0, True)]
    assert found == [np.int64, np.float32, np.int64]


def test_strings_and_none_are_static():
    choose = nt.compile(lambda x, mode=None: -x if mode == "minus" else x)
    assert choose(ONES).tolist() == choose(ONES, "plus").tolist() == [1.0, 1.0, 1.0]
    assert choose(ONES, "minus").tolist() == [-1.0, -1.0, -1.0]


# ---- what has no value while tracing ------------------------------------------------------


def branch(x):
    return x if x.sum() > 0 else -x


def loop(x):
    for _ in range(x.argmax()):
        x = x * 2
    return x


READS = {
    "branch": (branch, "where"),
    "loop": (loop, "take"),
    "bool": (lambda x: bool(x.sum()), "where"),
    "float": (lambda x: float(x.sum()), "return it"),
    "int": (lambda x: int(x.sum()), "return it"),
    "item": (lambda x: x.sum().item(), "return it"),
    "tolist": (lambda x: x.tolist(), "return it"),
    "numpy": (lambda x: x.numpy(), "return it"),
    "data": (lambda x: x.data, "return it"),
    "asarray": (lambda x: np.asarray(x), "return it"),
    "format": (lambda x: f"{x.sum():.2f}", "return it"),
    "index": (lambda x: [1, 2][x.argmax()], "take"),
}


@pytest.mark.parametrize("function, way_out", READS.values(), ids=READS)
def test_reading_a_traced_tensor(function, way_out):
    with pytest.raises(nt.TraceError, match=way_out) as error:
        nt.compile(function)(ONES)
    assert any(f"test_traps.py:{line}:" in str(error.value) for line in lines_of(function))


def test_errors_tell_where_a_tensor_comes_from():
    escaped = []

    def keep(x):
        escaped.extend((x, x * 2))
        return x

    nt.compile(keep)(ONES)
    computed = rf"\(f64\[3\], computed at test_traps\.py:{lines_of(keep)[1]}\)"
    for tensor, source in zip(escaped, (r"\(f64\[3\], an input\)", computed), strict=True):
        with pytest.raises(nt.TraceError, match=source):
            tensor + 1
    with pytest.raises(nt.TraceError, match=r"decide by a tensor \(f64\[3\], an input\), because"):
        nt.compile(lambda x: x or x)(ONES)


OUTSIDE = nt.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    "function",
    [
        lambda: OUTSIDE.data,
        lambda: OUTSIDE.numpy(),
        lambda: OUTSIDE.tolist(),
        lambda: np.asarray(OUTSIDE),
        lambda: OUTSIDE if OUTSIDE[0] else -OUTSIDE,
    ],
)
def test_reading_a_captured_tensor(function):
    with pytest.raises(nt.TraceError, match=r"test_traps\.py"):
        nt.compile(function)()


def test_mask_as_index():
    with pytest.raises(TypeError, match="where"):
        nt.compile(lambda x: x[x > 0])(ONES)


def test_tensor_with_a_history_from_outside():
    doubled = parameter(1.0, 2.0, 3.0) * 2
    plain = doubled.detach()
    with pytest.raises(nt.TraceError, match="argument"):
        nt.compile(lambda x: x * doubled)(ONES)
    assert nt.compile(lambda x: x * plain)(ONES).tolist() == [2.0, 4.0, 6.0]


def test_tensor_that_escapes_from_a_trace():
    escaped = []

    def double(x):
        escaped.append(x * 2)
        return x

    nt.compile(double)(ONES)
    for use in (lambda t: t + 1, lambda t: t.numpy(), nt.compile(lambda t: t * 2)):
        with pytest.raises(nt.TraceError, match=r"return it .*instead of storing"):
            use(escaped[0])
    with pytest.raises(nt.TraceError):
        nt.compile(lambda: escaped[0] + 1)()
    assert "traced" in repr(escaped[0])


# ---- objects and dtypes -------------------------------------------------------------------


def test_a_compiled_method_needs_a_place():
    class Slotted:
        __slots__ = ("weight",)

        @nt.compile
        def scale(self, x):
            return x * 2

    class Open(Slotted):
        __slots__ = ("__dict__",)

    with pytest.raises(TypeError, match=r'test_traps\.py.* a Slotted has not; add "__dict__" to'):
        Slotted().scale(ONES)
    assert Open().scale(ONES).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.skipif(np.longdouble(0).itemsize == 8, reason="the same as float64")
@pytest.mark.parametrize("make", [nt.Tensor, nt.tensor, nt.compile(lambda x: x * 2)])
def test_floats_of_other_sizes(make):
    with pytest.raises(TypeError, match=r"holds floats \(32, 64\), .* not float(96|128)"):
        make(np.ones(3, np.longdouble))


# ---- what a trace would swallow -----------------------------------------------------------


def swallows(x):
    try:
        if x.sum() > 0:
            return x
    except TypeError:
        pass
    return x * 0.0


@pytest.mark.parametrize("look", [lambda k: {0.5: 2.0}.get(k, 1.0), lambda k: len({k, 0.5})])
def test_a_float_is_no_key(look):
    with pytest.raises(nt.TraceError, match="a Python float is an input"):
        nt.compile(lambda x, k: x * look(k))(ONES, 0.5)
    assert nt.compile(lambda x, k: x * len({k: 1}))(ONES, 2).tolist() == [1.0] * 3


def test_an_error_that_the_function_catches_is_raised_at_the_end():
    with pytest.raises(nt.TraceError, match="cannot decide by") as error:
        nt.compile(swallows)(ONES)
    assert f"{__file__}:{lines_of(swallows)[2]}" in str(error.value)


def sets_an_entry(x, given):
    given["new"] = x
    return x


def exchanges_an_entry(x, given):
    given["old"] = x * 2.0
    return x


def appends(x, given):
    given["list"].append(x)
    return x


def takes_out(x, given):
    return x * given["list"].pop()


@pytest.mark.parametrize("function", [sets_an_entry, exchanges_an_entry, appends, takes_out])
def test_containers_that_are_given_do_not_change(function):
    given = {"old": ONES, "list": [ONES, ONES]}
    with pytest.raises(nt.TraceError, match="changes what is in its argument given"):
        nt.compile(function)(ONES, given)
    assert list(given) == ["old", "list"]
    assert len(given["list"]) == 2


class Output:
    def __init__(self, loss):
        self.loss = loss


@pytest.mark.parametrize("make", [Output, lambda x: [Output(x)], lambda x: partial(print, x)])
def test_objects_that_hide_tensors_are_no_results(make):
    weight = parameter(1.0)
    with pytest.raises(nt.TraceError, match="whose tensors have no values outside the trace"):
        nt.compile(lambda x: (weight.assign(weight + 1.0), make(x))[1])(ONES)
    assert weight.tolist() == [1.0]
    assert nt.compile(lambda x: (x, Output("text")))(ONES)[1].loss == "text"


def test_a_module_made_while_tracing():
    x = np.ones((2, 8), np.float32)
    with pytest.raises(nt.TraceError, match="make modules and parameters outside of it"):
        nt.compile(lambda x: nn.Linear(8, 4)(x))(x)


def grows(x):
    fresh = nt.Tensor(np.zeros(3))
    fresh.assign(fresh + x)
    return fresh


def steps_anew(x):
    weight = parameter(1.0)
    optimizer = optim.Adam([weight])
    (weight * x).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("function, name", [(grows, "captured"), (steps_anew, "optimizer")])
def test_state_that_the_function_makes_anew_is_not_kept_from_call_to_call(function, name):
    with pytest.raises(
        nt.TraceError, match=rf"test_traps.py:\d+: .*{name}.* every call makes anew"
    ):
        nt.compile(function)(ONES)


class Filling:
    total = None

    def __call__(self, x):
        if self.total is None:
            self.total = nt.Tensor(np.zeros(3))
        self.total.assign(self.total + x)
        return self.total * 1.0


def test_state_that_the_first_call_makes_is_kept():
    compiled = nt.compile(Filling())
    assert [compiled(ONES).tolist()[0] for _ in range(3)] == [1.0, 2.0, 3.0]
