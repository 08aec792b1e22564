"""Runs of a tape over memory and state that nobody else sees, for profiles and checks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np

from numtape.runtime.arena import reserve
from numtape.runtime.tape import Tape, explain

POISON = 0xFF  # a byte; floats made of it are NaN


class Runs:
    """Runs of a tape on arguments given in the order of its inputs.

    The late inputs of a reverse tape, which follow the arguments, are ones if not given.
    """

    def __init__(self, tape: Tape, arguments: Sequence[Any]) -> None:
        self._tape = tape
        self._arguments = arguments
        self._blocks = reserve(tape.memory.arena), reserve(tape.memory.constants)
        updated = {v for v, _ in tape.graph.updates}
        given = zip(tape.plan.outside, tape.captured, strict=True)
        self._state = {v: (a, _twin(a) if v in updated else a) for v, a in given}
        self._bound: dict[Callable[..., tuple], tuple] = {}

    def run(
        self, bind: Callable[..., tuple], filename: str, start: Callable[[], None] = lambda: None
    ) -> float:
        """Seconds of a run of both tapes from the state and arguments as they are outside."""
        places, _, *tapes = self._ready(bind)
        self._give(places, range(len(places)))
        start()
        begun = perf_counter()
        with _explained(filename):
            for step in filter(None, tapes):
                step()
        return perf_counter() - begun

    def results(self, bind: Callable[..., tuple], filename: str) -> list[np.ndarray]:
        """The outputs of a run, then what the updates store, for calls of both tapes in turn.

        The arena begins as NaN, so that nothing left over from before can serve.
        """
        graph = self._tape.graph
        self._blocks[0].fill(POISON)
        places, outputs, *tapes, second = self._ready(bind)
        inputs, early = graph.early or (len(graph.inputs), len(outputs))
        early_places = len(places) - (len(graph.inputs) - inputs)
        self._give(places, range(early_places))
        with _explained(filename):
            for step in filter(None, tapes):
                step()
            found = [a.copy() for a in outputs[:early]]
            self._give(places, range(early_places, len(places)))
            if second is not None:
                second()
        found += [a.copy() for a in outputs[early:]]
        return [*found, *(self._state[old][1].copy() for old, _ in graph.updates)]

    def _ready(self, bind: Callable[..., tuple]) -> tuple:
        """The tapes of `bind`, with the state as it is outside."""
        if bind not in self._bound:
            self._bound[bind] = bind(*self._blocks, *(own for _, own in self._state.values()))
        for array, own in self._state.values():
            if own is not array:
                np.copyto(own, array)
        return self._bound[bind]

    def _give(self, places: Sequence[np.ndarray], numbers: range) -> None:
        for i in numbers:
            places[i][...] = self._arguments[i] if i < len(self._arguments) else 1


@contextmanager
def _explained(filename: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        explain(error, filename)
        raise


def _twin(array: np.ndarray) -> np.ndarray:
    """Memory of its own in the same layout."""
    low, high = np.lib.array_utils.byte_bounds(array)
    offset = array.__array_interface__["data"][0] - low
    return np.ndarray(array.shape, array.dtype, reserve(high - low), offset, array.strides)
