"""Span corruption: T5's lengths, uniform segmentation, nothing lost, and the loss of transformers' T5."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from made_samples import END, FIRST, FRAMES, SENTINELS, couple, drawn, labels, likely, parts, row, single, vocabulary
from parity import assert_equal, perturbed
from toys import toy

from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.models._checkpoint import load
from tunesmith.objectives._documents import documents
from tunesmith.objectives.span_corruption import SpanCorruption, SpanCorruptionConfig

VOCABULARY = vocabulary(2000)
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
START = 7


def objective(**fields) -> SpanCorruption:
    return SpanCorruption(SpanCorruptionConfig(**fields), sentinels=np.array(SENTINELS), start=START, end=END)


def recovered(source, target):
    """The text, from what the encoder reads and what is to be written."""
    spans, current = {}, None
    for token in target[:-1]:
        if token in SENTINELS:
            current = spans.setdefault(int(token), [])
        else:
            current.append(token)
    return [i for token in source for i in (spans[int(token)] if token in SENTINELS else [token])]


@pytest.mark.parametrize(
    ("read", "raw", "target"), [(512, 568, 114), (128, 141, 29), (256, 284, 58), (1024, 1137, 229)]
)
def test_lengths_of_the_paper(read, raw, target):
    assert SpanCorruptionConfig().raw_tokens(read) == raw + 1  # </s> among them
    batch = objective().prepare(drawn(single(raw)))
    assert batch.source.layout.lengths == (read,)
    assert batch.target.layout.lengths == (target,)
    assert objective().targets(batch) == {"lm": target}
    assert batch.num_tokens == read + target
    longer = objective().prepare(drawn(single(raw + 1)))
    assert longer.source.layout.num_tokens > read


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=3),
    st.sampled_from(["single", "couple", "row"]),
    st.floats(0.05, 0.9),
    st.floats(1, 6),
    st.sampled_from(["none", "sentinel"]),
    st.integers(0, 1000),
)
def test_nothing_is_lost(lengths, kind, density, mean_span, closing, seed):
    made = {"single": single(*lengths), "row": row(*lengths)}.get(kind) or couple(lengths, (3,))
    batch = objective(density=density, mean_span=mean_span, closing=closing).prepare(drawn(made, seed=seed))
    originals = {tuple(one.sample.ids) for one in documents(drawn(made))}
    pairs = list(zip(parts(batch.source), labels(batch, batch.target), parts(batch.target), strict=True))
    assert {tuple(recovered(source, target)) for source, target, _ in pairs} == originals
    for source, target, read in pairs:
        assert target[-1] == END
        assert read[0] == START
        np.testing.assert_array_equal(read[1:], target[:-1])
        used = [i for i in source if i in SENTINELS]
        assert used == list(SENTINELS[: len(used)])  # counted down, each once
        wanted = list(SENTINELS[: len(used) + (closing == "sentinel")])
        assert [i for i in target if i in SENTINELS] == wanted
        assert not (target[:-1] < 100).any()  # no other special token is taken out
        if kind != "couple":
            size = len(recovered(source, target)) - 1
            noise = min(max(round(density * size), 1), size - 1)
            assert len(target) == noise + len(wanted) + 1


@pytest.mark.parametrize("closing", ["none", "sentinel"])
def test_borders_between_texts_use_up_no_more_sentinels_than_there_are(closing):
    """Of many short texts in one sequence, nearly every span meets a border, which cuts it in two."""
    texts = [[np.arange(FIRST + 4 * i, FIRST + 4 * i + 4)] for i in range(40)]
    made = FRAMES["t5"].several(texts)
    config = SpanCorruptionConfig(density=0.5, mean_span=8, closing=closing)
    cut = False
    for seed in range(20):
        for few in (11, 40):
            task = SpanCorruption(config, sentinels=np.array(SENTINELS[:few]), start=START, end=END)
            batch = task.prepare(drawn(made, seed=seed))
            (source,), (target,) = parts(batch.source), labels(batch, batch.target)
            assert recovered(source, target) == made.ids.tolist()
            used = [i for i in target if i in SENTINELS]
            assert used == list(SENTINELS[: len(used)])
            assert len(used) <= few
            cut |= few == 40 and len(used) > 11 + (closing == "sentinel")
    assert cut


def test_a_target_fits_the_decoder():
    model = toy("encoder_decoder", "learned", max_positions=64)
    config = SpanCorruptionConfig(density=0.6, mean_span=2)
    with pytest.raises(
        SettingError, match="^data.max_tokens: 64 tokens can have a target of 85, but the decoder has 64 positions"
    ):
        config.build(model, VOCABULARY, max_tokens=64, seed=0)
    task = config.build(model, VOCABULARY, max_tokens=46, seed=0)
    made = FRAMES["t5"].several([[np.arange(FIRST + 3 * i, FIRST + 3 * i + 3)] for i in range(16)])
    for seed in range(20):
        batch = task.prepare(drawn(made, seed=seed))
        assert batch.target.layout.num_tokens <= 64


def test_all_ways_of_cutting_are_equally_likely():
    made = objective(density=0.5, mean_span=2)  # of 12 tokens, 6 in 3 spans: C(5, 2) ways for either kind
    batch = made.prepare(drawn(*[single(12)] * 4000))
    seen = Counter(tuple(np.isin(np.arange(FIRST, FIRST + 12), source)) for source in parts(batch.source))
    expected = set()
    cuts = [c for c in itertools.product(range(1, 5), repeat=3) if sum(c) == 6]
    for kept, taken in itertools.product(cuts, cuts):
        expected.add(tuple(itertools.chain(*([True] * k + [False] * t for k, t in zip(kept, taken, strict=True)))))
    assert set(seen) == expected
    assert likely(list(seen.values()))


def test_spans_have_the_mean():
    for length in (100, 300, 568):
        batch = objective().prepare(drawn(*[single(length)] * 3))
        for target in labels(batch, batch.target):
            spans = sum(i in SENTINELS for i in target)
            assert abs((len(target) - 1 - spans) / spans - 3) < 1.5 / spans * 3 + 0.1


def test_a_sample_does_not_depend_on_the_others():
    samples = drawn(single(40), single(30), single(50))
    together = objective().prepare(samples)
    again = [objective().prepare([one]) for one in drawn(single(40), single(30), single(50))]
    for batch in again:
        assert any(np.array_equal(parts(batch.source)[0], source) for source in parts(together.source))
        assert any(np.array_equal(parts(batch.target)[0], target) for target in parts(together.target))
    lengths = together.source.layout.lengths
    assert lengths == tuple(sorted(lengths))


@pytest.mark.parametrize("form", ["1.0", "1.1"])
def test_loss_of_transformers(form, tmp_path):
    fields = {} if form == "1.0" else {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    theirs = perturbed(transformers.T5ForConditionalGeneration, transformers.T5Config(vocab_size=500, **(T5 | fields)))
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    config = SpanCorruptionConfig()
    assert config.head(model) == model.config.head
    made = config.build(model, VOCABULARY, max_tokens=128, seed=0)
    batch = made.prepare(drawn(single(60), single(3), single(1), row(17, 30), single(118)))
    loss = made.loss(model, batch, phase="train")["lm"]
    expected = torch.zeros(())
    for source, target in zip(parts(batch.source), labels(batch, batch.target), strict=True):
        asked = theirs(input_ids=torch.tensor(source)[None], labels=torch.tensor(target)[None])
        expected = expected + asked.loss * len(target)
    assert_equal(loss, expected.detach())
    loss.backward()
    expected.backward()
    assert_equal(model.encoder.embeddings.tokens.weight.grad, theirs.shared.weight.grad)


def test_errors_of_the_user():
    model = toy("encoder_decoder", "none", max_positions=512)
    config = SpanCorruptionConfig()
    with pytest.raises(CheckpointError, match="^tokenizer: has no sentinels"):
        config.build(model, vocabulary(500, sentinels=()), max_tokens=64, seed=0)
    with pytest.raises(SettingError, match="^data.max_tokens: 512 tokens need up to 29 sentinels"):
        config.build(model, vocabulary(500, sentinels=SENTINELS[:28]), max_tokens=512, seed=0)
    config.build(model, vocabulary(500, sentinels=SENTINELS[:29]), max_tokens=512, seed=0)
    with pytest.raises(CheckpointError, match="^tokenizer: has no token that ends a text"):
        config.build(model, vocabulary(500, end=None), max_tokens=64, seed=0)
    for kind in ("encoder", "decoder"):
        with pytest.raises(SettingError, match="span_corruption trains an encoder-decoder"):
            config.head(toy(kind, "none"))
