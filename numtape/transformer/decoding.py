"""Writing text with a trained model: greedy and beam search for `Transformer`, sampling for `GPT`.

What computes the logits is a compiled session (`sessions`); here is only what chooses the next
ids, in NumPy. All functions run in eval mode without gradients and restore the modes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from numtape.nn import Module
from numtape.tracer.recorder import no_grad
from numtape.tracer.tensor import as_array
from numtape.transformer.checks import as_ids, check_length, check_vocabulary
from numtape.transformer.gpt import GPT
from numtape.transformer.model import Transformer
from numtape.transformer.sessions import continuing, translating


def greedy_decode(
    model: Transformer, src: Any, max_length: int, bos: int = 1, eos: int = 2
) -> list[list[int]]:
    """The likeliest id at each position, sentence by sentence.

    src: integers (B, S), padded with the model's `pad`. Results hold at most `max_length` ids, the
    closing `eos` counted, and come without bos, eos and padding.
    Raises ShapeError, DtypeError or IndexError for sources the model cannot read.
    """
    sources = _checked(model, src, max_length)
    ids = np.full(len(sources), bos)
    finished = np.zeros(len(sources), bool)
    written: list[np.ndarray] = []
    with _evaluating(model), translating(model, sources, 1, max_length) as session:
        while len(written) < max_length and not finished.all():
            ids = np.where(finished, eos, session.logits(ids).argmax(-1))
            finished |= ids == eos
            written.append(ids)
    special = (bos, model.config.pad)
    return [_sentence(row, eos, special) for row in np.stack(written, 1)]


def beam_search(
    model: Transformer,
    src: Any,
    max_length: int,
    beam: int = 5,
    length_penalty: float = 0.6,
    bos: int = 1,
    eos: int = 2,
) -> list[list[int]]:
    """The best of `beam` hypotheses kept at each position; with beam=1 what greedy decoding gives.

    Hypotheses, finished or not, compete by log-likelihood / ((5 + length) / 6)^length_penalty
    (Wu et al., "Google's neural machine translation system", 2016, equation 14). Arguments,
    result and errors as for `greedy_decode`; ValueError for beam < 1 or length_penalty < 0.
    """
    if beam < 1 or length_penalty < 0:
        raise ValueError(f"beam >= 1 and length_penalty >= 0, got {beam} and {length_penalty}")
    sources = _checked(model, src, max_length)
    hypotheses = _Hypotheses(len(sources), beam, length_penalty, bos, eos)
    with _evaluating(model), translating(model, sources, beam, max_length) as session:
        while hypotheses.length < max_length and not hypotheses.settled(max_length):
            logits = session.logits(hypotheses.last, hypotheses.order)
            hypotheses.extend(_log_softmax(logits))
    special = (bos, model.config.pad)
    return [_sentence(row, eos, special) for row in hypotheses.best()]


def generate(
    model: GPT,
    ids: Any,
    tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The text with `tokens` sampled ids appended: integers (T,) or (B, T) give (..., T + tokens).

    temperature: 0 takes the likeliest id each time. top_k: only that many likeliest ids are drawn
    from. The model sees up to its context; when that is full, it goes on from the latest half.
    Raises ValueError for settings out of range and the errors of `GPT.forward` for ids.
    """
    if tokens < 0 or temperature < 0 or (top_k is not None and top_k < 1):
        raise ValueError(
            "tokens >= 0, temperature >= 0 and top_k >= 1 (or None), got "
            f"{tokens}, {temperature} and {top_k}"
        )
    given = as_array(ids)
    text = given[None] if given.ndim == 1 else given
    as_ids(text[:, :1], "text", model.config.context, model.config.vocab)
    check_vocabulary(text, "text", model.config.vocab)
    random = np.random.default_rng(seed)
    with _evaluating(model), continuing(model, len(text), text.shape[1] + tokens) as session:
        for _ in range(tokens):
            chosen = _draw(session.logits(text), temperature, top_k, random)
            text = np.concatenate([text, chosen[:, None].astype(text.dtype)], 1)
    return text.reshape(*given.shape[:-1], -1)


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards each module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _checked(model: Transformer, src: Any, max_length: int) -> np.ndarray:
    """The source ids (B, S), and that `max_length` is within the model's."""
    config = model.config
    if max_length < 1:
        raise ValueError(f"max_length is at least 1, got {max_length}")
    check_length(max_length, config.max_length, "target")
    return as_ids(src, "source", config.max_length, config.src_vocab).numpy()


