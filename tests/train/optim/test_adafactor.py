"""Adafactor, written out from the paper with the whole matrix of squares, and torch's own where it is the same."""

import numpy as np
import pytest
import torch

from tunesmith.train.optim.adafactor import AdafactorConfig


def rms(x):
    return np.sqrt(np.mean(x * x))


@pytest.mark.parametrize("scale_by", ["parameter", "none"])
@pytest.mark.parametrize("rate", ["given", "relative"])
def test_formula(case, scale_by, rate):
    def reference(name, w, grads, rates, decay):
        row = column = square = 0.0
        for t, (g, given) in enumerate(zip(grads, rates, strict=True), 1):
            beta = 1 - t**-0.7
            full = g * g + 1e-30
            if w.ndim >= 2:
                row = beta * row + (1 - beta) * full.sum(-1)  # algorithm 4: sums
                column = beta * column + (1 - beta) * full.sum(-2)
                square = row[..., :, None] * column[..., None, :] / row.sum(-1)[..., None, None]
            else:
                square = beta * square + (1 - beta) * full
            u = g / np.sqrt(square)
            u = u / max(1.0, rms(u) / 0.9)
            step = min(given, 1 / np.sqrt(t)) if rate == "relative" else given
            scale = max(2e-3, rms(w)) if scale_by == "parameter" else 1.0
            w = w - given * decay * w - step * scale * u
            yield w

    config = AdafactorConfig(decay=0.7, clip=0.9, scale_by=scale_by, smallest_scale=2e-3, rate=rate)
    case.compare(config, reference)


def test_torch(case):
    def make(parameters):
        return torch.optim.Adafactor(parameters, eps=(1e-30, 1e-3), foreach=False)

    case.compare_torch(AdafactorConfig(rate="relative"), make)


def test_its_state_is_a_row_and_a_column():
    w = torch.nn.Parameter(torch.ones(30, 20))
    optimiser = AdafactorConfig().build({"w": w}, learning_rate=0.1, weight_decay=0.0)
    w.grad = torch.ones(30, 20)
    optimiser.step()
    assert {key: tuple(x.shape) for key, x in optimiser.state[w].items()} == {"step": (), "row": (30,), "column": (20,)}
