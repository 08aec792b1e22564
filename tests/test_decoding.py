"""Cached and compiled decoding against the whole model run anew for every position."""

import copy
from functools import cache

import numpy as np
import pytest

import numtape as nt
from numtape import nn, optim
from numtape.ir.types import DtypeError, ShapeError
from numtape.transformer import GPT, Transformer, beam_search, generate, greedy_decode

BOS, EOS, PAD = 1, 2, 0
SRC = np.array([[3, 4, 5, 6, 7], [8, 3, 0, 0, 0], [5, 5, 4, 0, 0]])
SIZES = {"d_model": 16, "heads": 2, "layers": 1, "d_ff": 32, "max_length": 20}


TGT = np.array([[1, 5, 3, 9, 11, 4, 7, 2], [1, 8, 4, 2, 0, 0, 0, 0], [1, 10, 9, 9, 6, 3, 2, 0]])


def learn(model, loss, steps=25):
    """A little training, after which choices are varied and contested."""
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    @nt.compile
    def step():
        value = loss(model)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    for _ in range(steps):
        step()
    return model


def build(**options):
    """A fresh copy of a model with these options."""
    return copy.deepcopy(translator(tuple(options.items())))


@cache
def translator(options):
    nt.random.seed(4)
    model = Transformer(10, 12, **{**SIZES, **dict(options)})
    src = np.where(SRC == PAD, model.config.pad, SRC)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    return learn(model, lambda m: criterion(m(src, TGT[:, :-1]), TGT[:, 1:]))


@pytest.fixture(scope="module")
def trained():
    """A model that has learnt to write its source backwards."""
    nt.random.seed(0)
    model = Transformer(10, 10, 32, 4, 1, 64, dropout=0.0, pre_norm=True, max_length=12)
    optimizer = optim.AdamW(model.parameters(), lr=5e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)

    @nt.compile
    def step(src, tgt):
        loss = criterion(model(src, tgt[:, :-1]), tgt[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    rng = np.random.default_rng(0)
    for _ in range(250):
        src = rng.integers(3, 10, (32, 3))
        ends = [np.full((32, 1), i) for i in (BOS, EOS)]
        step(src, np.concatenate([ends[0], src[:, ::-1], ends[1]], 1))
    return model


# ---- references that keep nothing --------------------------------------------------------------


def log_softmax(x):
    x = x.astype(np.float64) - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def next_scores(model, source, prefixes):
    with nt.no_grad():
        sources = np.repeat(source[None], len(prefixes), 0)
        return log_softmax(model(sources, np.array(prefixes)).numpy()[:, -1])


def plain(ids):
    return [i for i in ids if i not in (PAD, BOS, EOS)]


def greedy_reference(model, source, max_length):
    prefix = [BOS]
    while len(prefix) <= max_length and prefix[-1] != EOS:
        prefix.append(int(next_scores(model, source, [prefix])[0].argmax()))
    return plain(prefix)


def beam_reference(model, source, max_length, beam, penalty):
    """Beam search over Python lists."""

    def normal(hypothesis):
        score, ids = hypothesis
        return score / ((5 + len(ids) - 1) / 6) ** penalty

    hypotheses = [(0.0, [BOS])]
    for _ in range(max_length):
        continued = [h for h in hypotheses if h[1][-1] == EOS]
        growing = [h for h in hypotheses if h[1][-1] != EOS]
        if growing:
            gains = next_scores(model, source, [ids for _, ids in growing])
            for (score, ids), row in zip(growing, gains, strict=True):
                continued += [(score + g, [*ids, i]) for i, g in enumerate(row)]
        hypotheses = sorted(continued, key=normal, reverse=True)[:beam]
    return plain(hypotheses[0][1])


# ---- greedy and beam ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"layers": 2}, {"pre_norm": True}, {"experts": 2}, {"pad": 9}]
)
def test_greedy_decoding_equals_the_whole_model_run_anew(options):
    model = build(**options)
    pad = options.get("pad", PAD)
    src = np.where(SRC == PAD, pad, SRC)
    model.eval()
    expected = [greedy_reference(model, row[row != pad], 9) for row in src]
    expected = [[i for i in row if i != pad] for row in expected]
    assert greedy_decode(model, src, 9) == expected
    assert len({tuple(row) for row in expected}) > 1


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("beam", [2, 4])
def test_beam_search_equals_the_whole_model_run_anew(beam, penalty):
    model = build().eval()
    expected = [beam_reference(model, row[row != PAD], 6, beam, penalty) for row in SRC]
    assert beam_search(model, SRC, 6, beam, penalty) == expected


@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "tie_embeddings": True}])
def test_a_beam_of_one_is_greedy(options):
    model = build(**options)
    assert beam_search(model, SRC, 12, beam=1) == greedy_decode(model, SRC, 12)


