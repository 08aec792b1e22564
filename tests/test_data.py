"""Reading, crops and buckets: batches that are pure functions of their step, and loud failures."""

import gzip
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numtape.training.buckets import choose_shapes, place
from numtape.training.data import PairData, TextData, read_lines, read_parallel, read_text
from numtape.training.errors import DataError
from numtape.training.tokens import BOS, EOS, PAD, CharTokenizer

DATA = Path(__file__).parents[1].parent / "shared" / "data"


def shared(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"the shared data folder has no {name}")
    return DATA / name


def random_pairs(count: int, longest: int = 40, seed: int = 0) -> tuple[list, list]:
    """Pairs with correlated lengths; the first id of each source is its number plus three."""
    random = np.random.default_rng(seed)
    lengths = np.minimum(1 + random.geometric(0.1, count), longest)
    other = np.clip(lengths + random.integers(-3, 4, count), 1, longest)
    sources = [np.r_[i + 3, random.integers(3, 50, n - 1)] for i, n in enumerate(lengths)]
    return sources, [random.integers(3, 50, n) for n in other]


def unframed(batch: tuple) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The pairs of a batch, after a check of their special tokens."""
    pairs = []
    for source, target in zip(*batch, strict=True):
        one, other = source[source != PAD], target[target != PAD]
        assert not source[len(one) :].any()
        assert not target[len(other) :].any()
        if len(one) or len(other):
            assert one[-1] == other[-1] == EOS
            assert other[0] == BOS
            pairs.append((tuple(one[:-1].tolist()), tuple(other[1:-1].tolist())))
    return pairs


def as_tuples(sources: list, targets: list) -> Counter:
    return Counter((tuple(s), tuple(t)) for s, t in zip(sources, targets, strict=True))


# Reading


def test_plain_and_gzipped_text_read_the_same(tmp_path: Path) -> None:
    text = "grün\nzwei\u2028drei\n\nend"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert read_text(tmp_path / "a.txt") == read_text(str(tmp_path / "a.txt.gz")) == text
    assert read_lines(tmp_path / "a.txt.gz") == ["grün", "zwei\u2028drei", "", "end"]


def test_byte_order_mark_and_carriage_returns_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert read_lines(tmp_path / "a") == ["one", "two"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_not_utf8_names_offset_and_line(tmp_path: Path, name: str) -> None:
    raw = b"good\nbetter\nbe\xfft\n"
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    with pytest.raises(DataError, match=r"byte 0xff at offset 14, line 3.*iconv"):
        read_text(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no-such-file does not exist"):
        read_text(tmp_path / "no-such-file")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_text(tmp_path)
    (tmp_path / "empty").write_bytes(b" \n")
    with pytest.raises(DataError, match=r"is empty \(2 bytes"):
        read_text(tmp_path / "empty")


def test_a_cut_or_false_gzip_file(tmp_path: Path) -> None:
    whole = gzip.compress(b"some text that is long enough to be cut " * 50)
    for raw in (whole[:-9], whole[:20], b"plain text", whole[:30] + b"\xff" * 20 + whole[50:]):
        (tmp_path / "a.gz").write_bytes(raw)
        with pytest.raises(DataError, match="not a whole gzip file"):
            read_text(tmp_path / "a.gz")


def test_sides_of_different_length_give_both_counts(tmp_path: Path) -> None:
    (tmp_path / "en").write_text("one\ntwo\nthree\n")
    (tmp_path / "de").write_text("eins\nzwei\n")
    with pytest.raises(DataError, match=r"en has 3 lines and .*de has 2"):
        read_parallel(tmp_path / "en", tmp_path / "de")
    (tmp_path / "de").write_text("eins\nzwei\ndrei")
    assert read_parallel(tmp_path / "en", tmp_path / "de")[1] == ["eins", "zwei", "drei"]


# Text


def test_a_batch_is_a_crop_and_the_crop_one_further() -> None:
    data = TextData(np.arange(1000), context=16, batch_size=8)
    inputs, targets = data.batch(5)
    assert inputs.shape == targets.shape == (8, 16)
    assert inputs.dtype == targets.dtype == np.int32
    assert (targets == inputs + 1).all()
    assert (np.diff(inputs) == 1).all()
    assert targets.max() < 900


def test_a_text_batch_is_a_function_of_seed_and_step() -> None:
    first, second = (TextData(np.arange(1000), 16, 8, seed=7) for _ in range(2))
    steps = list(islice(first.batches(), 20))
    for step in (19, 3, 11):
        assert (second.batch(step)[0] == steps[step][0]).all()
    resumed = list(islice(second.batches(start=10), 10))
    assert all((a[0] == b[0]).all() for a, b in zip(steps[10:], resumed, strict=True))
    assert len({inputs.tobytes() for inputs, _ in steps}) == 20
    assert (TextData(np.arange(1000), 16, 8, seed=8).batch(3)[0] != steps[3][0]).any()


def test_every_training_crop_can_be_drawn() -> None:
    data = TextData(np.arange(20), context=4, batch_size=64, validation_fraction=0.25)
    starts = {int(start) for step in range(10) for start in data.batch(step)[0][:, 0]}
    assert starts == set(range(15 - 4))


@pytest.mark.parametrize("size", [50, 51, 90, 171, 500, 997])
def test_validation_predicts_every_token_of_its_part(size: int) -> None:
    data = TextData(np.arange(size), context=4, batch_size=3, validation_fraction=0.1)
    batches = data.validation_batches()
    assert {targets.shape for _, targets in batches} == {(3, 4)}
    predicted = {int(token) for _, targets in batches for token in targets.ravel()}
    assert predicted == set(data.validation[1:].tolist())
    assert all((targets == inputs + 1).all() for inputs, targets in batches)
    assert len(data.validation_batches(2)) == min(2, len(batches))


def test_training_and_validation_parts_partition_the_text() -> None:
    data = TextData(np.arange(1003), 4, 3, validation_fraction=0.2)
    assert np.concatenate([data.train, data.validation]).tolist() == list(range(1003))
    assert len(data.validation) == 201


def test_text_shorter_than_a_context() -> None:
    with pytest.raises(DataError, match=r"validation part has 10 of .* 100 tokens .* at least 11"):
        TextData(np.arange(100), context=10, batch_size=1)
    TextData(np.arange(100), context=9, batch_size=1).validation_batches()
    with pytest.raises(DataError, match="training part has 10 "):
        TextData(np.arange(100), context=10, batch_size=1, validation_fraction=0.9)


@pytest.mark.parametrize("wrong", [{"context": 0}, {"batch_size": 0}, {"validation_fraction": 1}])
def test_wrong_text_settings_are_named(wrong: dict) -> None:
    settings = {"context": 4, "batch_size": 2, **wrong}
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        TextData(np.arange(100), **settings)


def test_shakespeare_is_read_and_cut() -> None:
    text = read_text(shared("tinyshakespeare.txt"))
    tokenizer = CharTokenizer(text, specials=False)
    data = TextData(tokenizer.encode(text), context=64, batch_size=12)
    assert tokenizer.vocab_size == 65
    assert tokenizer.decode(data.batch(0)[0][0]) in text


# Pairs


@pytest.mark.parametrize("count", [1, 2, 7, 100, 333])
@pytest.mark.parametrize("multiple", [1, 4])
def test_every_pair_appears_exactly_once_per_epoch(count: int, multiple: int) -> None:
    sources, targets = random_pairs(count)
    data = PairData(sources, targets, tokens_per_batch=400, multiple=multiple)
    for epoch in (0, 1, 5):
        steps = range(epoch * data.steps_per_epoch, (epoch + 1) * data.steps_per_epoch)
        seen = Counter(pair for step in steps for pair in unframed(data.batch(step)))
        assert seen == as_tuples(sources, targets)
    validated = Counter(p for batch in data.validation_batches() for p in unframed(batch))
    assert validated == as_tuples(sources, targets)


def test_shapes_are_few_and_keep_to_the_budget() -> None:
    data = PairData(*random_pairs(500), tokens_per_batch=500, shapes=5, multiple=2)
    batches = list(islice(data.batches(), 2 * data.steps_per_epoch))
    shapes = {(batch.source.shape, batch.target.shape) for batch in batches}
    assert len(shapes) <= 5
    for (rows, source), (target_rows, target) in shapes:
        assert rows == target_rows
        assert rows % 2 == 0
        assert rows * (source + target) <= 500
    assert all(side.dtype == np.int32 for side in batches[0])


def test_a_pair_batch_is_a_function_of_seed_and_step() -> None:
    pairs = random_pairs(200)
    first, second = (PairData(*pairs, tokens_per_batch=400, seed=7) for _ in range(2))
    steps = list(islice(first.batches(), 3 * first.steps_per_epoch))
    resumed = islice(second.batches(start=25), len(steps) - 25)
    for expected, batch in zip(steps[25:], resumed, strict=True):
        assert all((a == b).all() for a, b in zip(expected, batch, strict=True))
    other = PairData(*pairs, tokens_per_batch=400, seed=8)
    assert unframed(other.batch(0)) != unframed(first.batch(0))


def test_epochs_differ_in_order_and_in_company() -> None:
    data = PairData(*random_pairs(200), tokens_per_batch=400)
    first, second = (
        [frozenset(unframed(data.batch(epoch * data.steps_per_epoch + i))) for i in range(10)]
        for epoch in (0, 1)
    )
    assert first != second
    assert set(first).isdisjoint(second)
    assert [b.source.shape for b in islice(data.batches(), 10)] != sorted(
        b.source.shape for b in islice(data.batches(), 10)
    )


def test_dropped_pairs_are_counted() -> None:
    sources = [[3], [3] * 9, [3] * 10, [3], [], [3]]
    targets = [[4], [4] * 8, [4], [4] * 9, [4], []]
    data = PairData(sources, targets, max_length=10)
    assert data.dropped == {"too long": 2, "empty": 2}
    kept = Counter(pair for batch in data.validation_batches() for pair in unframed(batch))
    assert kept == as_tuples(sources[:2], targets[:2])
    assert "dropped: 2 too long, 2 empty" in str(data)


def test_the_reported_waste_is_the_measured_one() -> None:
    data = PairData(*random_pairs(300), tokens_per_batch=300, shapes=4)
    for bucket in data.buckets:
        batches = [bucket.take(rows) for rows in bucket.chunks(np.arange(bucket.pairs))]
        cells = np.concatenate([side.ravel() for batch in batches for side in batch])
        assert bucket.waste == pytest.approx((cells == PAD).mean())
        assert f"{bucket.waste:.1%}" in str(bucket)
    every = [s for b in islice(data.batches(), data.steps_per_epoch) for s in b]
    assert data.waste == pytest.approx(np.concatenate([s.ravel() == PAD for s in every]).mean())


lengths = st.lists(st.tuples(st.integers(1, 8), st.integers(2, 8)), min_size=1, max_size=12)


@settings(max_examples=60)
@given(lengths, st.integers(1, 3))
def test_shapes_are_the_cheapest_nested_ones(pairs: list[tuple[int, int]], most: int) -> None:
    source, target = np.array(pairs).T
    shapes = choose_shapes(source, target, most)
    assert len(shapes) <= most
    assert shapes == sorted(shapes)
    assert cost_of(shapes, pairs) == min(
        cost_of(chain, pairs) for chain in chains(max(source), max(target), most)
    )
    places = place(source, target, shapes)
    assert set(places.tolist()) == set(range(len(shapes)))
    sizes = [shapes[index] for index in places]
    assert sum(s + t for s, t in sizes) == cost_of(shapes, pairs)


def chains(source: int, target: int, most: int) -> list[list[tuple[int, int]]]:
    """Every nested list of at most `most` shapes that ends with (source, target)."""
    found = [[(source, target)]]
    if most > 1:
        smaller = [(s, t) for s in range(1, source + 1) for t in range(1, target + 1)]
        found += [
            [*chain, (source, target)]
            for s, t in smaller
            for chain in chains(s, t, most - 1)
            if (s, t) != (source, target)
        ]
    return found


def cost_of(shapes: list[tuple[int, int]], pairs: list[tuple[int, int]]) -> int:
    return sum(
        next(s + t for s, t in shapes if source <= s and target <= t) for source, target in pairs
    )


def test_no_bucket_is_empty_where_lengths_are_opposed() -> None:
    data = PairData([[3], [3] * 9], [[3] * 9, [3]])
    assert [bucket.pairs for bucket in data.buckets] == [1, 1]


def test_more_shapes_never_waste_more() -> None:
    pairs = random_pairs(400)
    wastes = [PairData(*pairs, shapes=k, tokens_per_batch=100_000).waste for k in (1, 2, 4, 8)]
    assert wastes == sorted(wastes, reverse=True)
    assert wastes[-1] < wastes[0] / 3


def test_wrong_pairs_are_named() -> None:
    with pytest.raises(DataError, match="2 source sequences and 1 target"):
        PairData([[3], [4]], [[3]])
    with pytest.raises(DataError, match="target sequence 1 has id 2"):
        PairData([[3], [4]], [[3], [5, 2]])
    with pytest.raises(
        DataError, match=r"none of the 2 pairs.* 1 are longer than the maximum of 5 tokens"
    ):
        PairData([[3] * 9, []], [[3], [3]], max_length=5)
    with pytest.raises(DataError, match=r"a batch of 30 tokens .* at least 42"):
        PairData([[3] * 9], [[3] * 9], tokens_per_batch=30, multiple=2)
    with pytest.raises(ValueError, match="shapes is 0"):
        PairData([[3]], [[3]], shapes=0)


def test_captions_fit_eight_shapes_with_little_padding() -> None:
    folder = shared("multi30k")
    english, german = read_parallel(folder / "val.en.gz", folder / "val.de.gz")
    assert len(english) == 1014
    tokenizer = CharTokenizer("".join(english + german))
    data = PairData(*([tokenizer.encode(line) for line in side] for side in (english, german)))
    assert len(data.buckets) <= 8
    assert data.waste < 0.2
    assert sum(data.dropped.values()) + sum(bucket.pairs for bucket in data.buckets) == 1014
