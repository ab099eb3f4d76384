"""Gradient descent with momentum, written out."""

import numpy as np
import pytest
import torch

from tunesmith.train.optim.sgd import SGDConfig


@pytest.mark.parametrize("form", ["heavy_ball", "nesterov"])
@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_formula(case, form, momentum):
    def reference(name, w, grads, rates, decay):
        total = np.zeros_like(w)
        for g, rate in zip(grads, rates, strict=True):
            g = g + decay * w
            total = momentum * total + g
            w = w - rate * (g + momentum * total if form == "nesterov" else total)
            yield w

    case.compare(SGDConfig(momentum=momentum, form=form), reference)


def test_torch(case):
    case.compare_torch(SGDConfig(), lambda p: torch.optim.SGD(p, momentum=0.9, foreach=False))
