"""Runs of a tape over memory and state that nobody else sees, for profiles and checks."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np

from numtape.ir.graph import Value
from numtape.ir.memory import address, holder, reserve
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
        given = dict(zip(tape.plan.outside, tape.captured, strict=True))
        self._state = _twins(given, updated)
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


def _twins(
    given: Mapping[Value, np.ndarray], updated: Collection[Value]
) -> dict[Value, tuple[np.ndarray, np.ndarray]]:
    """Each array with what a run works on: where it is updated, a copy laid out as it is.

    What lies in one block does so in the copies as well: a tape may take it for one array.
    """
    blocks: dict[int, np.ndarray] = {}
    for v in updated:
        if v in given:
            held = holder(given[v])
            low, high = np.lib.array_utils.byte_bounds(held)
            blocks.setdefault(id(held), reserve(high - low))
    return {v: (a, _moved(a, blocks.get(id(holder(a))))) for v, a in given.items()}


def _moved(array: np.ndarray, block: np.ndarray | None) -> np.ndarray:
    """The array as it would lie in another block."""
    if block is None:
        return array
    low, _ = np.lib.array_utils.byte_bounds(holder(array))
    return np.ndarray(array.shape, array.dtype, block, address(array) - low, array.strides)
