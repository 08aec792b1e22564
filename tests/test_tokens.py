"""Tokenizers: round trips, plain serialisation, and errors that name the culprit."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numtape.training import tokens
from numtape.training.errors import DataError
from numtape.training.tokens import (
    BOS,
    EOS,
    PAD,
    BPETokenizer,
    CharTokenizer,
    tokenizer_from_dict,
)

ENGLISH = ["a man sleeps in a green room", "two men are sleeping", "a green man"] * 5
GERMAN = ["ein Mann schläft in einem grünen Raum", "zwei Männer schlafen", "ein Mann"] * 5


@pytest.fixture(scope="module")
def bpe() -> BPETokenizer:
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    return BPETokenizer.train(ENGLISH + GERMAN, 300)


def test_characters_follow_the_specials_in_sorted_order() -> None:
    tokenizer = CharTokenizer("banana")
    assert tokenizer.vocab_size == 6
    assert tokenizer.encode("ban").tolist() == [4, 3, 5]
    assert tokenizer.encode("ban").dtype == np.int32
    assert CharTokenizer("banana", specials=False).encode("ban").tolist() == [1, 0, 2]


@given(st.text(min_size=1), st.booleans())
def test_any_text_round_trips_through_its_own_characters(text: str, specials: bool) -> None:
    tokenizer = CharTokenizer(text, specials)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert ids.max() < tokenizer.vocab_size


def test_decoding_stops_at_the_end_and_leaves_specials_out() -> None:
    tokenizer = CharTokenizer("abc")
    assert tokenizer.decode([BOS, 3, PAD, 4, EOS, 5, EOS]) == "ab"
    assert CharTokenizer("abc", specials=False).decode([0, 2, 1]) == "acb"


@pytest.mark.parametrize("text", ["abca~", "abcaé", "abca\U0001f600", "abca\x00"])
def test_an_unknown_character_is_named_with_its_position(text: str) -> None:
    with pytest.raises(DataError, match=rf"U\+{ord(text[-1]):04X}\) at position 4 .* 3; remove"):
        CharTokenizer("abc").encode(text)


def test_empty_text() -> None:
    assert CharTokenizer("abc").encode("").shape == (0,)
    assert CharTokenizer("abc").decode([]) == ""
    with pytest.raises(DataError, match="no characters"):
        CharTokenizer("")


@pytest.mark.parametrize("bad", [-1, 6])
def test_an_id_outside_the_vocabulary_is_named(bad: int) -> None:
    with pytest.raises(DataError, match=f"id {bad} at position 1 is not in the vocabulary of 6"):
        CharTokenizer("abc").decode([3, bad])


def test_char_dict_round_trip_through_json() -> None:
    for tokenizer in (CharTokenizer('a"\n\\é'), CharTokenizer("xyz", specials=False)):
        again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        assert again.to_dict() == tokenizer.to_dict()
        assert isinstance(again, CharTokenizer)
        assert again.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"kind": "word"},
        {"kind": "char"},
        {"kind": "char", "characters": ["a"], "specials": True},
        {"kind": "char", "characters": "ba", "specials": True},
        {"kind": "bpe"},
        {"kind": "bpe", "model": {"version": "1.0"}},
    ],
)
def test_damaged_descriptions_are_refused(description: dict[str, object]) -> None:
    with pytest.raises(DataError):
        tokenizer_from_dict(description)


@given(text=st.text())
def test_bpe_round_trips_any_text(bpe: BPETokenizer, text: str) -> None:
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert ids.dtype == np.int32
    assert not ids.size or ids.min() > EOS


@pytest.mark.parametrize("text", ["<eos>", "a <pad> b<bos>", "<eos><eos>"])
def test_text_that_looks_like_a_special_token_is_text(bpe: BPETokenizer, text: str) -> None:
    again = tokenizer_from_dict(bpe.to_dict())
    for tokenizer in (bpe, again):
        assert tokenizer.encode(text).min() > EOS
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bpe_is_joint_small_and_deterministic(bpe: BPETokenizer) -> None:
    assert bpe.vocab_size == 300
    for line in ("a green man", "ein Mann schläft"):
        assert len(bpe.encode(line)) < len(line) / 2
    assert BPETokenizer.train(ENGLISH + GERMAN, 300).to_dict() == bpe.to_dict()


def test_bpe_dict_round_trip_through_json(bpe: BPETokenizer) -> None:
    again = tokenizer_from_dict(json.loads(json.dumps(bpe.to_dict())))
    assert again.to_dict() == bpe.to_dict()
    assert again.encode(GERMAN[0]).tolist() == bpe.encode(GERMAN[0]).tolist()


def test_bpe_decoding_stops_at_the_end(bpe: BPETokenizer) -> None:
    ids = bpe.encode("a man").tolist()
    assert bpe.decode([BOS, *ids, EOS, *ids, PAD]) == "a man"
    with pytest.raises(DataError, match="id 300 at position 0"):
        bpe.decode([300])


def test_a_vocabulary_that_cannot_hold_the_bytes_is_refused() -> None:
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    with pytest.raises(DataError, match="at least 259"):
        BPETokenizer.train(ENGLISH, 258)


def test_a_model_with_other_specials_is_refused(bpe: BPETokenizer) -> None:
    description = json.loads(json.dumps(bpe.to_dict()).replace("<eos>", "<end>"))
    with pytest.raises(DataError, match="<eos>"):
        tokenizer_from_dict(description)


def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install tokenizers"):
        BPETokenizer.train(ENGLISH, 300)
    with pytest.raises(ImportError, match=r"pip install tokenizers"):
        tokenizer_from_dict({"kind": "bpe", "model": {}})
