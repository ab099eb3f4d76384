"""AdamW and its amsgrad, written out from the papers."""

import numpy as np
import pytest
import torch

from tunesmith.train.optim.adamw import AdamWConfig


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_formula(case, amsgrad, maximize):
    b1, b2, eps = 0.8, 0.95, 1e-7

    def reference(name, w, grads, rates, decay):
        m = v = largest = np.zeros_like(w)
        for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
            g = -g if maximize else g
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            largest = np.maximum(largest, v)
            m_hat = m / (1 - b1**t)
            v_hat = (largest if amsgrad else v) / (1 - b2**t)
            w = w - rate * decay * w - rate * m_hat / (np.sqrt(v_hat) + eps)
            yield w

    case.compare(AdamWConfig(beta1=b1, beta2=b2, epsilon=eps, amsgrad=amsgrad, maximize=maximize), reference)


def test_torch(case):
    case.compare_torch(AdamWConfig(), lambda p: torch.optim.AdamW(p, weight_decay=0.0, foreach=False))
