"""Replaced token detection: what is put in, what counts as replaced, what learns from what."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from learners import make_drawn, make_learner

from tunesmith.base.errors import SettingError
from tunesmith.base.layout import make_layout
from tunesmith.nn.cross_entropy import cross_entropy_and_samples
from tunesmith.objectives.rtd import RTDConfig


@pytest.fixture
def learner():
    return make_learner("rtd")


def losses(trainee, batch):
    (phase,) = trainee.objective.phases
    return trainee(batch, phase.name)


def test_only_masked_tokens_change_and_a_right_guess_counts_as_original(learner):
    objective = learner.objective
    batch = objective.prepare(make_drawn("rtd"))
    losses(learner, batch)
    corrupted, original = batch.made["corrupted"], batch.more["original"]
    changed = corrupted != original
    chosen = torch.zeros_like(changed)
    chosen[batch.rows] = True
    assert changed.any()
    assert not (changed & ~chosen).any()
    real = batch.source.layout.num_tokens
    assert torch.equal(batch.made["replaced"].bool(), changed[:real])
    assert torch.equal(original[batch.rows], batch.labels)
    # a generator that is always right leaves nothing to find
    right = torch.full((len(batch.rows),), 0.5)
    sure = F.one_hot(batch.labels, 260).double() * 1000
    weight, x = torch.eye(260, dtype=torch.float64), sure
    _, samples = cross_entropy_and_samples(x, weight, None, batch.labels, right)
    assert torch.equal(samples, batch.labels)


def test_the_loss_is_that_of_its_two_parts(learner):
    objective, model = learner.objective, learner.model
    batch = objective.prepare(make_drawn("rtd"))
    found = losses(learner, batch)
    generator = objective.generator
    with torch.no_grad():
        hidden = generator.encoder(batch.source.token_ids, batch.source.layout)
        logits = generator.head(hidden[batch.rows], None)
        assert float(found["lm"]) == pytest.approx(float(F.cross_entropy(logits, batch.labels, reduction="sum")))
        answers = model.logits(batch.made["corrupted"], batch.source.layout)[:, 0]
    real = batch.source.layout.num_tokens
    wanted = batch.made["replaced"].double()
    expected = F.binary_cross_entropy_with_logits(answers[:real], wanted, reduction="sum")
    assert float(found["rtd"].detach()) == pytest.approx(float(expected))
    assert objective.targets(batch) == {"lm": len(batch.rows), "rtd": real}


def test_detection_teaches_the_generator_nothing_but_the_shared_tables(learner):
    objective = learner.objective
    batch = objective.prepare(make_drawn("rtd"))
    losses(learner, batch)["rtd"].backward()
    shared = {id(parameter) for parameter in learner.model.parameters()}
    own = [p for p in objective.generator.parameters() if id(p) not in shared]
    assert own
    assert all(p.grad is None for p in own)
    table = learner.model.encoder.embeddings.tokens.weight
    assert objective.generator.encoder.embeddings.tokens.weight is table
    assert objective.generator.head.output.weight is table
    assert float(table.grad.abs().max()) > 0


def test_samples_follow_the_probabilities():
    """Inverse cumulated probabilities: even numbers in [0, 1) give each class its share."""
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]], dtype=torch.float64)
    count = 100_000
    draws = (torch.arange(count) + 0.5) / count
    rows = logits.expand(count, -1).contiguous()
    labels = torch.zeros(count, dtype=torch.long)
    _, samples = cross_entropy_and_samples(rows, torch.eye(4, dtype=torch.float64), None, labels, draws.double())
    shares = np.bincount(samples.numpy(), minlength=4) / count
    np.testing.assert_allclose(shares, logits.softmax(1)[0].numpy(), atol=2 / count)


def test_what_is_drawn_for_a_sample_is_its_own():
    learner = make_learner("rtd")
    objective = learner.objective
    whole = objective.prepare(make_drawn("rtd"))
    losses(learner, whole)
    alone = []
    for one in range(12):
        batch = objective.prepare([make_drawn("rtd")[one]])
        losses(learner, batch)
        alone.append(batch.made["corrupted"][: batch.source.layout.num_tokens].tolist())
    ids = whole.made["corrupted"][: whole.source.layout.num_tokens]
    parts = [part.tolist() for part in ids.split(list(whole.source.layout.lengths))]
    assert sorted(parts) == sorted(alone)


def test_sizes_of_the_generator():
    learner = make_learner("rtd", d_model=64, num_heads=4)
    small = learner.objective.generator.config.encoder
    assert (small.d_model, small.num_heads, small.d_ff, small.num_layers) == (32, 2, 24, 2)
    assert small.d_embedding == learner.model.config.encoder.d_embedding


@pytest.mark.parametrize("position", ["alibi", "rope", "t5_bias", "learned"])
def test_positions_without_weights_are_the_generators_own(position):
    """They know the number and width of the heads, in which the generator differs."""
    learner = make_learner("rtd", d_model=64, position=position)
    batch = learner.objective.prepare(make_drawn("rtd"))
    assert torch.isfinite(losses(learner, batch)["lm"])
    own = learner.objective.generator.encoder.embeddings.position
    assert (own is learner.model.encoder.embeddings.position) == (position == "learned")


def test_decoders_are_refused():
    model = make_learner("clm").model
    with pytest.raises(SettingError, match="objective: rtd trains an encoder"):
        RTDConfig().head(model)


def test_documents_of_other_lengths_do_not_mix_up_the_draws():
    """The number of each masked token is packed as the tokens are."""
    learner = make_learner("rtd")
    batch = learner.objective.prepare(make_drawn("rtd", 5))
    assert batch.more["draws"].shape == batch.rows.shape
    assert make_layout(batch.source.layout.lengths).lengths == tuple(sorted(batch.source.layout.lengths))
