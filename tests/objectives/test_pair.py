"""Next sentence and sentence order: the loss of transformers, one run of the model, labels in packed order."""

import pytest
import torch
import transformers
from corpora import FRAMES, corpus, drawn, keyed, vocabulary
from parity import perturbed
from tiny_models import ENCODER
from toys import toy

from tunesmith.base import choices
from tunesmith.base.errors import SettingError
from tunesmith.models._checkpoint import load
from tunesmith.nn.head.pretrain import PretrainConfig
from tunesmith.objectives.nsp import NSPConfig
from tunesmith.objectives.sop import SOPConfig
from tunesmith.text.inputs.segment_pair import SegmentPairConfig

PLAIN = {"vocab_size": 50, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def samples(negatives, count=9, *, max_tokens=40):
    config = SegmentPairConfig(negatives=negatives)
    found = config.samples(corpus(), FRAMES["bert"], max_tokens=max_tokens, stream=keyed())
    return [found[i] for i in range(count)]


def padded(batch):
    layout = batch.source.layout
    real = torch.arange(max(layout.lengths)) < torch.tensor(layout.lengths)[:, None]
    asked = torch.full((layout.num_tokens,), -100)
    asked[batch.rows] = batch.labels

    def spread(values, fill):
        return torch.full(real.shape, fill).masked_scatter(real, values[: layout.num_tokens])

    return {
        "input_ids": spread(batch.source.token_ids, 0),
        "attention_mask": real.long(),
        "token_type_ids": spread(layout.segments, 0),
        "labels": spread(asked, -100),
    }


@pytest.mark.parametrize("name", ["nsp", "sop"])
def test_loss_is_that_of_transformers(tmp_path, name):
    if name == "nsp":
        config, negatives, label = NSPConfig(), "random", "next_sentence_label"
        theirs = perturbed(transformers.BertForPreTraining, transformers.BertConfig(**ENCODER, **PLAIN))
    else:
        config, negatives, label = SOPConfig(), "swapped", "sentence_order_label"
        sizes = {**ENCODER, **PLAIN, "embedding_size": 16, "classifier_dropout_prob": 0.0}
        theirs = perturbed(transformers.AlbertForPreTraining, transformers.AlbertConfig(**sizes))
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    model = model.with_head(config.head(model))
    assert model.fresh == ()
    objective = config.build(model, vocabulary(), max_tokens=40, seed=0)
    batch = objective.prepare(drawn(samples(negatives)))
    targets = objective.targets(batch)
    assert targets[name] == 9
    assert set(batch.pair.tolist()) == {0, 1}
    found = objective.loss(model, batch, phase="train")
    loss = sum(weight * found[term] / targets[term] for term, weight in objective.phases[0].terms.items())
    expected = theirs(**padded(batch), **{label: batch.pair}).loss
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    loss.backward()
    expected.backward()
    pooler = theirs.bert.pooler.dense if name == "nsp" else theirs.albert.pooler
    torch.testing.assert_close(model.head.pool.weight.grad, pooler.weight.grad, rtol=0, atol=1e-6)


def test_labels_follow_their_texts(encoder):
    objective = NSPConfig().build(encoder("pretrain"), vocabulary(), max_tokens=40, seed=0)
    few = samples("random", 20)
    batch = objective.prepare(drawn(few))
    ids = batch.source.token_ids.clone()
    ids[batch.rows] = batch.labels
    texts = ids[: batch.num_tokens].split(list(batch.source.layout.lengths))
    labels = {tuple(sample.ids.tolist()): sample.pair for sample in few}
    assert [labels[tuple(text.tolist())] for text in texts] == batch.pair.tolist()


def test_the_model_runs_once_and_not_on_more_rows_than_needed(encoder, monkeypatch):
    model = encoder("pretrain").float()
    objective = NSPConfig().build(model, vocabulary(), max_tokens=40, seed=0)
    batch = objective.prepare(drawn(samples("random")))
    runs = []
    inner = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda *a, **k: runs.append(inner(*a, **k)) or runs[-1])
    objective.loss(model, batch, phase="train")
    assert [len(run) for run in runs] == [len(batch.rows) + 9]


@pytest.mark.parametrize(("config", "negatives"), [(NSPConfig(), "random"), (SOPConfig(), "swapped")])
def test_texts_without_labels_are_refused(encoder, config, negatives):
    objective = config.build(encoder("pretrain"), vocabulary(), max_tokens=40, seed=0)
    with pytest.raises(SettingError, match=rf"^objective: .*input=segment_pair input.negatives={negatives}$"):
        objective.prepare(drawn(samples("none")))


def test_heads():
    assert isinstance(NSPConfig().head(toy("encoder", "learned")), PretrainConfig)
    with pytest.raises(SettingError, match="^objective: sop trains an encoder"):
        SOPConfig().head(toy("encoder_decoder", "learned"))


def test_masks_are_nested_settings():
    config = choices.choose("objective", {"name": "sop", "mlm": {"unit": "ngram", "masking": "static"}})
    assert config.mlm.unit == "ngram"
    assert config.duplicates == 10
    assert choices.choose("objective", config.model_dump(mode="json")) == config
    with pytest.raises(SettingError, match="^mlm.rate: must be"):
        choices.choose("objective", {"name": "nsp", "mlm": {"rate": 2}})


def test_the_question_weighs_what_is_set():
    model = toy("encoder", "learned")
    for config, weight in ((NSPConfig(), 1.0), (NSPConfig(weight=0.25), 0.25), (SOPConfig(weight=0.5), 0.5)):
        (phase,) = config.build(model, vocabulary(), max_tokens=40, seed=0).phases
        assert phase.terms == {"lm": 1.0, config.choice_name(): weight}
