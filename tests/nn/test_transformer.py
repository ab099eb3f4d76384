"""The last block runs on the rows that are wanted, or on all where nearly all are: the numbers are the same."""

import pytest
import torch

from tunesmith.base.layout import make_layout
from tunesmith.nn import transformer
from tunesmith.nn.init import init_normal
from tunesmith.nn.transformer import Transformer, TransformerConfig

LENGTHS = [11, 30, 12]


def make_stack():
    config = TransformerConfig(
        vocab_size=20,
        d_model=12,
        d_embedding=12,
        num_layers=2,
        num_heads=3,
        d_ff=24,
        max_positions=32,
        num_segments=0,
        causal=True,
        order="pre",
        dropout=0.0,
        attention_dropout=0.0,
        position="learned",
        feedforward="gelu",
        norm="layer_norm",
    )
    stack = Transformer(config).double()
    init_normal(stack, std=0.2, seed=0, name="test")
    return stack


@pytest.mark.parametrize("behind", [1, 5])
def test_wanted_rows(behind, monkeypatch):
    """All but one token of each document, as in language modelling, are nearly all; all but five are not."""
    paired = []
    real = transformer.pair
    monkeypatch.setattr(transformer, "pair", lambda *args, **settings: paired.append(1) or real(*args, **settings))
    stack, layout = make_stack(), make_layout(LENGTHS)
    ids = torch.randint(20, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    ends = torch.tensor(LENGTHS).cumsum(0)
    wanted = torch.cat([torch.arange(end - n, end - behind) for end, n in zip(ends, LENGTHS, strict=True)])
    found = stack(ids, layout, rows=wanted)
    torch.testing.assert_close(found, stack(ids, layout)[wanted], rtol=0, atol=1e-12)
    assert bool(paired) == (behind == 5)


def test_numbers_of_wanted_rows_are_rounded():
    """Each new number of rows is a new shape of every product in the last block: few may occur."""
    stack = make_stack()
    layout = make_layout(LENGTHS, device="cpu")
    ids = torch.randint(20, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    whole, seen = stack(ids, layout), set()
    stack.blocks[-1].feedforward.up.register_forward_pre_hook(lambda module, inputs: seen.add(len(inputs[0])))
    for count in range(17, 33):
        wanted = torch.arange(count)
        torch.testing.assert_close(stack(ids, layout, rows=wanted), whole[wanted])
    assert seen == {32}
