"""What tests share: checks against NumPy, finite differences, layouts, an interpreter."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import numtape as nt
from numtape.ir.graph import Graph, Value, replay
from numtape.tracer.recorder import evaluate
from numtape.tracer.tensor import Tensor

Arrays = Sequence[np.ndarray]


def is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


def differences(function: Callable[..., float], arrays: Arrays, position: int) -> np.ndarray:
    """The gradient of a scalar function for one of its arrays, by central differences."""
    step = 1e-5
    moved = [a.copy() for a in arrays]
    found = np.zeros_like(moved[position])
    for place in np.ndindex(found.shape):
        here = arrays[position][place]
        moved[position][place] = here + step
        above = function(*moved)
        moved[position][place] = here - step
        found[place] = (above - function(*moved)) / (2 * step)
        moved[position][place] = here
    return found


def layouts(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same entries behind other strides; the repeated one has entries of its own."""
    yield "transposed", np.ascontiguousarray(array.T).T
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    yield "stepped", wide[..., ::2]
    yield "reversed", array[::-1].copy()[::-1]
    yield "repeated", np.broadcast_to(array[:1].copy(), array.shape)


def run_graph(graph: Graph, inputs: Arrays) -> list[np.ndarray]:
    """The results of a graph (outputs, then updates), node by node by the ops' own kernels."""

    def run(node: Value, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        if node.is_constant:
            return np.asarray(node.attrs["value"], node.dtype)
        if node.op.expand is None:
            return evaluate(node.op, arrays, [v.type for v in node.inputs], node.attrs)[0]
        return node.op.expand(*map(Tensor, arrays), **node.attrs).numpy()

    known = replay(graph, inputs, run)
    return [known[v] for v in graph.results]


def drawn(*shape):
    return np.random.default_rng(len(shape) + sum(shape)).uniform(-2, 2, shape)


def same(found, expected, tolerance=1e-12):
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found.numpy(), expected, rtol=tolerance, atol=tolerance)


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis, by NumPy alone."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def check(function, reference, *arrays):
    """Value against NumPy, gradient against finite differences."""
    same(function(*map(nt.Tensor, arrays)), reference(*arrays))
    check_gradient(function, *arrays)


def check_gradient(function, *arrays):
    weights = drawn(*function(*map(nt.Tensor, arrays)).shape)
    weighted = lambda *xs: (function(*xs) * nt.Tensor(weights)).sum()
    found = nt.grad(weighted, range(len(arrays)))(*map(nt.Tensor, arrays))
    value = lambda *moved: weighted(*map(nt.Tensor, moved)).item()
    for i, g in enumerate(found):
        np.testing.assert_allclose(g.numpy(), differences(value, arrays, i), rtol=1e-6, atol=1e-8)


def check_slopes(model: Any, loss: Callable[[], Tensor], places: int, absolute: float) -> None:
    """Gradients of a float64 model at random places against central differences of its loss."""
    loss().backward()
    rng = np.random.default_rng(0)
    parameters = list(model.named_parameters())
    for i in rng.choice(len(parameters), places, replace=False):
        name, parameter = parameters[i]
        place = tuple(int(rng.integers(n)) for n in parameter.shape)
        values = []
        with nt.no_grad():
            for step in (1e-6, -1e-6):
                parameter.numpy()[place] += step
                values.append(loss().item())
                parameter.numpy()[place] -= step
        slope = (values[0] - values[1]) / 2e-6
        found = parameter.grad.numpy()[place]
        assert found == pytest.approx(slope, rel=1e-4, abs=absolute), (name, place)


def parameter(*values: float) -> Tensor:
    """A float64 vector that wants a gradient."""
    return nt.Tensor(np.array(values, np.float64), requires_grad=True)


def training_step(weight, optimizer, clear):
    def step(x):
        loss = (x * weight).sum()
        if clear:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def written(graph):
    """The text of a graph without the notes at its ends."""
    lines = [line.split("   #")[0].strip() for line in str(graph).splitlines()]
    return [line for line in lines if " = input " not in line][1:]


def lines_of(function):
    """The numbers of its lines."""
    return [line for *_, line in function.__code__.co_lines() if line]


def last_line(function):
    """How an error names it."""
    return f"{function.__code__.co_filename}:{max(lines_of(function))}"
