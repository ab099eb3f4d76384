"""UniLM: what each token sees, by changing what it must not see."""

import numpy as np
import pytest
import scipy.stats
import torch
from corpora import FRAMES, corpus, drawn, keyed, vocabulary
from toys import stack

from tunesmith.base import choices
from tunesmith.base.errors import SettingError
from tunesmith.models.model import Model, ModelConfig
from tunesmith.nn.convolution import ConvolutionConfig
from tunesmith.objectives._run import hidden_states
from tunesmith.objectives.unilm import UniLMConfig
from tunesmith.text.inputs.doc_sentences import DocSentencesConfig
from tunesmith.text.inputs.segment_pair import SegmentPairConfig

WAYS = {"both_ways": 0.0, "to_second": 0.0, "one_way": 0.0}


def samples(frame="bert", kind=SegmentPairConfig, *, max_tokens=24, **settings):
    settings = {"negatives": "none"} | settings if kind is SegmentPairConfig else settings
    found = kind(**settings).samples(corpus(), FRAMES[frame], max_tokens=max_tokens, stream=keyed())
    return [found[i] for i in range(len(found))]


def sees(model, batch, *, document):
    """Which tokens of a document change the hidden state of which, found by changing them: (reader, read)."""
    layout = batch.source.layout
    start, length = int(layout.starts[document]), layout.lengths[document]
    found = np.zeros((length, length), dtype=bool)
    with torch.no_grad():
        before = hidden_states(model, batch, None)
        for place in range(length):
            row = start + place
            old = batch.source.token_ids[row].item()
            batch.source.token_ids[row] = (old + 7) % 50
            moved = (hidden_states(model, batch, None) - before).abs().amax(1) > 1e-9
            batch.source.token_ids[row] = old
            assert not moved[:start].any()
            assert not moved[start + length : layout.num_tokens].any()
            found[:, place] = moved[start : start + length].numpy()
    return found


@pytest.mark.parametrize(
    ("way", "frame"), [("both_ways", "bert"), ("to_second", "bert"), ("to_second", "roberta"), ("one_way", "bert")]
)
def test_what_tokens_see(encoder, way, frame):
    model = encoder()
    objective = UniLMConfig(**(WAYS | {way: 1.0})).build(model, vocabulary(), max_tokens=24, seed=0)
    few = list({len(sample): sample for sample in sorted(samples(frame, max_tokens=13), key=len)}.values())[-5:]
    few = few[1:] + few[:1]  # packed order is another one, and not its own inverse
    batch = objective.prepare(drawn(few))
    directions = set()
    for document in range(5):
        found = sees(model, batch, document=document)
        size = len(found)
        if way == "both_ways":
            assert found.all()
        elif way == "one_way":
            assert (found == np.tri(size, dtype=bool)).all() or (found == np.tri(size, dtype=bool).T).all()
            directions.add(bool(found[-1, 0]))
        else:
            ids = batch.source.token_ids.clone()
            ids[batch.rows] = batch.labels
            start = int(batch.source.layout.starts[document])
            (sample,) = (s for s in few if s.ids.tolist() == ids[start : start + size].tolist())
            text = np.flatnonzero(~sample.special)
            first = text[np.flatnonzero(np.diff(text) > 1)[0] + 1]
            expected = np.tri(size, dtype=bool)
            expected[:first, :first] = True
            assert (found == expected).all()
    assert way != "one_way" or directions == {True, False}


def test_each_way_has_its_share(encoder):
    objective = UniLMConfig().build(encoder(), vocabulary(), max_tokens=24, seed=0)
    (one,) = samples()[:1]
    counts = np.zeros(4)
    batch = objective.prepare([of for epoch in range(1200) for of in drawn([one], epoch=epoch)])
    size = len(one)
    for view in batch.hidden[:, :size, :size]:
        upper, lower = bool(view[0, -1]), bool(view[-1, 0])
        counts[0 if not upper and not lower else 3 if lower else 2 if bool(view[0, 1]) else 1] += 1
    expected = 1200 * np.array([1 / 3, 1 / 3, 1 / 6, 1 / 6])
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-6


def test_the_loss_is_that_of_masked_tokens(encoder):
    model = encoder()
    objective = UniLMConfig().build(model, vocabulary(), max_tokens=24, seed=0)
    batch = objective.prepare(drawn(samples()[:8]))
    logits = model.head(hidden_states(model, batch, None)[batch.rows], None)
    expected = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum")
    torch.testing.assert_close(objective.loss(model, batch, phase="train")["lm"], expected)


def test_refused(encoder):
    objective = UniLMConfig(**(WAYS | {"to_second": 1.0})).build(encoder(), vocabulary(), max_tokens=24, seed=0)
    with pytest.raises(SettingError, match="^objective: unilm .*input=segment_pair, or objective.to_second=0$"):
        objective.prepare(drawn(samples(kind=DocSentencesConfig)))
    for name in choices.names("input"):
        given = choices.choose("input", name)
        UniLMConfig(to_second=0.0).check_input(given)
        if name in ("segment_pair", "sentence_pair"):
            UniLMConfig().check_input(given)
        else:
            with pytest.raises(SettingError, match="^objective: unilm .*input=segment_pair, or objective.to_second=0$"):
                UniLMConfig().check_input(given)
    convolved = stack("learned", convolution=ConvolutionConfig())
    with pytest.raises(SettingError, match="^objective: unilm hides"):
        UniLMConfig().head(Model(ModelConfig(family="custom", encoder=convolved)))
    with pytest.raises(ValueError, match="must not all be 0"):
        UniLMConfig(**WAYS)
