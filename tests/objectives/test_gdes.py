"""Gradient-disentangled embedding sharing: the model reads the generator's table and cannot pull at it."""

import pytest
import torch
from learners import make_drawn, make_learner

from tunesmith.nn.embeddings import Embeddings


@pytest.fixture
def learner():
    return make_learner("gdes")


def tables(learner):
    generator = learner.objective.generator.encoder.embeddings.tokens.weight
    return generator, learner.model.encoder.embeddings.tokens


def test_both_begin_alike(learner):
    generator, difference = tables(learner)
    assert torch.equal(difference.weight, generator)
    assert not difference.delta.any()


def test_each_phase_trains_its_own(learner):
    objective = learner.objective
    batch = objective.prepare(make_drawn("gdes"))
    first, second = objective.phases
    assert (first.name, second.name) == ("generator", "model")
    learner(batch, "generator")["lm"].backward()
    generator, difference = tables(learner)
    assert float(generator.grad.abs().max()) > 0
    assert difference.delta.grad is None
    learner.zero_grad()
    learner(batch, "model")["rtd"].backward()
    assert generator.grad is None
    assert float(difference.delta.grad.abs().max()) > 0
    names = [name for name, _ in learner.named_parameters()]
    assert all(first.trains(name) != second.trains(name) for name in names)
    assert {name.split(".")[0] for name in names if first.trains(name)} == {"networks"}


def test_the_model_follows_the_generators_table(learner):
    generator, difference = tables(learner)
    with torch.no_grad():
        generator.add_(1.0)
        difference.delta.add_(0.5)
    torch.testing.assert_close(difference.weight, generator + 0.5)


def test_finishing_writes_a_plain_table(learner):
    generator, difference = tables(learner)
    with torch.no_grad():
        difference.delta.normal_()
    wanted = (generator + difference.delta).detach().clone()
    learner.objective.finish(learner.model)
    embeddings = learner.model.encoder.embeddings
    assert isinstance(embeddings, Embeddings)
    assert isinstance(embeddings.tokens, torch.nn.Embedding)
    assert torch.equal(embeddings.tokens.weight, wanted)
    assert not torch.equal(generator, wanted)


def test_the_generator_is_as_wide_and_half_as_deep(learner):
    small, whole = learner.objective.generator.config.encoder, learner.model.config.encoder
    assert (small.d_model, small.num_layers) == (whole.d_model, whole.num_layers // 2)
