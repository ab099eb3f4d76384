"""BERT's Adam, written out from its code's formula."""

import numpy as np
import pytest
import torch

from tunesmith.train.optim.adam import AdamConfig


@pytest.mark.parametrize("correction", ["off", "on"])
def test_formula(case, correction):
    b1, b2, eps = 0.85, 0.97, 1e-6

    def reference(name, w, grads, rates, decay):
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g * g
            first, second = (1 - b1**t, 1 - b2**t) if correction == "on" else (1, 1)
            w = w - rate * (m / first / (np.sqrt(v / second) + eps) + decay * w)
            yield w

    case.compare(AdamConfig(beta1=b1, beta2=b2, epsilon=eps, bias_correction=correction), reference)


def test_the_first_step_is_longer_without_correction():
    """m / sqrt(v) = 0.1 g / sqrt(0.001 g^2) = 3.16 where it would be 1."""
    w = torch.nn.Parameter(torch.zeros(3))
    optimiser = AdamConfig().build({"w": w}, learning_rate=0.1, weight_decay=0.0)
    w.grad = torch.tensor([1.0, -2.0, 30.0])
    optimiser.step()
    assert torch.allclose(w.detach(), -0.1 * 0.1 / 0.001**0.5 * torch.tensor([1.0, -1.0, 1.0]), rtol=1e-4)


def test_torch(case):
    config = AdamConfig(bias_correction="on", epsilon=1e-8)
    case.compare_torch(config, lambda p: torch.optim.Adam(p, foreach=False))
