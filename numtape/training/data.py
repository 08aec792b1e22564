"""Files to batches: text and pairs of texts, read, checked and cut into arrays of few shapes.

Batch N is a pure function of (data, seed, N), so a run that resumes at step N goes on bit for
bit. Batches are int32 NumPy arrays; ids 0, 1 and 2 are padding, begin and end (see `tokens`).
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from math import ceil
from os import PathLike
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numtape.training.buckets import Bucket, PairBatch, fill_buckets
from numtape.training.errors import DataError
from numtape.training.randomness import Stream, generator
from numtape.training.tokens import BOS, EOS, SPECIALS, Ids

# Text shrinks to a fifth, a stuck key to a hundredth; a bomb to a thousandth.
MOST_GROWTH, FREE_GROWTH, PART = 100, 2**24, 2**20

FilePath = str | PathLike[str]
TextBatch = tuple[Ids, Ids]
Batch = TypeVar("Batch")


def read_text(path: FilePath) -> str:
    """The text of a UTF-8 file, plain or .gz, with a byte order mark removed and \\n line ends.

    Raises DataError where the file is missing, unreadable, empty or not UTF-8, and for a .gz that
    grows to more than MOST_GROWTH times its bytes and FREE_GROWTH.
    """
    raw = _read_bytes(Path(path)).replace(b"\r\n", b"\n")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _not_utf8(Path(path)) from None
    if not text or text.isspace():
        raise DataError(f"{path} is empty ({len(raw)} bytes, no text); give a file with text")
    return text


def _not_utf8(path: Path) -> DataError:
    """The first fault by its place in the file, whose bytes are not kept for this."""
    raw, start = _read_bytes(path), 0
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        start = error.start
    line = raw.count(b"\n", 0, start) + 1
    return DataError(
        f"{path} is not UTF-8: byte 0x{raw[start]:02x} at offset {start}, line {line}; convert "
        "the file, for example with: iconv -f LATIN1 -t UTF-8"
    )


def read_lines(path: FilePath) -> list[str]:
    """The lines of a text file, split at \\n alone so that both sides of a pair agree."""
    return read_text(path).removesuffix("\n").split("\n")


def read_parallel(source: FilePath, target: FilePath) -> tuple[list[str], list[str]]:
    """The lines of two files of which line N of one translates line N of the other.

    Raises DataError as `read_text` does, and where the numbers of lines differ.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise DataError(
            f"{source} has {len(sources)} lines and {target} has {len(targets)}; line N of one "
            "must translate line N of the other, so give two files of equally many lines"
        )
    return sources, targets


def _read_bytes(path: Path) -> bytes | bytearray:
    try:
        return _unzipped(path) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist (looked in {Path.cwd()}); check the path"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}; fetch it again") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}; give a readable file"
        ) from error


def _unzipped(path: Path) -> bytearray:
    most = max(FREE_GROWTH, MOST_GROWTH * path.stat().st_size)
    text = bytearray()
    with gzip.open(path) as file:
        while part := file.read(PART):
            text += part
            if len(text) > most:
                raise DataError(
                    f"{path} has {path.stat().st_size} bytes and grows to more than {most}, as no "
                    "text does; unpack it with gunzip if it is to be trusted"
                )
    return text


def fingerprint(path: FilePath) -> str | None:
    """The sha256 of a plain file, None for what is none; raises DataError if it is unreadable."""
    try:
        if not Path(path).is_file():
            return None
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}; give a readable file"
        ) from error


class TextData:
    """One long stream of tokens: random crops to train on, and its end to validate on."""

    def __init__(
        self,
        tokens: ArrayLike,
        context: int,
        batch_size: int,
        seed: int = 0,
        validation_fraction: float = 0.1,
    ) -> None:
        """`tokens`: integers[n]; the last `validation_fraction` of them is for validation.

        Raises DataError where either part is shorter than one crop of context + 1 tokens.
        """
        _require_positive(context=context, batch_size=batch_size)
        if not 0 < validation_fraction < 1:
            raise ValueError(f"validation_fraction is {validation_fraction}; use one in (0, 1)")
        stream = np.asarray(tokens).astype(np.int32).ravel()
        split = len(stream) - round(len(stream) * validation_fraction)
        self.context, self.batch_size, self.seed = context, batch_size, seed
        self.train, self.validation = stream[:split], stream[split:]
        for name, part in (("training", self.train), ("validation", self.validation)):
            if len(part) <= context:
                raise DataError(
                    f"the {name} part has {len(part)} of the text's {len(stream)} tokens and a "
                    f"context of {context} needs at least {context + 1}; use a shorter context "
                    "or a longer text"
                )

    def batch(self, step: int) -> TextBatch:
        """(inputs, targets), each int32[batch_size, context]: random crops for this step."""
        random = generator(self.seed, Stream.CROPS, step)
        starts = random.integers(len(self.train) - self.context, size=self.batch_size)
        return self._crops(self.train, starts)

    def batches(self, start: int = 0) -> Iterator[TextBatch]:
        """The endless batches from step `start` on."""
        return _endless(self.batch, start)

    def validation_batches(self, most: int | None = None) -> list[TextBatch]:
        """Evenly spaced crops in as many batches as predict every token, or in `most` if fewer."""
        last = len(self.validation) - self.context - 1
        crops = ceil((len(self.validation) - 1) / self.context)
        batches = min(ceil(crops / self.batch_size), most or crops)
        starts = np.linspace(0, last, batches * self.batch_size).astype(np.int64)
        return [self._crops(self.validation, part) for part in np.split(starts, batches)]

    def _crops(self, stream: Ids, starts: NDArray[np.int64]) -> TextBatch:
        inputs = starts[:, None] + np.arange(self.context)
        return stream[inputs], stream[inputs + 1]


