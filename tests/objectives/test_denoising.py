"""BART's noises against brute force, their shares against exact numbers, and the loss of transformers' BART."""

import itertools
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from made_samples import BEGIN, END, FIRST, MASK, ceil, couple, drawn, labels, likely, parts, row, single, vocabulary
from parity import assert_equal, perturbed
from toys import toy

from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.base.random import numpy_stream
from tunesmith.models._checkpoint import load
from tunesmith.objectives._documents import documents
from tunesmith.objectives._noises import span_lengths
from tunesmith.objectives.denoising import DenoisingConfig

SIZE = 6000
ALONE = {"infill": 0.0, "permute": 0.0}
BART = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
BART |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_model": 32, "max_position_embeddings": 80}


def objective(*, word=1, max_tokens=10_000, model=None, **fields):
    model = toy("encoder_decoder", "none") if model is None else model
    made = vocabulary(SIZE, frame="bart", word=word)
    return DenoisingConfig(**fields).build(model, made, max_tokens=max_tokens, seed=0)


def noisy(sample, *, seed=0, **fields):
    """What becomes of the text of a sample, without what stands around it."""
    (found,) = parts(objective(**fields).prepare(drawn(sample, seed=seed)).source)
    assert found[0] == BEGIN
    assert found[-1] == END
    return found[1:-1]