def _sentence(row: np.ndarray, eos: int, special: tuple[int, ...]) -> list[int]:
    """The ids before the first `eos`, without the special ones."""
    ids = row.tolist()
    end = ids.index(eos) if eos in ids else len(ids)
    return [i for i in ids[:end] if i not in special]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    # In float64, in which sums with earlier scores keep the order of the float32 logits.
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


class _Hypotheses:
    """B sentences with K hypotheses each: ids (B, K, n), scores, lengths and ends (B, K).

    A finished hypothesis keeps its score and goes on with `eos`.
    """

    def __init__(self, sentences: int, beam: int, penalty: float, bos: int, eos: int) -> None:
        shape = (sentences, beam)
        self.penalty, self.eos = penalty, eos
        self.ids = np.full((*shape, 1), bos)
        # All start alike, so only one of each sentence may have successors.
        self.scores = np.where(np.arange(beam) == 0, 0.0, -np.inf) * np.ones(shape)
        self.lengths = np.zeros(shape, np.int64)
        self.finished = np.zeros(shape, bool)
        self.order = np.arange(sentences * beam)

    @property
    def length(self) -> int:
        return self.ids.shape[-1] - 1

    @property
    def last(self) -> np.ndarray:
        """The latest id of every hypothesis (B*K,)."""
        return self.ids[..., -1].reshape(-1)

    def extend(self, log_likelihood: np.ndarray) -> None:
        """Keep the best K of all one-id continuations; log-likelihoods (B*K, V)."""
        sentences, beam = self.scores.shape
        gains = log_likelihood.reshape(sentences, beam, -1)
        vocab = gains.shape[-1]
        ended = np.where(np.arange(vocab) == self.eos, 0.0, -np.inf)
        gains = np.where(self.finished[..., None], ended, gains)
        scores = self.scores[..., None] + gains  # (B, K, V)
        lengths = self.lengths + ~self.finished  # (B, K)
        chosen = _largest(self._normal(scores, lengths[..., None]), beam)  # (B, K) into K*V
        parents, ids = chosen // vocab, chosen % vocab

        self.scores = np.take_along_axis(scores.reshape(sentences, -1), chosen, 1)
        self.lengths = np.take_along_axis(lengths, parents, 1)
        self.finished = np.take_along_axis(self.finished, parents, 1) | (ids == self.eos)
        earlier = np.take_along_axis(self.ids, parents[..., None], 1)  # (B, K, n)
        self.ids = np.concatenate([earlier, ids[..., None]], -1)  # (B, K, n + 1)
        self.order = (np.arange(sentences)[:, None] * beam + parents).reshape(-1)

    def settled(self, max_length: int) -> bool:
        """Whether no unfinished hypothesis can still overtake the best finished one."""
        normal = self._normal(self.scores, self.lengths)
        reachable = self._normal(self.scores, np.array(max_length))
        best = np.where(self.finished, normal, -np.inf).max(1)
        hope = np.where(self.finished, -np.inf, reachable).max(1)
        return bool((self.finished.any(1) & (best >= hope)).all())

    def best(self) -> np.ndarray:
        """The ids (B, n) of the best hypothesis of each sentence."""
        first = self._normal(self.scores, self.lengths).argmax(1)
        return self.ids[np.arange(len(first)), first, 1:]

    def _normal(self, scores: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return scores / ((5.0 + lengths) / 6.0) ** self.penalty


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Positions in the flattened (K, V) of the `count` largest of each sentence, best first."""
    flat = scores.reshape(len(scores), -1)
    found = np.argpartition(-flat, count - 1, axis=1)[:, :count]
    rank = np.argsort(-np.take_along_axis(flat, found, 1), axis=1, kind="stable")
    return np.take_along_axis(found, rank, 1)


def _draw(
    logits: np.ndarray, temperature: float, top_k: int | None, random: "np.random.Generator"
) -> np.ndarray:
    """An id (B,) for each row of logits (B, vocab)."""
    if temperature == 0:
        return logits.argmax(-1)
    scores = logits.astype(np.float64) / temperature
    if top_k is not None and top_k < scores.shape[-1]:
        least = np.partition(scores, -top_k, axis=-1)[:, -top_k, None]
        scores = np.where(scores < least, -np.inf, scores)
    # The Gumbel-max trick: the largest of the scores with this noise is a draw from their softmax.
    return (scores + random.gumbel(size=scores.shape)).argmax(-1)
