"""Pairs of single sentences."""

import scipy.stats
from corpora import FIRST, FRAMES, keyed, numbered
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.text.inputs.sentence_pair import SentencePairConfig

LENGTHS = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=8), min_size=2, max_size=6)


def make(lengths, **settings):
    tokens, documents = numbered(lengths)
    found = SentencePairConfig(**settings).samples(tokens, FRAMES["bert"], max_tokens=40, stream=keyed())
    sentences = [sentence for document in documents for sentence in document]
    ends = {document[-1][0] for document in documents}
    texts = []
    for sample in (found[i] for i in range(len(found))):
        inside = sample.segments == 0
        pair = [sample.ids[part & ~sample.special].tolist() for part in (inside, ~inside)]
        texts.append((*pair, sample.pair))
    return texts, sentences, ends


@given(LENGTHS)
def test_both_are_whole_sentences(lengths):
    texts, sentences, ends = make(lengths)
    seen = []
    for first, second, label in texts:
        assert first in sentences
        assert second in sentences
        assert label == (first[-1] + 1 != second[0] or first[0] in ends)
        seen += [first] if label else [first, second]
    assert seen == sentences


@given(LENGTHS)
def test_swapped_ones_are_neighbours(lengths):
    texts, sentences, _ = make(lengths, negatives="swapped")
    whole = [sorted([a, b]) for a, b, _ in texts if a in sentences and b in sentences]
    assert all(a[-1] + 1 == b[0] for a, b in whole)
    for first, second, label in texts:
        assert label == (first[0] > second[0])


def test_half_are_swapped():
    texts, _, _ = make([[3, 3]] * 4_000, negatives="swapped")
    low, high = scipy.stats.binom.interval(1 - 1e-6, 4_000, 0.5)
    assert low <= sum(label for *_, label in texts) <= high
    assert texts[0][0][0] in (FIRST, FIRST + 3)
