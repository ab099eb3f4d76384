import torch
from toys import toy, words

from tunesmith.base.layout import make_layout
from tunesmith.nn.position.none import NoneConfig


def test_nothing_is_done(sizes, draw):
    encoding, x = NoneConfig().build(sizes), draw(5, 12)
    assert encoding.embed(x, make_layout([5])) is x
    assert not encoding.relative
    assert not encoding.rotary
    assert list(encoding.parameters()) == []


def moved(kind, position):
    """How far the hidden states of a document change when its tokens are read in another order."""
    model, ids, order = toy(kind, position), words(9), torch.tensor([4, 2, 7, 0, 8, 3, 1, 6, 5])
    hidden, other = (model.hidden(tokens, make_layout([9])) for tokens in (ids, ids[order]))
    return (hidden[order] - other).abs().max().item()


def test_an_encoder_does_not_know_the_order():
    assert moved("encoder", "none") < 1e-12
    assert moved("encoder", "sinusoidal") > 1e-3


def test_a_causal_model_does():
    assert moved("decoder", "none") > 1e-3
