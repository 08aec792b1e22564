"""Text to token ids and back: between the files that are read and the batches that are trained.

Ids 0, 1 and 2 are padding, begin and end wherever there are special tokens. A tokenizer goes
into a checkpoint as a plain dict and comes back through `tokenizer_from_dict`.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numtape.training.errors import DataError

try:
    import tokenizers
except ImportError:
    tokenizers = None  # type: ignore[assignment]

PAD, BOS, EOS = 0, 1, 2
SPECIALS = ("<pad>", "<bos>", "<eos>")
BYTES = 256

Ids = NDArray[np.int32]


class Tokenizer(Protocol):
    """What training needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> Ids: ...

    def decode(self, ids: ArrayLike) -> str: ...

    def to_dict(self) -> dict[str, Any]: ...


class CharTokenizer:
    """One token per distinct character, in code point order, after the special tokens if any."""

    def __init__(self, characters: str, specials: bool = True) -> None:
        """`characters`: any text that has every character; raises DataError if it is empty."""
        if not characters:
            raise DataError("the tokenizer was given no characters; give it the training text")
        self.characters = "".join(sorted(set(characters)))
        self.specials = specials
        self._first = len(SPECIALS) if specials else 0
        self._points = _code_points(self.characters)

    @property
    def vocab_size(self) -> int:
        return self._first + len(self.characters)

    def encode(self, text: str) -> Ids:
        """int32[len(text)], no special tokens; raises DataError for an unknown character."""
        points = _code_points(text)
        places = np.searchsorted(self._points, points).clip(max=len(self._points) - 1)
        unknown = np.flatnonzero(self._points[places] != points)
        if unknown.size:
            raise self._unknown(text, int(unknown[0]))
        return (places + self._first).astype(np.int32)

    def decode(self, ids: ArrayLike) -> str:
        """The text up to the first end token, special tokens left out; raises DataError."""
        plain = _plain(ids, self.vocab_size, self.specials)
        return "".join(self.characters[place] for place in plain - self._first)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "char", "characters": self.characters, "specials": self.specials}

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> "CharTokenizer":
        """The inverse of `to_dict`; raises DataError for anything else."""
        characters, specials = description.get("characters"), description.get("specials")
        if not isinstance(characters, str) or not isinstance(specials, bool):
            raise DataError("a char tokenizer needs 'characters' (text) and 'specials' (bool)")
        tokenizer = cls(characters, specials)
        if tokenizer.characters != characters:
            raise DataError("the tokenizer's characters are not sorted and distinct: damaged")
        return tokenizer

    def _unknown(self, text: str, position: int) -> DataError:
        character = text[position]
        return DataError(
            f"character {character!r} (U+{ord(character):04X}) at position {position} is not one "
            f"of the tokenizer's {len(self.characters)}; remove it from the text, or build the "
            "tokenizer from text that contains it"
        )


class BPETokenizer:
    """Byte-level byte-pair encoding: any text has an encoding, and decodes to itself."""

    def __init__(self, model: "tokenizers.Tokenizer") -> None:
        if [model.token_to_id(token) for token in SPECIALS] != [PAD, BOS, EOS]:
            raise DataError(f"the BPE tokenizer does not have {SPECIALS} as its ids 0, 1 and 2")
        # Text that happens to contain "<eos>" is text.
        model.encode_special_tokens = True
        self._model = model

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "BPETokenizer":
        """Learn at most `vocab_size` tokens; for a joint vocabulary chain both sides' lines.

        Raises DataError where `vocab_size` cannot hold the 256 bytes and the special tokens,
        ImportError where the tokenizers library is absent.
        """
        _require_library()
        if vocab_size < BYTES + len(SPECIALS):
            raise DataError(
                f"a BPE vocabulary of {vocab_size} cannot hold {BYTES} bytes and "
                f"{len(SPECIALS)} special tokens; ask for at least {BYTES + len(SPECIALS)}"
            )
        model = _byte_level(tokenizers.models.BPE())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIALS),
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        model.train_from_iterator(texts, trainer)
        return cls(model)

    @property
    def vocab_size(self) -> int:
        return int(self._model.get_vocab_size())

    def encode(self, text: str) -> Ids:
        """int32[number of tokens], no special tokens."""
        return np.array(self._model.encode(text).ids, np.int32)

    def decode(self, ids: ArrayLike) -> str:
        """The text up to the first end token, special tokens left out; raises DataError."""
        return str(self._model.decode(_plain(ids, self.vocab_size, True).tolist()))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "bpe", "model": json.loads(self._model.to_str())}

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> "BPETokenizer":
        """The inverse of `to_dict`; raises DataError for anything else, ImportError."""
        _require_library()
        vocab, merges = _checked_pairs(description.get("model"))
        try:
            tokenizer = cls(_byte_level(tokenizers.models.BPE(vocab, merges)))
        except DataError:
            raise
        except Exception as error:  # the library raises nothing narrower
            raise DataError(f"this is not a BPE tokenizer: {error}") from error
        # The library reads much that we never write: padding to any length, patterns, programs.
        if not _agree(tokenizer.to_dict(), description):
            raise DataError("this is not a BPE tokenizer that numtape wrote; train one")
        return tokenizer


