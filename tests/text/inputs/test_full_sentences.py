"""Sentences go on over the ends of documents, and each sequence is as full as it can be."""

from corpora import END, FIRST, FRAMES, keyed, numbered
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.text.inputs.full_sentences import FullSentencesConfig


def inner(sample):
    return sample.ids.tolist()[1:-1]


@given(st.lists(st.lists(st.integers(1, 14), min_size=1, max_size=6), max_size=8), st.integers(1, 30))
def test_nothing_more_would_fit(lengths, room):
    tokens, documents = numbered(lengths)
    found = FullSentencesConfig().samples(tokens, FRAMES["bert"], max_tokens=room + 2, stream=keyed())
    sentence = {token: s for document in documents for s in document for token in s}
    home = {token: d for d, document in enumerate(documents) for s in document for token in s}
    rows = [inner(found[i]) for i in range(len(found))]
    flat = [token for row in rows for token in row if token >= FIRST]
    order = list(dict.fromkeys(home[token] for token in flat))
    assert flat == [token for d in order for s in documents[d] for token in s]  # whole documents, in some order
    for row, following in zip(rows, rows[1:], strict=False):
        nxt = following[0]
        piece = min(len(sentence[nxt][sentence[nxt].index(nxt) :]), room)
        assert len(row) + piece + (home[row[-1]] != home[nxt]) > room
        assert sentence[row[-1]] is not sentence[nxt] or len(sentence[nxt]) > room  # only long sentences are cut
    for row in rows:
        assert row[0] >= FIRST
        assert row[-1] >= FIRST
        for a, b, c in zip(row, row[1:], row[2:], strict=False):
            assert (b == END) == (home.get(a) != home.get(c) and b < FIRST)
            assert b >= FIRST or home[a] != home[c]


def test_documents_are_shuffled_evenly():
    tokens, _ = numbered([[4]] * 3)
    first = [0, 0, 0]
    for epoch in range(300):
        found = FullSentencesConfig().samples(tokens, FRAMES["bert"], max_tokens=20, stream=keyed(epoch=epoch))
        first[(found[0].ids[1] - FIRST) // 4] += 1
    assert min(first) > 60  # 100 expected, standard deviation 8.2
