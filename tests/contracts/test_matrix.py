"""Position x feed-forward x norm x kind of model: every cell has right gradients, and saves and loads.

make matrix
"""

import pytest
import torch
from toys import FEEDFORWARDS, KINDS, NORMS, POSITIONS, toy, words

from tunesmith.base.config import build
from tunesmith.base.errors import SettingError
from tunesmith.base.layout import make_layout
from tunesmith.models._checkpoint import load, save
from tunesmith.nn.transformer import Transformer, TransformerConfig

LENGTHS = (2, 4, 5)


def logits(model, parameters=None):
    ids = words(*LENGTHS)
    segments = words(*LENGTHS, seed=1) % 2
    inputs = (ids, make_layout(LENGTHS, segments=segments))
    if parameters is None:
        return model.logits(*inputs)

    class Called(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return self.model.logits(*inputs)

    return torch.func.functional_call(Called(), {f"model.{name}": p for name, p in parameters.items()}, ())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "feedforward", [f if f in ("gelu", "swiglu") else pytest.param(f, marks=pytest.mark.slow) for f in FEEDFORWARDS]
)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_cell(kind, position, feedforward, norm, tmp_path):
    model = toy(kind, position, feedforward, norm)
    parameters = dict(model.named_parameters())
    values = [parameter.detach().clone().requires_grad_() for parameter in parameters.values()]

    def loss(*values):
        return logits(model, dict(zip(parameters, values, strict=True)))

    assert torch.autograd.gradcheck(loss, values, fast_mode=True)
    gradients = torch.autograd.grad(loss(*values).square().sum(), values)
    missed = [name for name, gradient in zip(parameters, gradients, strict=True) if not gradient.any()]
    assert [name for name in missed if not name.endswith("attention.key.bias")] == []  # softmax is blind to it
    model = model.float()
    save(model, tmp_path)
    again = load(tmp_path)
    assert again.config.stacks == model.config.stacks
    assert torch.equal(logits(again), logits(model))


def test_an_illegal_cell_says_why():
    sizes = toy("encoder", "rope").config.encoder.model_dump()
    with pytest.raises(SettingError, match="position: rope turns pairs: the width of a head must be even, got 3"):
        Transformer(build(TransformerConfig, sizes | {"d_model": 6, "d_embedding": 6}))
