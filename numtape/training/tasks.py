"""What is learnt: a model, the batches to learn from and to be judged by, and the tokenizers.

Three tasks are built from `Options`: dates and pairs for the encoder-decoder, text for the GPT.
The loop sees only the `Task`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from numtape.nn import CrossEntropyLoss
from numtape.tracer import random
from numtape.training.data import PairData, TextData, fingerprint, read_parallel, read_text
from numtape.training.dates import SOURCE_CHARACTERS, TARGET_CHARACTERS, date_pairs
from numtape.training.errors import DataError
from numtape.training.options import Options
from numtape.training.tokens import (
    PAD,
    BPETokenizer,
    CharTokenizer,
    Ids,
    encode_lines,
)
from numtape.transformer import GPT, GPTConfig, Transformer, TransformerConfig

TRAINING_DATES, HELD_OUT_DATES = 50_000, 1_000
HELD_OUT_PAIRS = 2_000
FILES = {"dates": 0, "pairs": 2, "text": 1}
VALIDATION_BATCHES = 200  # of text, at most

Model = Transformer | GPT
Tokenizer = CharTokenizer | BPETokenizer
Arrays = tuple[Ids, ...]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """A model with its data. `tokenizers`: one, or one for the source and one for the target.

    `loss` takes a batch to a scalar tensor; `tokens` counts those of a batch that are not padding.
    `held_out`: pairs of texts that are not trained on, none for a GPT. `data`: the fingerprints of
    the files that were read.
    """

    model: Model
    tokenizers: tuple[Tokenizer, ...]
    batch: Callable[[int], Arrays]
    validation: Sequence[Arrays]
    loss: Callable[..., Any]
    held_out: tuple[list[str], list[str]]
    summary: str
    data: tuple[str | None, ...] = ()

    def tokens(self, batch: Arrays) -> int:
        if isinstance(self.model, GPT):
            return batch[0].size
        return sum(int(np.count_nonzero(part != PAD)) for part in batch)


class Stored(NamedTuple):
    """What a checkpoint says of a task: the tokenizers and settings of its model."""

    tokenizers: tuple[Tokenizer, ...]
    config: dict[str, Any]


def build_task(options: Options, say: Say, stored: Stored | None = None) -> Task:
    """The task that the options describe, with a newly initialised model.

    `stored`: those of a checkpoint, instead of new ones. Raises DataError where the data cannot be
    trained on, or the options do not fit together.
    """
    given, wanted = len(options.files), FILES[options.task]
    if given != wanted or len(options.valid) not in (0, 2):
        raise DataError(
            f"{options.task} are made of {wanted} files and validated on 2 or none, not {given} "
            f"and {len(options.valid)}; give --text or --pairs again"
        )
    random.seed(options.seed)
    builder = {"dates": _dates, "pairs": _pairs, "text": _text}[options.task]
    return replace(builder(options, say, stored), data=fingerprints(options))


def fingerprints(options: Options) -> tuple[str | None, ...]:
    """Those of the files that are read; raises DataError for an unreadable one."""
    return tuple(map(fingerprint, (*options.files, *options.valid)))


def build_model(task: str, config: dict[str, Any], dtype: str) -> Model:
    """The model of a stored configuration; raises DataError where that describes none."""
    try:
        if task == "text":
            return GPT.from_config(GPTConfig.from_dict(config)).to(dtype)
        return Transformer.from_config(TransformerConfig.from_dict(config)).to(dtype)
    except (TypeError, ValueError) as error:
        raise DataError(f"no model can be built from these settings: {error}") from error


def make_loss(model: Model, label_smoothing: float = 0.0) -> Callable[..., Any]:
    """The mean cross-entropy of a batch, as `TextData` or `PairData` gives it, in nats a token."""
    if isinstance(model, GPT):
        criterion = CrossEntropyLoss(label_smoothing=label_smoothing)

        def text_loss(inputs: Any, targets: Any) -> Any:
            return criterion(model(inputs), targets)

        return text_loss
    criterion = CrossEntropyLoss(ignore_index=PAD, label_smoothing=label_smoothing)

    def translation_loss(source: Any, target: Any) -> Any:
        return criterion(model(source, target[:, :-1]), target[:, 1:])

    return translation_loss


# ---- dates and pairs ----------------------------------------------------------------------


def _dates(options: Options, say: Say, stored: Stored | None) -> Task:
    say(f"Making {TRAINING_DATES:,} dates ...")
    train, held_out = date_pairs(TRAINING_DATES, HELD_OUT_DATES, options.seed)
    characters = (CharTokenizer(SOURCE_CHARACTERS), CharTokenizer(TARGET_CHARACTERS))
    if stored is None:
        stored = Stored(characters, _transformer_config(options, characters))
    return _translation(options, stored, _sides(train), _sides(held_out))


def _sides(pairs: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [one for one, _ in pairs], [other for _, other in pairs]


def _pairs(options: Options, say: Say, stored: Stored | None) -> Task:
    say(f"Reading {' and '.join(options.files)} ...")
    sides = read_parallel(options.files[0], options.files[1])
    if options.valid:
        train = sides
        held_out = read_parallel(options.valid[0], options.valid[1])
    else:
        train, held_out = _split(*sides)
    if stored is None:
        tokenizers = _vocabularies(options, say, train)
        stored = Stored(tokenizers, _transformer_config(options, tokenizers))
    say(f"Encoding {len(train[0]):,} pairs ...")
    return _translation(options, stored, train, held_out)


def _split(sources: list[str], targets: list[str]) -> tuple[Any, Any]:
    """All but the last hundredth to train on, and that to validate on."""
    count = min(max(len(sources) // 100, 1), HELD_OUT_PAIRS)
    if count == len(sources):
        raise DataError("one pair cannot be both trained on and held out; give more pairs")
    return (sources[:-count], targets[:-count]), (sources[-count:], targets[-count:])


def _vocabularies(
    options: Options, say: Say, sides: tuple[list[str], list[str]]
) -> tuple[Tokenizer, ...]:
    """One vocabulary for both sides, or one each where the embeddings need not be the same."""
    together = options.tie_embeddings == "all"
    groups = [[*sides[0], *sides[1]]] if together else list(sides)
    if not options.vocab:
        return tuple(CharTokenizer("".join(group)) for group in groups)
    say(f"Learning a vocabulary of {options.vocab:,} tokens ...")
    return tuple(BPETokenizer.train(group, options.vocab) for group in groups)


def _translation(options: Options, stored: Stored, train: Any, held: Any) -> Task:
    tokenizers = stored.tokenizers

    def data(part: str, sides: Any) -> PairData:
        sources = encode_lines(tokenizers[0], sides[0], f"{part} source")
        targets = encode_lines(tokenizers[-1], sides[1], f"{part} target")
        return PairData(
            sources,
            targets,
            tokens_per_batch=options.batch_tokens,
            max_length=options.max_length,
            shapes=options.shapes,
            seed=options.seed,
        )

    training, validation = data("training", train), data("validation", held)
    model = build_model(options.task, stored.config, options.dtype)
    return Task(
        model,
        tokenizers,
        training.batch,
        validation.validation_batches(),
        make_loss(model, options.label_smoothing),
        held,
        str(training),
    )


def _transformer_config(options: Options, tokenizers: tuple[Tokenizer, ...]) -> dict[str, Any]:
    return {
        "src_vocab": tokenizers[0].vocab_size,
        "tgt_vocab": tokenizers[-1].vocab_size,
        "layers": options.layers,
        "pre_norm": options.pre_norm,
        "tie_embeddings": {"none": False, "output": True, "all": "all"}[options.tie_embeddings],
        "max_length": options.max_length,
        "pad": PAD,
        **_block(options),
    }


def _block(options: Options) -> dict[str, Any]:
    return {
        "d_model": options.d_model,
        "heads": options.heads,
        "d_ff": options.d_ff or 4 * options.d_model,
        "dropout": options.dropout,
        "activation": options.activation,
        "experts": options.experts,
    }


# ---- text ---------------------------------------------------------------------------------


def _text(options: Options, say: Say, stored: Stored | None) -> Task:
    say(f"Reading {options.files[0]} ...")
    text = read_text(options.files[0])
    if stored is None:
        new = _text_tokenizer(options, say, text)
        stored = Stored((new,), _gpt_config(options, new))
    tokenizer = stored.tokenizers[0]
    data = TextData(tokenizer.encode(text), options.context, options.batch, options.seed)
    model = build_model("text", stored.config, options.dtype)
    summary = (
        f"{len(text):,} characters, {tokenizer.vocab_size:,} different tokens, "
        f"{len(data.train):,} to train on and {len(data.validation):,} held out"
    )
    validation = data.validation_batches(most=VALIDATION_BATCHES)
    loss = make_loss(model, options.label_smoothing)
    return Task(model, stored.tokenizers, data.batch, validation, loss, ([], []), summary)


def _gpt_config(options: Options, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "vocab": tokenizer.vocab_size,
        "context": options.context,
        "layers": options.layers,
        **_block(options),
    }


def _text_tokenizer(options: Options, say: Say, text: str) -> Tokenizer:
    if not options.vocab:
        return CharTokenizer(text, specials=False)
    say(f"Learning a vocabulary of {options.vocab:,} tokens ...")
    return BPETokenizer.train(text.splitlines(keepends=True), options.vocab)
