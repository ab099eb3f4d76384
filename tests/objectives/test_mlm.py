"""Masked LM: batches, the loss of transformers on the same input, streams, static masks."""

import numpy as np
import pytest
import torch
import transformers
from corpora import END, FIRST, FRAMES, MASK, corpus, drawn, keyed, vocabulary
from parity import perturbed
from tiny_models import ENCODER
from toys import toy

from tunesmith.base import choices
from tunesmith.base.config import toml_text
from tunesmith.base.errors import SettingError
from tunesmith.models._checkpoint import load
from tunesmith.objectives.mlm import MLMConfig
from tunesmith.text.inputs.packed import PackedConfig
from tunesmith.text.inputs.segment_pair import SegmentPairConfig

SIZE = 50
PLAIN = {"vocab_size": SIZE, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def samples(*, max_tokens=40, kind=SegmentPairConfig, **settings):
    found = kind(**settings).samples(corpus(), FRAMES["bert"], max_tokens=max_tokens, stream=keyed())
    return [found[i] for i in range(len(found))]


def padded(batch, labels=None):
    """A packed batch as transformers reads it: ids, mask, segments, labels (-100 where nothing is asked)."""
    layout = batch.source.layout
    lengths, longest = layout.lengths, max(layout.lengths)
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]

    def spread(values, fill):
        out = torch.full(real.shape, fill)
        out[real] = values[: layout.num_tokens]
        return out

    asked = torch.full((layout.num_tokens,), -100)
    asked[batch.rows] = batch.labels
    return {
        "input_ids": spread(batch.source.token_ids, 0),
        "attention_mask": real.long(),
        "token_type_ids": spread(layout.segments, 0),
        "labels": spread(asked, -100),
    }


def losses(objective, model, batch):
    return objective.loss(model, batch, phase=objective.phases[0].name)


@pytest.mark.parametrize("unit", ["token", "span"])
def test_loss_and_gradients_are_those_of_transformers(tmp_path, unit):
    theirs = perturbed(transformers.BertForMaskedLM, transformers.BertConfig(**ENCODER, **PLAIN))
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    config = MLMConfig(unit=unit)
    model = model.with_head(config.head(model))
    assert model.fresh == ()
    objective = config.build(model, vocabulary(), max_tokens=40, seed=0)
    batch = objective.prepare(drawn(samples())[:9])
    (count,) = objective.targets(batch).values()
    assert count > 20
    loss = losses(objective, model, batch)["lm"] / count
    expected = theirs(**padded(batch)).loss
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    loss.backward()
    expected.backward()
    ours = model.encoder.blocks[0].attention.query.weight.grad
    torch.testing.assert_close(ours, theirs.bert.encoder.layer[0].attention.self.query.weight.grad, rtol=0, atol=1e-6)
    ours = model.encoder.embeddings.tokens.weight.grad
    torch.testing.assert_close(ours, theirs.bert.embeddings.word_embeddings.weight.grad, rtol=0, atol=1e-6)


def test_the_batch_gives_the_text_back(encoder):
    objective = MLMConfig().build(encoder(), vocabulary(), max_tokens=40, seed=0)
    few = samples()[:12]
    batch = objective.prepare(drawn(few))
    ids = batch.source.token_ids.clone()
    assert (ids[batch.rows] == MASK).float().mean() > 0.6
    ids[batch.rows] = batch.labels
    parts = ids[: batch.num_tokens].split(list(batch.source.layout.lengths))
    assert sorted(part.tolist() for part in parts) == sorted(sample.ids.tolist() for sample in few)
    assert list(batch.source.layout.lengths) == sorted(batch.source.layout.lengths)
    assert batch.num_samples == 12
    assert objective.targets(batch) == {"lm": sum(max(1, round(0.15 * (~s.special).sum())) for s in few)}


def test_documents_of_a_row_are_documents_of_the_batch(encoder):
    objective = MLMConfig().build(encoder(), vocabulary(), max_tokens=40, seed=0)
    rows = samples(kind=PackedConfig, max_tokens=60)[-4:]
    assert any(len(row.lengths) > 1 for row in rows)
    batch = objective.prepare(drawn(rows))
    layout = batch.source.layout
    assert sorted(layout.lengths) == sorted(length for row in rows for length in row.lengths)
    assert (layout.positions[layout.starts] == 0).all()
    assert (batch.source.token_ids[layout.ends] == END).all()
    assert batch.num_samples == 4


def test_a_mask_is_the_same_in_any_batch_and_order(encoder):
    """The most probable faults of streams: a shared one, or one that depends on the place in the batch."""
    few = samples()
    for settings in ({}, {"unit": "span"}, {"count": "drawn"}, {"count": "bernoulli", "unit": "word"}):
        objective = MLMConfig(**settings).build(encoder(), vocabulary(), max_tokens=40, seed=0)

        def masked(which, objective=objective):
            batch = objective.prepare(drawn(few, which=which))
            owners = batch.source.layout.owners
            texts = batch.source.token_ids[: batch.num_tokens].split(list(batch.source.layout.lengths))
            labels = [batch.labels[owners[batch.rows] == i].tolist() for i in range(len(texts))]
            return sorted(zip([text.tolist() for text in texts], labels, strict=True))

        whole = masked(range(10))
        assert whole == masked([3, 7, 1, 0, 9, 2, 8, 4, 6, 5])
        assert whole == sorted(masked([5, 0]) + masked([1]) + masked([9, 8, 7, 6, 4, 3, 2]))


def test_epochs_differ_and_frozen_copies_come_again(encoder):
    assert MLMConfig().duplicates is None
    assert MLMConfig(masking="static").duplicates == 10
    config = MLMConfig(masking="static", copies=3)
    objective = config.build(encoder(), vocabulary(), max_tokens=40, seed=0)
    few = samples()[:8]

    def ids(epoch):
        batch = objective.prepare(drawn(few, epoch=epoch % config.duplicates))
        return batch.source.token_ids.tolist()

    assert ids(1) == ids(4) == ids(7)
    assert len({tuple(ids(epoch)) for epoch in range(3)}) == 3


def test_only_encoders():
    with pytest.raises(SettingError, match="^objective: mlm trains an encoder, but custom is a decoder"):
        MLMConfig().head(toy("decoder", "learned"))


def test_settings_there_and_back():
    config = MLMConfig(unit="ngram", count="drawn", rate=0.2)
    tree = config.model_dump(mode="json")
    assert tree["name"] == "mlm"
    assert choices.choose("objective", tree) == config
    assert 'unit = "ngram"' in toml_text(tree)


def test_dropout_is_drawn_from_the_batch_alone(encoder):
    model = encoder(dropout=0.3).float()
    objective = MLMConfig().build(model, vocabulary(), max_tokens=40, seed=0)
    batch = objective.prepare(drawn(samples()[:4]))

    def noisy(seed):
        return losses(objective, model, batch.with_noise(torch.Generator().manual_seed(seed)))["lm"].item()

    assert noisy(1) == noisy(1) != noisy(2)
    assert np.isfinite(noisy(1))
    assert FIRST <= batch.labels.min()