def test_a_trained_model_writes_backwards_and_stops(trained):
    src = np.array([[3, 4, 5], [9, 8, 8], [4, 9, 3]])
    expected = src[:, ::-1].tolist()
    assert greedy_decode(trained, src, 10) == expected
    assert beam_search(trained, src, 10, beam=3) == expected
    assert greedy_decode(trained, src, 2) == [row[:2] for row in expected]


def test_the_batch_does_not_matter(trained):
    src = np.array([[3, 4, 5], [9, 8, 7]])
    together = greedy_decode(trained, np.pad(src, ((0, 0), (0, 5))), 10)
    assert together == [greedy_decode(trained, row[None], 10)[0] for row in src]


def test_a_beam_wider_than_the_vocabulary():
    nt.random.seed(0)
    model = Transformer(10, 4, **SIZES).eval()
    expected = [beam_reference(model, row[row != PAD], 5, 7, 0.6) for row in SRC]
    assert beam_search(model, SRC, 5, beam=7) == expected


def test_a_wider_beam_finds_likelier_sentences():
    model = build().eval()

    def likelihood(source, ids):
        whole = [BOS, *ids]
        return sum(
            next_scores(model, source, [whole[:n]])[0, whole[n]] for n in range(1, len(whole))
        )

    # Neither ends before max_length, so both sum the same number of terms.
    source = SRC[0]
    narrow = greedy_decode(model, source[None], 5)[0]
    wide = beam_search(model, source[None], 5, beam=8, length_penalty=0.0)[0]
    if len(narrow) == len(wide) == 5:
        assert likelihood(source, wide) >= likelihood(source, narrow)


# ---- state -------------------------------------------------------------------------------------


def test_modes_are_restored_and_nothing_is_recorded():
    model = build(dropout=0.5)
    model.encoder.eval()
    first = greedy_decode(model, SRC, 6)
    assert model.training and model.decoder.training and not model.encoder.training
    assert greedy_decode(model, SRC, 6) == first
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(IndexError):
        greedy_decode(model, SRC + 5, 6)
    assert model.training and not model.encoder.training


def test_one_session_serves_many_batches(monkeypatch):
    model = build()
    greedy_decode(model, SRC, 8)
    (session,) = model.sessions._idle.values()
    for length in (1, 3, 5):
        greedy_decode(model, SRC[:, :length], 8)
    assert len(model.sessions) == 1
    assert len(session._step.tapes) == len(session._read.tapes) == 1


def test_decoding_follows_the_parameters():
    model = build()
    before = greedy_decode(model, SRC, 8)
    state = model.state_dict()
    for parameter in model.parameters():
        parameter.assign(parameter.numpy()[::-1].copy())
    changed = greedy_decode(model, SRC, 8)
    model.eval()
    assert changed == [greedy_reference(model, row[row != PAD], 8) for row in SRC]
    model.load_state_dict(state)
    assert greedy_decode(model, SRC, 8) == before != changed


def test_a_copy_decodes_with_its_own_parameters():
    model = build()
    before = greedy_decode(model, SRC, 8)
    other = copy.deepcopy(model)
    assert len(other.sessions) == 0
    for parameter in other.parameters():
        parameter.assign(parameter.numpy()[::-1].copy())
    assert greedy_decode(other, SRC, 8) != before
    assert greedy_decode(model, SRC, 8) == before


def test_decoding_in_float64():
    model = build().double().eval()
    assert greedy_decode(model, SRC, 6) == [
        greedy_reference(model, row[row != PAD], 6) for row in SRC
    ]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: greedy_decode(m, SRC, 0), ValueError, "max_length is at least 1"),
        (lambda m: greedy_decode(m, SRC, 21), ShapeError, "target of 21 positions"),
        (lambda m: greedy_decode(m, SRC[0], 5), ShapeError, r"ids\[None\]"),
        (lambda m: greedy_decode(m, SRC / 2, 5), DtypeError, "integer ids"),
        (lambda m: greedy_decode(m, SRC + 5, 5), IndexError, "id 10 at"),
        (lambda m: beam_search(m, SRC, 5, beam=0), ValueError, "beam >= 1"),
        (lambda m: beam_search(m, SRC, 5, length_penalty=-1.0), ValueError, "length_penalty >= 0"),
    ],
)
def test_what_cannot_be_decoded(call, error, message):
    with pytest.raises(error, match=message):
        call(build())


