"""What every input format promises: samples at once, none too long, and special tokens, segments and starts right."""

import numpy as np
import pytest
from corpora import FIRST, FRAMES, keyed, numbered
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tunesmith.base import choices
from tunesmith.base.errors import SettingError

FORMATS = [(name, {}) for name in choices.names("input")]
FORMATS += [(name, {"negatives": n}) for name in ("segment_pair", "sentence_pair") for n in ("none", "swapped")]
PAIRS = ("segment_pair", "sentence_pair")
ONCE = ("doc_sentences", "full_sentences", "packed")
CORPORA = st.lists(st.lists(st.integers(0, 14), max_size=6), max_size=8)


def make(name, fields, lengths, frame, max_tokens, *, seed=0, epoch=0):
    tokens, documents = numbered(lengths)
    config = choices.choose("input", {"name": name, **fields})
    try:
        found = config.samples(tokens, FRAMES[frame], max_tokens=max_tokens, stream=keyed(seed, epoch))
    except SettingError:
        reject()
    return found, documents


@pytest.mark.parametrize(("name", "fields"), FORMATS)
@given(lengths=CORPORA, frame=st.sampled_from(list(FRAMES)), max_tokens=st.integers(2, 40), seed=st.integers(0, 5))
def test_any_sample_is_well_formed(name, fields, lengths, frame, max_tokens, seed):
    found, documents = make(name, fields, lengths, frame, max_tokens, seed=seed)
    heads = {sentence[0] for document in documents for sentence in document if sentence}
    begins = {next(i for sentence in document for i in sentence) for document in documents if any(document)}
    stops = {[i for sentence in document for i in sentence][-1] for document in documents if any(document)}
    seen = []
    for i in range(len(found)):
        sample = found[i]
        assert len(sample) == found.lengths[i] == sum(sample.lengths) <= max_tokens
        assert sample.ids.dtype == sample.segments.dtype == np.int64
        assert (sample.special == (sample.ids < FIRST)).all()
        ids, special = sample.ids.tolist(), [True, *sample.special]
        cut = {0, *np.cumsum(sample.lengths).tolist()}
        expected = [
            place
            for place, token in enumerate(ids)
            if token >= FIRST and (token in heads or special[place] or place in cut)
        ]
        assert list(sample.starts) == expected
        second = FRAMES[frame].second if name in PAIRS else 0
        if second:
            border = np.flatnonzero(sample.segments)[0]
            assert (sample.segments[border:] == second).all()
            assert not sample.segments[:border].any()
            assert sample.special[border - 1]
            assert not sample.special[border]
        else:
            assert not sample.segments.any()
        asked = name in PAIRS and fields.get("negatives") != "none"
        assert sample.pair in ((0, 1) if asked else (None,))
        between = zip(ids, ids[1:], strict=False)
        touching = [b for a, b in between if a >= FIRST and b >= FIRST]
        if name not in PAIRS:
            assert not begins & set(touching)  # something stands between documents
        at_cut, cuts = sample.at_cut, np.cumsum(sample.lengths)[:-1]
        assert name in ONCE or not at_cut.any()
        for part, hollow in zip(np.split(sample.ids, cuts), np.split(at_cut, cuts), strict=True):
            text = np.flatnonzero(part >= FIRST)
            if name in ONCE:
                assert (hollow[: text[0]] == (part[text[0]] not in begins)).all()
                assert (hollow[text[-1] + 1 :] == (part[text[-1]] not in stops)).all()
                assert not hollow[text[0] : text[-1]].any()
        seen += [token for token in ids if token >= FIRST]
    everything = [token for document in documents for sentence in document for token in sentence]
    if name in ONCE:
        assert sorted(seen) == everything
    elif name == "blocks":
        assert len(seen) == len(set(seen))


@pytest.mark.parametrize(("name", "fields"), FORMATS)
@given(data=st.data(), lengths=CORPORA, seed=st.integers(0, 5))
@settings(max_examples=25)
def test_a_sample_depends_on_nothing_but_its_number(name, fields, data, lengths, seed):
    found, _ = make(name, fields, lengths, "bert", 16, seed=seed)
    again, _ = make(name, fields, lengths, "bert", 16, seed=seed)
    assert (found.lengths == again.lengths).all()
    expected = [found[i] for i in range(len(found))]
    order = data.draw(st.permutations(range(len(found))))
    for i in order:
        assert again[i].ids.tolist() == expected[i].ids.tolist()
        assert again[i].pair == expected[i].pair


@pytest.mark.parametrize(("name", "fields"), FORMATS)
def test_epochs_and_seeds_differ_where_something_is_drawn(name, fields):
    lengths = [[5, 3, 7, 4, 6]] * 20

    def texts(**of):
        found, _ = make(name, fields, lengths, "bert", 24, **of)
        return [found[i].ids.tolist() for i in range(len(found))]

    assert texts() == texts()
    drawn = name != "doc_sentences" and (name, fields) != ("sentence_pair", {"negatives": "none"})
    assert (texts() != texts(epoch=1)) == drawn
    assert (texts() != texts(seed=1)) == drawn


@pytest.mark.parametrize(("name", "fields"), FORMATS)
@pytest.mark.parametrize("lengths", [[], [[]], [[0]]])
def test_no_text_gives_no_samples(name, fields, lengths):
    tokens, _ = numbered(lengths)
    config = choices.choose("input", {"name": name, **fields})
    if name == "blocks":
        with pytest.raises(SettingError, match="^data.max_tokens: input=blocks"):
            config.samples(tokens, FRAMES["bert"], max_tokens=16, stream=keyed())
    else:
        assert len(config.samples(tokens, FRAMES["bert"], max_tokens=16, stream=keyed())) == 0


@pytest.mark.parametrize(("name", "fields"), FORMATS)
def test_too_few_tokens_are_refused(name, fields):
    tokens, _ = numbered([[5, 6]] * 3)
    config = choices.choose("input", {"name": name, **fields})
    least = 2 if name == "blocks" else 5 if name in PAIRS else 3
    config.samples(tokens, FRAMES["bert"], max_tokens=least, stream=keyed())
    with pytest.raises(SettingError, match=rf"^data.max_tokens: .*, got {least - 1}$"):
        config.samples(tokens, FRAMES["bert"], max_tokens=least - 1, stream=keyed())
