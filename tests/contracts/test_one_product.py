"""Queries, keys and values by one product are those by three, in every kind of model."""

import pytest
import torch
from toys import KINDS, POSITIONS, toy, words

from tunesmith.base.layout import make_layout
from tunesmith.nn import attention

LENGTHS = (5, 9, 12)


def outcome(model):
    """Logits and gradients."""
    ids = words(*LENGTHS)
    found = model.logits(ids, make_layout(LENGTHS, segments=ids % 2))
    return [found, *torch.autograd.grad(found.square().sum(), list(model.parameters()), allow_unused=True)]


def assert_the_same(model, monkeypatch):
    real, joined = attention.side_by_side, []
    monkeypatch.setattr(attention, "side_by_side", lambda *given: joined.append(real(*given)) or joined[-1])
    together = outcome(model)
    assert joined
    assert all(found is not None for found in joined)
    monkeypatch.setattr(attention, "side_by_side", lambda maps, x: None)
    for got, wanted in zip(together, outcome(model), strict=True):
        if wanted is None:
            assert got is None
        else:
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_position_encoding(kind, position, monkeypatch):
    assert_the_same(toy(kind, position), monkeypatch)


@pytest.mark.parametrize("fields", [{"num_kv_heads": 1}, {"head_norm": True}, {"biases": "none"}], ids=str)
@pytest.mark.parametrize("position", ["learned", "rope"])
def test_shared_and_normalised_heads(position, fields, monkeypatch):
    assert_the_same(toy("decoder", position, **fields), monkeypatch)