# ---- sampling from a GPT -----------------------------------------------------------------------

TEXT = np.array([[3, 1, 4], [1, 5, 9]])


def gpt(**options):
    """A fresh copy of a model with these options."""
    return copy.deepcopy(writer(tuple(options.items())))


@cache
def writer(options):
    nt.random.seed(6)
    sizes = {"vocab": 11, "context": 10, "d_model": 16, "heads": 2, "layers": 1}
    model = GPT(**{**sizes, **dict(options)})
    ids = np.random.default_rng(5).integers(0, 11, (8, 10))
    return learn(model, lambda m: nn.functional.cross_entropy(m(ids[:, :-1]), ids[:, 1:]), 40)


def continued(model, text, tokens, window):
    """Greedy continuation by the whole model; `window(n)` is how many ids it sees of n."""
    with nt.no_grad():
        for _ in range(tokens):
            seen = text[:, -window(text.shape[1]) :]
            chosen = model(seen).numpy()[:, -1].argmax(-1)
            text = np.concatenate([text, chosen[:, None]], 1)
    return text


@pytest.mark.parametrize("options", [{"layers": 2}, {"bias": True, "experts": 2}])
def test_generation_equals_the_whole_model_run_anew(options):
    model = gpt(**options).eval()
    expected = continued(model, TEXT, 7, lambda n: n)
    assert np.array_equal(generate(model, TEXT, 7, temperature=0), expected)
    assert np.array_equal(generate(model, TEXT[0], 7, temperature=0), expected[0])


def test_generation_goes_on_past_the_context_from_its_latest_half():
    model = gpt().eval()

    def window(length):
        # 10 ids fill the caches; then 5 are read again, and so on every 6 ids.
        return length if length <= 10 else 5 + (length - 11) % 6

    expected = continued(model, TEXT, 20, window)
    assert np.array_equal(generate(model, TEXT, 20, temperature=0), expected)
    long = np.tile(TEXT, 6)
    assert generate(model, long, 2).shape == (2, 20)


def test_sampling_is_repeatable_and_follows_the_distribution():
    model = gpt()
    text = np.repeat(TEXT[:1], 2000, 0)
    drawn = generate(model, text, 1, temperature=2.0, seed=3)[:, -1]
    assert np.array_equal(drawn, generate(model, text, 1, temperature=2.0, seed=3)[:, -1])
    model.eval()
    expected = np.exp(log_softmax(model(TEXT[:1]).numpy()[0, -1] / 2.0))
    found = np.bincount(drawn, minlength=11) / 2000
    assert np.abs(found - expected).max() < 0.04
    assert not np.array_equal(drawn, generate(model, text, 1, temperature=2.0, seed=4)[:, -1])


def test_top_k_draws_from_the_likeliest():
    model = gpt().eval()
    text = np.repeat(TEXT[:1], 200, 0)
    allowed = np.argsort(model(TEXT[:1]).numpy()[0, -1])[-3:]
    drawn = generate(model, text, 1, temperature=50.0, top_k=3)[:, -1]
    assert set(drawn.tolist()) == set(allowed.tolist())
    assert np.array_equal(
        generate(model, TEXT, 5, top_k=1), generate(model, TEXT, 5, temperature=0)
    )


def test_texts_of_different_lengths_share_a_session():
    model = gpt()
    for length in (1, 2, 3):
        generate(model, TEXT[:, :length], 4)
    ((session,),) = (model.sessions._idle.values(),)
    assert len(session._step.tapes) == 2  # reading and stepping


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: generate(m, TEXT, -1), ValueError, "tokens >= 0"),
        (lambda m: generate(m, TEXT, 1, temperature=-1.0), ValueError, "temperature >= 0"),
        (lambda m: generate(m, TEXT, 1, top_k=0), ValueError, "top_k >= 1"),
        (lambda m: generate(m, TEXT + 5, 1), IndexError, r"id 14 at \(1, 2\)|id 11"),
        (lambda m: generate(m, TEXT[:, :0], 1), ShapeError, "at least one id"),
        (lambda m: generate(m, TEXT / 2, 1), DtypeError, "integer ids"),
    ],
)
def test_what_cannot_be_generated(call, error, message):
    with pytest.raises(error, match=message):
        call(gpt())


def test_no_tokens_are_no_change():
    assert np.array_equal(generate(gpt(), TEXT, 0), TEXT)