def _byte_level(pairs: "tokenizers.models.BPE") -> "tokenizers.Tokenizer":
    model = tokenizers.Tokenizer(pairs)
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    known = [token for token in SPECIALS if model.token_to_id(token) is not None]
    model.add_special_tokens(known)
    return model


def _agree(one: Any, other: Any) -> bool:
    """Whether two descriptions are equal where both say something: versions add settings."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_agree(one[name], other[name]) for name in one.keys() & other.keys())
    return bool(one == other)


def _checked_pairs(model: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a stored model; DataError unless the ids are 0, 1, 2 and so on."""
    pairs = model.get("model") if isinstance(model, dict) else None
    vocab: Any = pairs.get("vocab") if isinstance(pairs, dict) else None
    merges: Any = pairs.get("merges") if isinstance(pairs, dict) else None
    sound = (
        isinstance(vocab, dict)
        and isinstance(merges, list)
        and all(type(i) is int for i in vocab.values())
        and sorted(vocab.values()) == list(range(len(vocab)))
        and all(isinstance(m, list) and len(m) == 2 for m in merges)
        and all(isinstance(part, str) and part in vocab for m in merges for part in m)
        and all(one + other in vocab for one, other in merges)
    )
    if not sound:
        raise DataError("a BPE tokenizer needs a vocabulary of ids from 0 on, and merges of pairs")
    return vocab, [(one, other) for one, other in merges]


def tokenizer_from_dict(description: Any) -> CharTokenizer | BPETokenizer:
    """The tokenizer whose `to_dict` gave `description`; raises DataError for anything else."""
    if not isinstance(description, dict):
        raise DataError(f"a tokenizer is stored as an object, not as {type(description).__name__}")
    kind = description.get("kind")
    if kind == "char":
        return CharTokenizer.from_dict(description)
    if kind == "bpe":
        return BPETokenizer.from_dict(description)
    raise DataError(
        f"the tokenizer is of kind {str(kind)[:40]!r}; this version knows 'char' and 'bpe'"
    )


def encode_lines(tokenizer: Tokenizer, lines: Iterable[str], origin: str) -> list[Ids]:
    """The ids of each line; raises DataError, which names `origin` and the line's number."""
    encoded = []
    for number, line in enumerate(lines, 1):
        try:
            encoded.append(tokenizer.encode(line))
        except DataError as error:
            raise DataError(f"{origin}, line {number}: {error}") from None
    return encoded


def _require_library() -> None:
    if tokenizers is None:
        raise ImportError(
            "a BPE tokenizer needs the tokenizers library: pip install tokenizers, or use "
            "characters: --vocab 0 in the command, CharTokenizer in a program"
        )


def _code_points(text: Sequence[str] | str) -> NDArray[np.uint32]:
    return np.frombuffer("".join(text).encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))


def _plain(ids: ArrayLike, vocab_size: int, specials: bool) -> NDArray[np.int64]:
    """The ids that stand for text, after a check of their range."""
    flat = np.asarray(ids, np.int64).ravel()
    outside = np.flatnonzero((flat < 0) | (flat >= vocab_size))
    if outside.size:
        raise DataError(
            f"id {flat[outside[0]]} at position {outside[0]} is not in the vocabulary of "
            f"{vocab_size} tokens (0 to {vocab_size - 1}); was it made by another tokenizer?"
        )
    if not specials:
        return flat
    ends = np.flatnonzero(flat == EOS)
    text = flat[: ends[0]] if ends.size else flat
    return text[text >= len(SPECIALS)]
