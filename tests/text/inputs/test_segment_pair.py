"""BERT's and ALBERT's pairs: which documents, how often, where they are split, and how they are cut."""

import itertools

import numpy as np
import pytest
import scipy.stats
from corpora import FIRST, FRAMES, keyed, numbered
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base.errors import SettingError
from tunesmith.text.inputs._pairs import _truncate
from tunesmith.text.inputs.segment_pair import SegmentPairConfig

FALSE_ALARM = 1e-6
LENGTHS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=2, max_size=6)


def texts_of(sample):
    """Both texts without special tokens."""
    inside = sample.segments == 0
    return sample.ids[inside & ~sample.special].tolist(), sample.ids[~inside & ~sample.special].tolist()


def make(lengths, max_tokens, *, seed=0, **settings):
    tokens, documents = numbered(lengths)
    config = SegmentPairConfig(**settings)
    found = config.samples(tokens, FRAMES["bert"], max_tokens=max_tokens, stream=keyed(seed))
    home = {token: d for d, document in enumerate(documents) for s in document for token in s}
    return [found[i] for i in range(len(found))], documents, home


@given(LENGTHS, st.integers(8, 40), st.integers(0, 9))
def test_labels_say_where_the_second_text_is_from(lengths, max_tokens, seed):
    samples, _, home = make(lengths, max_tokens, seed=seed)
    for sample in samples:
        first, second = texts_of(sample)
        for text in (first, second):
            assert text == list(range(text[0], text[-1] + 1))
        assert len({home[token] for token in first}) == len({home[token] for token in second}) == 1
        assert (home[first[0]] != home[second[0]]) == sample.pair
        if not sample.pair:
            assert first[-1] < second[0]


@given(LENGTHS, st.integers(0, 9))
def test_what_a_random_text_replaces_comes_again(lengths, seed):
    """With room for everything nothing is cut, and first texts with their true followers are the corpus."""
    samples, documents, _ = make(lengths, 300, seed=seed, short_probability=0)
    seen = []
    for sample in samples:
        first, second = texts_of(sample)
        seen += first + (second if not sample.pair else [])
        single = first[0] == second[0]
        assert not single
    everything = [token for document in documents for sentence in document for token in sentence]
    if all(sum(document) + 9 < 150 for document in lengths):
        assert sorted(seen) == everything


@pytest.mark.parametrize("negatives", ["none", "swapped"])
@given(lengths=LENGTHS, max_tokens=st.integers(23, 60), seed=st.integers(0, 9))
def test_in_order_or_swapped(negatives, lengths, max_tokens, seed):
    samples, documents, home = make(lengths, max_tokens, seed=seed, negatives=negatives)
    at = []
    for sample in samples:
        first, second = texts_of(sample)
        if sample.pair:
            first, second = second, first
        assert first[-1] < second[0]
        assert home[first[0]] == home[second[0]]
        at.append(first[0])
        if len(sample) < max_tokens:  # nothing was cut: nothing is missing, but single tokens
            assert first[-1] + 1 == second[0]
    assert at == sorted(at)
    lost = [d for d in documents if not any(home[token] == home[d[0][0]] for token in at)]
    assert all(sum(map(len, document)) == 1 for document in lost)


def test_a_single_sentence_is_cut_in_two_or_gets_a_random_partner():
    lengths = [[7], [1], [6]]
    for negatives in ("none", "swapped"):
        samples, _, _ = make(lengths, 30, negatives=negatives)
        sizes = [tuple(map(len, texts_of(sample))) for sample in samples]
        assert [tuple(sorted(size)) for size in sizes] == [(3, 4), (3, 3)]
    samples, _, _ = make(lengths, 30)
    assert [sample.pair for sample in samples] == [1, 1, 1]
    with pytest.raises(SettingError, match="^input.negatives: random takes"):
        make([[5]], 30)


@pytest.mark.parametrize("negatives", ["random", "swapped"])
def test_half_of_the_pairs_are_negative(negatives):
    """Chunks are never of a single sentence here, so that each is a fair coin."""
    samples, _, _ = make([[4] * 2] * 4_000, 11, negatives=negatives, short_probability=0)
    if negatives == "swapped":
        count, trials = sum(sample.pair for sample in samples), len(samples)
    else:  # the coin of a document's first chunk; a lone rest is always negative
        firsts = [sample for sample in samples if (sample.ids[1] - FIRST) % 8 == 0]
        count, trials = sum(sample.pair for sample in firsts), len(firsts)
    assert trials == 4_000
    low, high = scipy.stats.binom.interval(1 - FALSE_ALARM, trials, 0.5)
    assert low <= count <= high


