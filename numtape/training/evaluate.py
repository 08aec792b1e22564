"""What a trained model is good for: translations and their scores, and text that goes on."""

from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from numtape.lazy import lazy
from numtape.training.errors import DataError
from numtape.training.tasks import Tokenizer
from numtape.training.tokens import EOS, PAD, Ids, encode_lines
from numtape.transformer import GPT, Transformer, beam_search, generate, greedy_decode

try:
    sacrebleu = lazy("sacrebleu")
except ModuleNotFoundError:
    sacrebleu = None  # type: ignore[assignment]

ROWS = 64
MULTIPLE = 16


def translate(
    model: Transformer,
    tokenizers: Sequence[Tokenizer],
    texts: Sequence[str],
    beam: int = 1,
    origin: str = "the texts",
) -> list[str]:
    """The translation of each text; empty ones stay empty, and the model reads as much as it can.

    Texts of like length are decoded together. Raises DataError for characters that the source
    tokenizer does not know, with the number of the text as a line of `origin`.
    """
    longest = model.config.max_length
    sources = [ids[: longest - 1] for ids in encode_lines(tokenizers[0], texts, origin)]
    written = [""] * len(texts)
    groups = list(_groups([len(ids) for ids in sources]))
    # Seen on a terminal only, and only if it takes a while.
    for members in tqdm(groups, "translating", leave=False, delay=2.0, disable=None):
        batch = _padded([sources[i] for i in members], longest)
        limit = min(longest, 2 * batch.shape[1])
        if beam == 1:
            found = greedy_decode(model, batch, limit)
        else:
            found = beam_search(model, batch, limit, beam)
        for index, ids in zip(members, found, strict=False):
            written[index] = tokenizers[-1].decode(ids)
    return written


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of texts that are not empty, in groups of like length."""
    order = sorted((i for i, n in enumerate(lengths) if n), key=lambda i: lengths[i])
    for start in range(0, len(order), ROWS):
        yield order[start : start + ROWS]


def _padded(sources: list[Ids], longest: int) -> Ids:
    """The ids with their ends, in a shape that many groups share."""
    width = max(map(len, sources)) + 1
    batch = np.full((len(sources), min(-(-width // MULTIPLE) * MULTIPLE, longest)), PAD, np.int32)
    for row, ids in zip(batch, sources, strict=True):
        row[: len(ids) + 1] = [*ids, EOS]
    return batch


def exact_match(found: Sequence[str], wanted: Sequence[str]) -> float:
    """The fraction of texts that are right in every character."""
    pairs = zip(found, wanted, strict=True)
    return sum(one == other for one, other in pairs) / len(wanted)


def check_references(lines: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises DataError where numbers of lines differ, ImportError where sacrebleu is absent."""
    if len(lines) != len(wanted):
        raise DataError(
            f"{len(lines)} lines to translate and {len(wanted)} references; line N of one must "
            "be the translation of line N of the other"
        )
    if sacrebleu is None:
        raise ImportError("BLEU needs the sacrebleu library: pip install sacrebleu")


def bleu(found: Sequence[str], wanted: Sequence[str]) -> str:
    """The BLEU score as sacrebleu states it; raises as `check_references` does."""
    check_references(found, wanted)
    metric = sacrebleu.BLEU()
    score = metric.corpus_score(list(found), [list(wanted)])
    return f"BLEU {score.score:.2f}  {metric.get_signature()}"


def write_on(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> str:
    """The prompt with `tokens` sampled tokens after it. Raises DataError and ValueError."""
    ids = tokenizer.encode(prompt)
    if not len(ids):
        ids = tokenizer.encode(_any_start(tokenizer))
    return tokenizer.decode(generate(model, ids, tokens, temperature, top_k, seed))


def _any_start(tokenizer: Tokenizer) -> str:
    """A new line, where a text may begin, or whatever else the tokenizer knows."""
    try:
        tokenizer.encode("\n")
        return "\n"
    except DataError:
        return tokenizer.decode([0])
