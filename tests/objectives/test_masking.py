"""Masks: how many, which, and what stands in their place."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats
from corpora import FIRST, FRAMES, MASK, corpus, drawn, keyed, vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.base import random
from tunesmith.base.config import build
from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.objectives._masking import Masking, MaskingConfig, documents_of
from tunesmith.objectives._units import words_of
from tunesmith.text.inputs.packed import PackedConfig
from tunesmith.text.inputs.segment_pair import SegmentPairConfig
from tunesmith.text.sample import Drawn, joined

FALSE_ALARM = 1e-6  # of each statistical check
UNITS = ("token", "word", "ngram", "span")
COUNTS = ("rounded", "drawn", "bernoulli")
WIDE = 100_005  # a random token is the original one in 1 of 100,000 cases


def within(count, trials, share):
    low, high = scipy.stats.binom.interval(1 - FALSE_ALARM, trials, share)
    return low <= count <= high


def row(size, *, seed=0, vocab_size=WIDE):
    """One text of random tokens."""
    return FRAMES["bert"].single([np.random.default_rng(seed).integers(FIRST, vocab_size, size)])


def masking(vocab=None, **fields):
    return Masking(MaskingConfig(**fields), vocabulary(WIDE) if vocab is None else vocab, objective="mlm")


def wordy(size=50):
    """Every third ordinary token goes on with a word, as ##-pieces do."""
    return vocabulary(size, begins=np.arange(size) % 3 != 0)


def words_by_hand(sample, begins):
    """Runs of places that make a word."""
    found, before = [], None
    for place in range(len(sample)):
        if sample.special[place]:
            before = None
        elif before is None or begins[sample.ids[place]] or place in sample.starts:
            found.append([place])
            before = place
        else:
            found[-1].append(place)
            before = place
    return found


def shares_hold(config, ids, masked):
    """Each chosen token is masked, replaced or kept with its probability."""
    now = masked.ids[masked.places]
    kinds = Counter(np.where(now == MASK, "mask", np.where(now == ids[masked.places], "keep", "random")).tolist())
    trials = len(masked.places)
    assert within(kinds["mask"], trials, config.mask)
    assert within(kinds["random"], trials, config.random)
    assert within(kinds["keep"], trials, config.keep)


@pytest.mark.parametrize("unit", ["token", "word", "ngram"])
@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.5, 0.0, 0.5), (0.2, 0.7, 0.1)])
def test_shares_over_a_million_tokens(unit, shares):
    sample = row(1_000_000 if unit == "token" else 100_000)
    config = MaskingConfig(unit=unit, mask=shares[0], random=shares[1], keep=shares[2])
    masked = Masking(config, vocabulary(WIDE), objective="mlm")(Drawn(sample, random.numpy_stream(0)))
    assert len(masked.places) == round(0.15 * (len(sample) - 2))
    shares_hold(config, sample.ids, masked)
    assert (masked.labels == sample.ids[masked.places]).all()
    changed = np.flatnonzero(masked.ids != sample.ids)
    assert np.isin(changed, masked.places).all()


def test_random_tokens_are_ordinary_and_uniform():
    sample = row(1_000_000, vocab_size=50)
    chosen = masking(vocabulary(), mask=0, random=1, keep=0)(Drawn(sample, random.numpy_stream(0)))
    counts = np.bincount(chosen.ids[chosen.places], minlength=50)
    assert not counts[:FIRST].any()
    assert scipy.stats.chisquare(counts[FIRST:]).pvalue > FALSE_ALARM