@given(st.integers(1, 200), st.integers(1, 4), st.sampled_from(["0.1", "0.3", "0.5", "1"]), st.integers(0, 99))
def test_infilling_takes_whole_words_up_to_the_budget(length, word, share, seed):
    found = noisy(single(length, frame="bart"), seed=seed, word=word, infill=float(share), permute=0.0)
    kept = [-1, *(int(i) - FIRST for i in found if i != MASK), length]
    assert kept == sorted(set(kept))
    places = [-1, *np.flatnonzero(found != MASK), len(found)]
    missing = 0
    for (a, b), (i, j) in zip(itertools.pairwise(kept), itertools.pairwise(places), strict=True):
        words = [n for n in range(a + 1, b) if n % word == 0]
        assert (b - a > 1) <= (j - i > 1)  # a mask stands where something is missing
        if b - a > 1:
            assert (a + 1) % word == 0
            assert b % word == 0 or b == length
        elif j - i > 1:
            assert b % word == 0 or b == length  # one put between words
        missing += len(words)
    assert missing == ceil(share, -(-length // word))


def test_a_text_may_begin_inside_a_word():
    found = noisy(single(7, frame="bart", first=FIRST + 1), word=3, infill=1.0, permute=0.0)
    assert set(found) == {MASK}


def test_lengths_of_spans_are_poisson():
    lengths = np.concatenate(
        [span_lengths(3000, mean_span=3.0, room=10**6, stream=numpy_stream("spans", i))[:500] for i in range(20)]
    )
    top = 9
    counts = np.bincount(np.minimum(lengths, top), minlength=top + 1)
    expected = [*scipy.stats.poisson.pmf(np.arange(top), 3.0), scipy.stats.poisson.sf(top - 1, 3.0)]
    assert likely(counts, expected)


@given(st.integers(0, 300), st.floats(0.05, 20), st.integers(0, 5), st.integers(0, 99))
def test_lengths_of_spans_add_up_to_the_budget(budget, mean_span, room, seed):
    lengths = span_lengths(budget, mean_span=mean_span, room=room, stream=numpy_stream(seed))
    assert lengths.sum() == budget
    assert len(lengths) <= budget + room
    assert (lengths >= 0).all()


def test_a_span_stands_anywhere():
    found = Counter()
    made = objective(infill=0.3, permute=0.0, mean_span=1000.0)  # one span of 3 of 10 words
    for source in parts(made.prepare(drawn(*[single(10, frame="bart")] * 4000)).source):
        assert len(source) == 10
        found[int(np.flatnonzero(source == MASK)[0])] += 1
    assert sorted(found) == list(range(1, 9))
    assert likely(list(found.values()))


def test_several_spans_stand_anywhere():
    made = objective(infill=0.4, permute=0.0, mean_span=2.0)  # 2 of 5 words
    seen = {1: Counter(), 2: Counter()}  # masks: where
    for source in parts(made.prepare(drawn(*[single(5, frame="bart")] * 6000)).source):
        text = source[1:-1]
        masks = int((text == MASK).sum())
        missing = tuple(i for i in range(5) if FIRST + i not in text)
        if masks in seen and (masks == 1 or len(text) == 5):
            seen[masks][missing] += 1
    assert set(seen[1]) == {(i, i + 1) for i in range(4)}
    assert likely(list(seen[1].values()))
    apart = [seen[2][pair] for pair in itertools.combinations(range(5), 2) if pair[1] > pair[0] + 1]
    assert len(apart) == 6
    assert likely(apart)


def test_a_long_span_comes_first_as_often_as_last():
    made = objective(infill=0.5, permute=0.0, mean_span=2.0)  # 3 of 6 words
    seen = Counter()
    for source in parts(made.prepare(drawn(*[single(6, frame="bart")] * 6000)).source):
        text = source[1:-1]
        missing = [i for i in range(6) if FIRST + i not in text]
        runs = [len(run) for run in np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1)]
        if (text == MASK).sum() == 2 and len(runs) == 2:
            seen[tuple(runs)] += 1
    assert set(seen) == {(1, 2), (2, 1)}
    assert likely(list(seen.values()))


def test_the_input_never_grows_beyond_the_limit():
    for seed in range(100):
        found = noisy(single(8, frame="bart"), seed=seed, infill=0.3, permute=0.0, mean_span=0.05, max_tokens=11)
        assert len(found) + 2 <= 11


def test_sentences_change_places():
    seen = Counter()
    made = objective(infill=0.0)
    sentences = [tuple(range(FIRST, FIRST + 2)), tuple(range(FIRST + 2, FIRST + 5)), (FIRST + 5,)]
    for source in parts(made.prepare(drawn(*[single(2, 3, 1, frame="bart")] * 3000)).source):
        seen[tuple(source[1:-1])] += 1
    expected = {tuple(itertools.chain(*order)) for order in itertools.permutations(sentences)}
    assert set(seen) == expected
    assert likely(list(seen.values()))


def test_a_share_of_the_sentences_moves():
    moved = Counter()
    made = objective(infill=0.0, permute=0.3)  # 3 of 10
    for source in parts(made.prepare(drawn(*[single(*[1] * 10, frame="bart")] * 500)).source):
        moved[int((source[1:-1] != np.arange(FIRST, FIRST + 10)).sum())] += 1
    assert set(moved) == {0, 2, 3}
    assert likely([moved[0], moved[2], moved[3]], [1, 3, 2])


def test_rotation_begins_anywhere():
    seen = Counter()
    for source in parts(objective(**ALONE, rotate=1.0).prepare(drawn(*[single(4, 3, frame="bart")] * 3000)).source):
        text = source[1:-1] - FIRST
        np.testing.assert_array_equal(text, (text[0] + np.arange(7)) % 7)
        seen[int(text[0])] += 1
    assert sorted(seen) == list(range(7))
    assert likely(list(seen.values()))


def test_a_share_of_the_texts_is_rotated():
    batch = objective(**ALONE, rotate=0.5).prepare(drawn(*[single(1000, frame="bart")] * 200))
    turned = sum(int(source[1]) != FIRST for source in parts(batch.source))
    assert scipy.stats.binomtest(turned, 200, 0.5 * 0.999).pvalue > 1e-4


@given(st.integers(1, 60), st.sampled_from(["0.15", "0.5", "1"]), st.integers(0, 99))
def test_masking_and_deletion_take_their_share(length, share, seed):
    sample, whole = single(length, frame="bart"), np.arange(FIRST, FIRST + length)
    masked = noisy(sample, seed=seed, **ALONE, mask=float(share))
    assert len(masked) == length
    assert (masked == MASK).sum() == ceil(share, length)
    assert (masked[masked != MASK] == whole[masked != MASK]).all()
    deleted = noisy(sample, seed=seed, **ALONE, delete=float(share))
    assert length - len(deleted) == min(ceil(share, length), length - 1)
    assert list(deleted) == sorted(set(deleted) & set(whole))


def test_masking_hits_every_token():
    made = objective(**ALONE, mask=0.3)
    hits = sum(source == MASK for source in parts(made.prepare(drawn(*[single(10, frame="bart")] * 2000)).source))
    assert likely(hits[1:-1])
    assert hits[0] == hits[-1] == 0


def test_a_share_of_masks_is_random():
    sample = single(3000, frame="bart")
    found = noisy(sample, **ALONE, mask=1.0, mask_random=0.1)
    others = found[found != MASK]
    assert scipy.stats.binomtest(len(others), 3000, 0.1).pvalue > 1e-4
    assert others.min() >= FIRST  # never a special token
    assert others.max() < SIZE
    assert len(set(others)) > 200
    assert (found == MASK).sum() + len(others) == 3000
    spans = noisy(sample, infill=0.3, permute=0.0, mask_random=1.0)
    assert MASK not in spans


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.sampled_from(["single", "couple", "row"]),
    st.tuples(*[st.sampled_from([0.0, 0.3, 1.0])] * 5).filter(any),
    st.integers(0, 99),
)
def test_the_target_is_the_whole_text(lengths, kind, shares, seed):
    texts = {"single": single(*lengths, frame="bart"), "row": row(*lengths, frame="bart")}
    made = texts.get(kind) or couple(lengths, (3, 2), frame="bart")
    names = ("infill", "permute", "mask", "delete", "rotate")
    batch = objective(**dict(zip(names, shares, strict=True))).prepare(drawn(made, seed=seed))
    originals = sorted(tuple(one.sample.ids) for one in documents(drawn(made)))
    assert sorted(map(tuple, labels(batch, batch.target))) == originals
    for source, target, read in zip(parts(batch.source), labels(batch, batch.target), parts(batch.target), strict=True):
        assert read[0] == 0  # the toy's start token
        np.testing.assert_array_equal(read[1:], target[:-1])
        keeps = [i for i in source if i != MASK]
        assert set(keeps) <= set(target)
        assert [i for i in source if i in (BEGIN, END)] == [i for i in target if i in (BEGIN, END)]
        if not any(shares[2:]) and not shares[0]:
            assert sorted(source) == sorted(target)


