"""As many whole sentences of one document as fit."""

from corpora import FIRST, FRAMES, keyed, numbered
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.text.inputs.doc_sentences import DocSentencesConfig


def naive(documents, room):
    found = []
    for document in documents:
        row = []
        for sentence in document:
            rest = sentence
            while rest:
                if row and len(row) + len(rest[:room]) > room:
                    found.append(row)
                    row = []
                row = row + rest[:room]
                rest = rest[room:]
        found += [row] if row else []
    return found


@given(st.lists(st.lists(st.integers(0, 14), max_size=6), max_size=8), st.integers(1, 30))
def test_as_sentence_by_sentence(lengths, room):
    tokens, documents = numbered(lengths)
    found = DocSentencesConfig().samples(tokens, FRAMES["bert"], max_tokens=room + 2, stream=keyed())
    texts = [[token for token in found[i].ids.tolist() if token >= FIRST] for i in range(len(found))]
    assert texts == naive(documents, room)