def test_places_are_uniform_and_independent():
    sample, hits, pairs = row(20), np.zeros(22), 0
    tool = masking(rate=0.3)
    for i in range(5_000):
        places = tool.choose(sample, random.numpy_stream(i))
        assert len(places) == len(set(places.tolist())) == 6
        hits[places] += 1
        pairs += {1, 2} <= set(places.tolist())
    assert hits[0] == hits[21] == 0
    for count in hits[1:21]:
        assert within(count, 5_000, 0.3)
    assert within(pairs, 5_000, 6 * 5 / (20 * 19))


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_how_many(rate):
    size, trials = 37, 20_000

    def counts(**fields):
        tool = masking(rate=rate, **fields)
        stream = random.numpy_stream(1)
        return [tool._count(size, stream) for _ in range(trials)]

    assert set(counts(count="rounded")) == {round(rate * size)}
    assert masking(rate=0.01)._count(3, random.numpy_stream(0)) == 1
    assert masking(rate=0.01)._count(0, random.numpy_stream(0)) == 0
    drawn_counts = Counter(counts(count="drawn"))
    assert set(drawn_counts) == {int(rate * size), int(rate * size) + 1}
    assert within(drawn_counts[int(rate * size) + 1], trials, rate * size % 1)
    assert within(sum(counts(count="bernoulli")), trials * size, rate)
    spread = np.bincount(counts(count="bernoulli"), minlength=size + 1)
    expected = trials * scipy.stats.binom.pmf(np.arange(size + 1), size, rate)
    often = expected > 5
    spread, expected = [np.append(part[often], part[~often].sum()) for part in (spread, expected)]
    assert scipy.stats.chisquare(spread, expected).pvalue > FALSE_ALARM


def test_words_are_those_found_by_hand():
    vocab = wordy()
    found = SegmentPairConfig().samples(corpus(), FRAMES["bert"], max_tokens=48, stream=keyed())
    bare = PackedConfig().samples(corpus(1), FRAMES["llama"], max_tokens=48, stream=keyed())
    for sample in [*(found[i] for i in range(len(found))), *(bare[i] for i in range(len(bare)))]:
        words = words_of(sample, np.flatnonzero(~sample.special), begins=vocab.begins_word)
        expected = words_by_hand(sample, vocab.begins_word)
        assert [list(range(*span)) for span in zip(words.starts, words.stops, strict=True)] == expected
        after = {word[-1] + 1 for word in expected} - {word[0] for word in expected}  # where a run of words ends
        last = [words.stops[limit - 1] for limit in words.limits]
        assert last == [min(end for end in after if end > word[0]) for word in expected]


@pytest.mark.parametrize("unit", ["word", "ngram", "span"])
def test_words_are_masked_whole(unit):
    vocab = wordy()
    found = SegmentPairConfig().samples(corpus(), FRAMES["bert"], max_tokens=48, stream=keyed())
    samples = [found[i] for i in range(len(found))] + [joined([found[0], found[1], found[2]])]
    tool = masking(vocab, unit=unit)
    partial, masked_tokens, ordinary, longest = 0, 0, 0, 0
    for one in drawn(samples):
        masked = set(tool(one).places.tolist())
        words = words_by_hand(one.sample, vocab.begins_word)
        assert not masked & set(np.flatnonzero(one.sample.special).tolist())
        partial += sum(0 < len(masked & set(word)) < len(word) for word in words)
        size = int((~one.sample.special).sum())
        budget = max(1, round(0.15 * size))
        assert 1 <= len(masked) <= max(budget, max(map(len, words)))
        masked_tokens, ordinary = masked_tokens + len(masked), ordinary + size
        longest = max(longest, *map(len, words))
    assert partial == 0
    assert longest > 3
    assert 0.13 < masked_tokens / ordinary < 0.17