def test_sentences_stay_in_their_text():
    made = objective(infill=0.0)
    for source in parts(made.prepare(drawn(*[couple((2, 2), (1, 3), frame="bart")] * 20)).source):
        assert set(source[1:5]) == set(range(FIRST, FIRST + 4))
        assert list(source[5:7]) == [END, END]


def test_a_sample_does_not_depend_on_the_others():
    fields = {"infill": 0.3, "mask": 0.1, "delete": 0.1, "rotate": 0.5, "mask_random": 0.2}
    samples = [single(9, 12, 20, frame="bart"), single(5, 5, frame="bart"), single(30, 20, frame="bart")]
    together = parts(objective(**fields).prepare(drawn(*samples)).source)
    for one in drawn(*samples):
        (alone,) = parts(objective(**fields).prepare([one]).source)
        assert any(np.array_equal(alone, source) for source in together)


def test_loss_of_transformers(tmp_path):
    config = transformers.BartConfig(vocab_size=SIZE, **BART, decoder_start_token_id=2, pad_token_id=0)
    theirs = perturbed(transformers.BartForConditionalGeneration, config)
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert DenoisingConfig().head(model) == model.config.head
    made = objective(model=model, max_tokens=64)
    samples = (single(9, 12, 20, frame="bart"), single(5, 5, frame="bart"), row(17, 30, frame="bart"))
    batch = made.prepare(drawn(*samples))
    loss = made.loss(model, batch, phase="train")["lm"]
    expected, count = 0, 0
    for source, target in zip(parts(batch.source), labels(batch, batch.target), strict=True):
        asked = theirs(input_ids=torch.tensor(source)[None], labels=torch.tensor(target)[None])
        expected, count = expected + asked.loss * len(target), count + len(target)
    assert made.targets(batch) == {"lm": count}
    assert_equal(loss, expected.detach())
    loss.backward()
    expected.backward()
    assert_equal(model.encoder.embeddings.tokens.weight.grad, theirs.model.shared.weight.grad)


def test_errors_of_the_user():
    model = toy("encoder_decoder", "none")
    with pytest.raises(CheckpointError, match="^tokenizer: has no .* which objective denoising needs"):
        DenoisingConfig().build(model, vocabulary(500, mask=None), max_tokens=64, seed=0)
    DenoisingConfig(infill=0).build(model, vocabulary(500, mask=None), max_tokens=64, seed=0)
    with pytest.raises(SettingError, match="^objective: infill, permute, .* are all 0"):
        DenoisingConfig(infill=0, permute=0).build(model, vocabulary(500), max_tokens=64, seed=0)
    with pytest.raises(SettingError, match="denoising trains an encoder-decoder"):
        DenoisingConfig().head(toy("encoder", "none"))
