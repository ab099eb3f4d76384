"""What every method promises by being attached."""

import pytest
import torch

import tunesmith as ts
from tunesmith.base import choices
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.tuning import Attached


@pytest.fixture
def model(checkpoints):
    head = ClassifyConfig(num_labels=2, hidden="tanh", hidden_dropout=0.1)
    return ts.load(checkpoints["roberta"]).with_head(head, seed=1)  # its checkpoint has neither part of this head


def test_fresh_parts_that_stay_frozen_are_saved_too(model):
    """They stand in no checkpoint: peft and transformers lose them (peft#2171)."""
    attached = Attached(model, {"head.output.weight"})
    assert set(attached.parameters()) == {"head.output.weight"}
    fresh = {"head.dense.weight", "head.dense.bias", "head.output.weight", "head.output.bias"}
    assert set(attached.state()) == fresh == set(model.fresh)


def test_load_puts_a_state_back(model):
    attached = Attached(model, {"head.output.bias", "encoder.blocks.0.attention.query.bias"})
    state = {name: tensor.clone() for name, tensor in attached.state().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    attached.load(state)
    for name, parameter in model.named_parameters():
        if name in state:
            assert torch.equal(parameter, state[name])


@pytest.mark.parametrize("name", [name for name in choices.names("method") if name != "linear_probe"])
def test_detach_leaves_the_model_as_it_was(name, model):
    """linear_probe needs a head of its own, or one that the checkpoint has."""
    before = {key: (p.detach().clone(), p.requires_grad) for key, p in model.named_parameters()}
    attached = choices.choose("method", name).attach(model, seed=0)
    trains = attached.parameters()
    assert trains
    assert all(parameter.requires_grad for parameter in trains.values())
    assert {"head.output.weight", "head.output.bias"} <= trains.keys()
    assert trains.keys() <= attached.state().keys()
    attached.detach()
    after = {key: (p.detach(), p.requires_grad) for key, p in model.named_parameters()}
    assert after.keys() == before.keys()
    for key, (tensor, requires_grad) in before.items():
        assert torch.equal(after[key][0], tensor)
        assert after[key][1] == requires_grad
