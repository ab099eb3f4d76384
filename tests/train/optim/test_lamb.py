"""LAMB, written out from the paper and from ALBERT's code."""

import numpy as np
import pytest
import torch

from tunesmith.train.optim import _own
from tunesmith.train.optim.lamb import LAMBConfig


@pytest.mark.parametrize("chunk", [1 << 15, 5])
@pytest.mark.parametrize("correction", ["off", "on"])
def test_formula(case, correction, chunk, monkeypatch):
    monkeypatch.setattr(_own, "CHUNK", chunk)
    b1, b2, eps = 0.85, 0.97, 1e-6

    def reference(name, w, grads, rates, decay):
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g * g
            first, second = (1 - b1**t, 1 - b2**t) if correction == "on" else (1, 1)
            u = m / first / (np.sqrt(v / second) + eps) + decay * w
            length, move = np.sqrt((w * w).sum()), np.sqrt((u * u).sum())
            ratio = length / move if w.ndim >= 2 and length > 0 and move > 0 else 1.0
            w = w - rate * ratio * u
            yield w

    case.compare(LAMBConfig(beta1=b1, beta2=b2, epsilon=eps, bias_correction=correction), reference)


def test_a_matrix_moves_by_a_share_of_its_norm():
    w = torch.nn.Parameter(torch.full((4, 4), 3.0))
    before = w.detach().clone()
    optimiser = LAMBConfig().build({"w": w}, learning_rate=0.01, weight_decay=0.0)
    w.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)) * 1000
    optimiser.step()
    assert float((w.detach() - before).norm()) == pytest.approx(0.01 * 12, rel=1e-5)


def test_a_gradient_in_another_order_of_memory(monkeypatch):
    monkeypatch.setattr(_own, "CHUNK", 5)
    results = []
    for turned in (False, True):
        w = torch.nn.Parameter(torch.arange(12.0).view(3, 4))
        optimiser = LAMBConfig().build({"w": w}, learning_rate=0.1, weight_decay=0.1)
        grad = torch.linspace(-1, 2, 12).view(3, 4)
        w.grad = grad.mT.contiguous().mT if turned else grad
        optimiser.step()
        results.append(w.detach())
    assert torch.equal(*results)
