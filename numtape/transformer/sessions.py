"""Decoding with compiled steps: a model, caches of one shape, and the position that comes next.

The tapes read and fill the caches in place, so that a step moves no more than the ids and the
logits. `decoding` chooses the ids.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from numtape.compiler import compile
from numtape.nn import Module
from numtape.tracer.tensor import Tensor
from numtape.transformer.cache import KeysValues, KeyValueCache, Memory
from numtape.transformer.gpt import GPT
from numtape.transformer.model import Transformer

Caches = tuple[KeyValueCache, ...]


class _Reading(Module):
    """Source ids (B, S) into the memory (B*K, ...) that the steps read."""

    def __init__(self, model: Transformer, memory: Memory) -> None:
        self.model = model
        self.memory = memory
        self.memory_mask = memory.mask
        _name(self, "memory", memory.layers)

    def forward(self, src: Any) -> None:
        rows = self.memory.mask.shape[0] // src.shape[0]
        found = self.model.prepare(src)
        for held, new in zip(_tensors(self.memory), _tensors(found), strict=True):
            held.assign(repeated(new, rows))


class _Translating(Module):
    """`Transformer.step` on the memory and caches of a session."""

    def __init__(self, model: Transformer, memory: Memory, caches: Caches) -> None:
        self.model = model
        self.memory = memory
        self.memory_mask = memory.mask
        self.caches = caches
        _name(self, "memory", memory.layers)
        _name(self, "cache", caches)

    def forward(self, ids: Any, position: Any, order: Any = None) -> Any:
        return self.model.step(ids, position, self.memory, self.caches, order)


class _Continuing(Module):
    """`GPT.step` on the caches of a session."""

    def __init__(self, model: GPT, caches: Caches) -> None:
        self.model = model
        self.caches = caches
        _name(self, "cache", caches)

    def forward(self, ids: Any, position: Any, last: Any = None) -> Any:
        return self.model.step(ids, position, self.caches, last)


def _name(module: Module, kind: str, pairs: Iterable[Any]) -> None:
    """Make the tensors attributes, under whose names they stand in the tape's source."""
    for i, pair in enumerate(pairs):
        setattr(module, f"{kind}_{i}_keys", pair.keys)
        setattr(module, f"{kind}_{i}_values", pair.values)


def _tensors(memory: Memory) -> Iterator[Any]:
    for layer in memory.layers:
        yield from layer
    yield memory.mask


def repeated(x: Any, times: int) -> Any:
    """(B, ...) -> (B * times, ...), each row `times` times in succession."""
    if times == 1:
        return x
    shape = (x.shape[0], times, *x.shape[1:])
    return x.expand_dims(1).broadcast_to(shape).reshape(-1, *x.shape[1:])


class Translation:
    """`sentences` sources of one length with `rows` hypotheses each, up to `length` positions."""

    def __init__(
        self, model: Transformer, sentences: int, rows: int, source_length: int, length: int
    ) -> None:
        c = model.config
        dtype = model.target_embedding.weight.dtype
        batch = sentences * rows
        keys = (batch, c.heads, source_length, c.d_model // c.heads)
        memory = Memory(
            tuple(KeysValues(_zeros(keys, dtype), _zeros(keys, dtype)) for _ in range(c.layers)),
            _zeros((batch, 1, 1, source_length), np.bool_),
        )
        caches = model.new_caches(batch, length)
        self.position = 0
        self._read = compile(_Reading(model, memory))
        self._step = compile(_Translating(model, memory, caches))

    def read(self, sources: np.ndarray) -> None:
        """Begin with the sources (B, S)."""
        self._read(sources)
        self.position = 0

    def logits(self, ids: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
        """(rows, V) after the ids (rows,), each continuing the row that `order` names."""
        position = np.array([self.position])
        self.position += 1
        return self._step(ids[:, None], position, order).numpy()


class Continuation:
    """Texts of a GPT, read into caches of `length` positions."""

    def __init__(self, model: GPT, batch: int, length: int) -> None:
        self.length = length
        self.filled = 0
        self._step = compile(_Continuing(model, model.new_caches(batch, length)))

    def logits(self, text: np.ndarray) -> np.ndarray:
        """(B, vocab) after the text (B, T), whose last id alone is new once it has been read.

        When the caches are full, reading starts again from the latest half.
        """
        if self.filled == 0:
            return self._fill(text[:, -self.length :])
        if self.filled == self.length:
            return self._fill(text[:, -max(self.length // 2, 1) :])
        position = np.array([self.filled])
        self.filled += 1
        return self._step(text[:, -1:], position).numpy()

    def _fill(self, text: np.ndarray) -> np.ndarray:
        """Read from the start, in one pass whose shape does not depend on the text's length."""
        # What stands behind the text is written too, but never seen before it is overwritten.
        ids = np.pad(text, ((0, 0), (0, self.length - text.shape[1])))
        self.filled = text.shape[1]
        return self._step(ids, np.array([0]), np.array([self.filled - 1])).numpy()


def _zeros(shape: Sequence[int], dtype: Any) -> Tensor:
    return Tensor(np.zeros(shape, dtype))


@contextmanager
def translating(
    model: Transformer, sources: np.ndarray, rows: int, length: int
) -> Iterator[Translation]:
    """A session that has read the sources (B, S), from the model's pool or new."""
    ids = _rounded(sources, model.config.pad, model.config.max_length)
    shape = (len(ids), rows, ids.shape[1], length)
    key = (*shape, model.target_embedding.weight.dtype)
    with model.sessions.lend(key, lambda: Translation(model, *shape)) as session:
        session.read(ids)
        yield session


@contextmanager
def continuing(model: GPT, batch: int, wanted: int, multiple: int = 64) -> Iterator[Continuation]:
    """A session for texts of `wanted` ids in the end, from the model's pool or new."""
    # Rounded up, so that texts of different lengths share a session.
    length = min(model.config.context, -(-wanted // multiple) * multiple)
    key = (batch, length, model.embedding.weight.dtype)
    with model.sessions.lend(key, lambda: Continuation(model, batch, length)) as session:
        session.filled = 0
        yield session


def _rounded(sources: np.ndarray, pad: int, longest: int, multiple: int = 8) -> np.ndarray:
    """Padded to a multiple, so that batches of different lengths share a session."""
    length = sources.shape[1]
    wanted = min(-(-length // multiple) * multiple, longest)
    return np.pad(sources, ((0, 0), (0, wanted - length)), constant_values=pad)