class PairData:
    """Pairs of token sequences in batches of few shapes, each pair once per epoch.

    `buckets`: one per shape; `dropped`: how many pairs were left out, by reason;
    `steps_per_epoch`; `waste`: the padded fraction of an epoch. `str` gives a table of all that.
    """

    def __init__(
        self,
        sources: Sequence[ArrayLike],
        targets: Sequence[ArrayLike],
        *,
        tokens_per_batch: int = 4096,
        max_length: int = 256,
        shapes: int = 8,
        multiple: int = 1,
        seed: int = 0,
    ) -> None:
        """`sources`, `targets`: as many sequences of ids each, without special tokens.

        A batch has at most `tokens_per_batch` positions, source and target together, and a
        `multiple` of rows, for workers that share it. A pair is dropped where a side is empty
        or longer than `max_length`, special tokens included. There are at most `shapes` buckets.
        Raises DataError where the sides differ in number, an id is a special one, no pair is
        left or a batch cannot hold `multiple` of the longest.
        """
        _require_positive(
            tokens_per_batch=tokens_per_batch,
            max_length=max_length,
            shapes=shapes,
            multiple=multiple,
        )
        source, target = _framed(sources, "source", []), _framed(targets, "target", [BOS])
        if len(source) != len(target):
            raise DataError(
                f"{len(source)} source sequences and {len(target)} target sequences: each needs "
                "its partner, so give equally many"
            )
        self.seed = seed
        kept, self.dropped = _keep(source, target, max_length)
        source, target = [source[i] for i in kept], [target[i] for i in kept]
        self.buckets = fill_buckets(source, target, shapes, tokens_per_batch, multiple)
        self.steps_per_epoch = sum(bucket.batches for bucket in self.buckets)
        self._shuffled: tuple[int, list[tuple[Bucket, NDArray[np.int64]]]] = (-1, [])

    @property
    def waste(self) -> float:
        positions = sum(bucket.positions for bucket in self.buckets)
        return 1 - sum(bucket.tokens for bucket in self.buckets) / positions

    def batch(self, step: int) -> PairBatch:
        """The batch of a step; steps go on through the epochs, each shuffled anew."""
        epoch, place_in_epoch = divmod(step, self.steps_per_epoch)
        if self._shuffled[0] != epoch:
            self._shuffled = (epoch, self._shuffle(epoch))
        bucket, rows = self._shuffled[1][place_in_epoch]
        return bucket.take(rows)

    def batches(self, start: int = 0) -> Iterator[PairBatch]:
        """The endless batches from step `start` on."""
        return _endless(self.batch, start)

    def validation_batches(self) -> list[PairBatch]:
        """Every pair once, from the smallest shape to the largest, in the order given."""
        return [b.take(rows) for b in self.buckets for rows in b.chunks(np.arange(b.pairs))]

    def _shuffle(self, epoch: int) -> list[tuple[Bucket, NDArray[np.int64]]]:
        random = generator(self.seed, Stream.SHUFFLES, epoch)
        chunks = [
            (bucket, rows)
            for bucket in self.buckets
            for rows in bucket.chunks(random.permutation(bucket.pairs))
        ]
        return [chunks[index] for index in random.permutation(len(chunks))]

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        pairs = sum(bucket.pairs for bucket in self.buckets)
        summary = f"{pairs} pairs, padding {self.waste:.1%}, dropped: {dropped}"
        return "\n".join([*map(str, self.buckets), summary])


def _framed(sequences: Sequence[ArrayLike], side: str, begin: list[int]) -> list[Ids]:
    """Each sequence with its begin and end tokens, checked for ids that would be ignored."""
    head, tail = np.array(begin, np.int32), np.array([EOS], np.int32)
    framed = []
    for index, sequence in enumerate(sequences):
        ids = np.asarray(sequence, np.int32)
        if ids.size and ids.min() < len(SPECIALS):
            raise DataError(
                f"{side} sequence {index} has id {ids.min()}: ids 0, 1 and 2 are padding, begin "
                "and end, which this class adds; use a tokenizer with special tokens"
            )
        framed.append(np.concatenate([head, ids, tail]))
    return framed


def _keep(
    source: list[Ids], target: list[Ids], max_length: int
) -> tuple[list[int], dict[str, int]]:
    """The numbers of the pairs to train on, and the counts of the others by reason."""
    kept, dropped = [], {"too long": 0, "empty": 0}
    for index, (one, other) in enumerate(zip(source, target, strict=True)):
        if max(len(one), len(other)) > max_length:
            dropped["too long"] += 1
        elif len(one) == 1 or len(other) == 2:
            dropped["empty"] += 1
        else:
            kept.append(index)
    if not kept:
        raise DataError(
            f"none of the {len(source)} pairs is left: {dropped['too long']} are longer than "
            f"the maximum of {max_length} tokens, {dropped['empty']} have an empty side; raise "
            "the maximum length or give other data"
        )
    return kept, dropped


def _endless(batch: Callable[[int], Batch], start: int) -> Iterator[Batch]:
    return map(batch, count(start))


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; use a whole number of at least 1")