def test_splits_and_other_documents_are_uniform():
    count = 2_000
    samples, _, home = make([[2] * 5] * count, 13, short_probability=0)  # a chunk is a document of 5 sentences
    splits, ahead = np.zeros(4), np.zeros(10)
    for sample in samples:
        first, second = texts_of(sample)
        if (first[0] - FIRST) % 10 == 0 and not sample.pair:
            splits[len(first) // 2 - 1] += 1
        if sample.pair:
            ahead[(home[second[0]] - home[first[0]]) % count * 10 // count] += 1
    assert scipy.stats.chisquare(splits).pvalue > FALSE_ALARM
    assert scipy.stats.chisquare(ahead).pvalue > FALSE_ALARM


def test_target_lengths():
    """Without short targets all but a document's last pairs are full; with them they are uniform from 2 on."""
    lengths = [[1] * 40] * 500
    samples, _, home = make(lengths, 23, negatives="none", short_probability=0)
    last = [home[a.ids[1]] != home[b.ids[1]] for a, b in itertools.pairwise(samples)]
    assert all(len(sample) == 23 or end for sample, end in zip(samples, [*last, True], strict=True))
    samples, _, home = make(lengths, 23, negatives="none", short_probability=1)
    sizes = {home[sample.ids[1]]: len(sample) - 3 for sample in reversed(samples)}
    counts = np.bincount(list(sizes.values()), minlength=21)
    assert not counts[:2].any()
    assert counts[2] > 0
    assert len(counts) == 21
    assert scipy.stats.chisquare(counts[2:]).pvalue > FALSE_ALARM
    samples, _, home = make([[1] * 130] * 1_000, 123, negatives="none")  # one sample in 10 is short
    sizes = {home[sample.ids[1]]: len(sample) - 3 for sample in reversed(samples)}
    low, high = scipy.stats.binom.interval(1 - FALSE_ALARM, 1_000, 0.1 * 118 / 119)
    assert low <= sum(size < 120 for size in sizes.values()) <= high


def test_a_random_text_fills_what_the_first_leaves():
    """Sentences of one token: the second text ends where both have the target length, or with its document."""
    samples, _, home = make([[1] * 60] * 50, 23, short_probability=1)
    targets, ends = {}, {document * 60 + 60 + FIRST - 1 for document in range(50)}
    for sample in samples:
        first, second = texts_of(sample)
        size = len(first) + len(second)
        target = targets.setdefault(home[first[0]], set())
        if second[-1] not in ends and first[-1] not in ends:
            target.add(size)
    assert len(targets) == 50
    assert all(len(target) == 1 for target in targets.values())


def test_truncation_is_that_of_token_by_token():
    rows = [(a, b, room) for a in range(1, 13) for b in range(1, 13) for room in range(2, 16)]
    for a, b, room in rows:
        first, second = np.array([[100, 100 + a]]), np.array([[200, 200 + b]])
        _truncate(first, second, room, np.random.default_rng(0))
        while a + b > room:
            if a > b:
                a -= 1
            else:
                b -= 1
        assert (np.diff(first).item(), np.diff(second).item()) == (a, b)


def test_truncation_takes_from_front_or_back():
    spans = np.tile([[0, 30]], (20_000, 1))
    other = np.tile([[0, 5]], (20_000, 1))
    _truncate(spans, other, 25, np.random.default_rng(0))
    assert (np.diff(spans) == 20).all()
    low, high = scipy.stats.binom.interval(1 - FALSE_ALARM, 200_000, 0.5)
    assert low <= spans[:, 0].sum() <= high
    assert spans[:, 0].min() < 2
    assert spans[:, 0].max() > 8


def test_long_sentences_lose_nothing():
    samples, _, _ = make([[100], [100]], 23, negatives="none", short_probability=0)
    seen = [token for sample in samples for token in sample.ids.tolist() if token >= FIRST]
    assert sorted(seen) == list(range(FIRST, FIRST + 200))