@pytest.mark.parametrize(("unit", "longest"), [("span", 10), ("ngram", 3)])
def test_run_lengths_follow_the_closed_form(unit, longest):
    """A rare run meets no other: runs are then as they were drawn. Lengths are in words; a false alarm is 1 in 1000."""
    size, rate = 1_000_000, 0.004
    draw = np.random.default_rng(3)
    begins = np.arange(WIDE) % 2 == 0
    vocab = vocabulary(WIDE, begins=begins)
    lengths = Counter()
    for seed in range(9):
        sample = FRAMES["bert"].single([draw.integers(FIRST, WIDE, size)])
        places = masking(vocab, unit=unit, rate=rate).choose(sample, random.numpy_stream(seed))
        heads = begins[sample.ids[places]]
        run = np.cumsum(np.diff(places, prepend=-2) != 1)
        lengths.update(np.bincount(run, weights=heads).astype(int)[1:].tolist())
    counts = np.array([lengths[n] for n in range(1, longest + 1)])
    n = np.arange(1, longest + 1)
    weights = 0.2 * 0.8 ** (n - 1) if unit == "span" else 1 / n
    expected = weights / weights.sum()
    merged = sum(lengths.values()) - counts.sum()
    assert merged <= 0.01 * counts.sum()  # runs that touch
    assert counts.sum() > 4_500
    assert scipy.stats.chisquare(counts, expected * counts.sum()).pvalue > 1e-3
    if unit == "span":
        assert (n * expected).sum() == pytest.approx(3.8, abs=0.01)  # as the paper says


def test_a_span_has_one_fate():
    sample = row(200_000)
    config = MaskingConfig(unit="span", rate=0.1)
    masked = Masking(config, vocabulary(WIDE), objective="mlm")(Drawn(sample, random.numpy_stream(0)))
    now, original = masked.ids[masked.places], sample.ids[masked.places]
    kind = np.where(now == MASK, 0, np.where(now == original, 2, 1))
    run = np.cumsum(np.diff(masked.places, prepend=-2) != 1) - 1
    first = np.append(np.flatnonzero(np.diff(run, prepend=-1)), len(run))
    for begin, end in zip(first, first[1:], strict=False):
        assert len(set(kind[begin:end].tolist())) == 1
    fates = np.bincount(kind[first[:-1]], minlength=3)
    for count, share in zip(fates, (0.8, 0.1, 0.1), strict=True):
        assert within(count, len(first) - 1, share)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("count", COUNTS)
@settings(max_examples=20)
@given(seed=st.integers(0, 1000), max_tokens=st.integers(6, 40))
def test_the_text_comes_back_and_special_tokens_stay(unit, count, seed, max_tokens):
    tool = masking(wordy(), unit=unit, count=count, rate=0.3)
    found = PackedConfig().samples(corpus(seed, documents=4), FRAMES["bert"], max_tokens=max_tokens, stream=keyed(seed))
    for one in drawn([found[i] for i in range(len(found))], seed=seed):
        masked = tool(one)
        assert not one.sample.special[masked.places].any()
        assert (np.diff(masked.places) > 0).all()
        again = masked.ids.copy()
        again[masked.places] = masked.labels
        assert again.tolist() == one.sample.ids.tolist()
        pieces = documents_of(one.sample, masked)
        assert np.concatenate([piece.ids for piece in pieces]).tolist() == masked.ids.tolist()
        for piece, original in zip(pieces, np.split(one.sample.ids, np.cumsum(one.sample.lengths)[:-1]), strict=True):
            back = piece.ids.copy()
            back[piece.places] = piece.labels
            assert back.tolist() == original.tolist()


def test_special_ids_inside_a_text_are_not_masked_either():
    sample = FRAMES["bert"].single([np.array([10, 4, 11, 4, 12])])  # 4 is [UNK]
    for unit in UNITS:
        for seed in range(20):
            assert set(masking(vocabulary(), unit=unit, rate=0.9).choose(sample, random.numpy_stream(seed))) <= {
                1,
                3,
                5,
            }
    empty = FRAMES["bert"].single([np.array([4, 4])])
    assert len(masking(vocabulary()).choose(empty, random.numpy_stream(0))) == 0


def test_bad_settings():
    with pytest.raises(SettingError, match="must add up to 1, not to 0.7"):
        build(MaskingConfig, {"mask": 0.5})
    with pytest.raises(SettingError, match=r"^rate: must be less than 1"):
        build(MaskingConfig, {"rate": 1})
    vocab = vocabulary()
    with pytest.raises(CheckpointError, match="^tokenizer: "):
        Masking(MaskingConfig(), type(vocab)(**(vars(vocab) | {"mask": None})), objective="mlm")
