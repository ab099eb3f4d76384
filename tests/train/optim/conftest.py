"""Twenty steps of an optimiser in float64, beside a slow reference that is written out from the formula."""

import numpy as np
import pytest
import torch

SHAPES = {
    "encoder.embeddings.tokens.weight": (9, 4),
    "encoder.blocks.0.attention.query.weight": (6, 4),
    "encoder.blocks.0.attention.query.bias": (6,),
    "encoder.blocks.0.feedforward.up.weight": (4, 7),
    "encoder.convolution.map.weight": (4, 2, 3),
    "encoder.blocks.0.zeros.weight": (3, 4),
    "norm.weight": (4,),
    "head.output.weight": (2, 4),
}
NUM_STEPS = 20
RATES = [0.02 * (1 + i % 5) for i in range(NUM_STEPS)]


class Case:
    """Parameters, gradients and learning rates of twenty steps; gradients of some steps are large, of some zero."""

    def __init__(self):
        draw = np.random.default_rng(0)
        self.start = {name: draw.normal(size=shape) for name, shape in SHAPES.items()}
        self.start["encoder.blocks.0.zeros.weight"] *= 0
        size = [0.0 if i == 7 else 100.0 if i == 11 else 1.0 for i in range(NUM_STEPS)]
        self.grads = {
            name: [size[i] * draw.normal(size=shape) for i in range(NUM_STEPS)] for name, shape in SHAPES.items()
        }

    def run(self, make, dtype=torch.float64):
        """All weights after each step; ``make`` builds the optimiser from named parameters."""
        parameters = {name: torch.nn.Parameter(torch.tensor(w, dtype=dtype)) for name, w in self.start.items()}
        optimiser = make(parameters)
        seen = []
        for i in range(NUM_STEPS):
            for name, parameter in parameters.items():
                parameter.grad = torch.tensor(self.grads[name][i], dtype=dtype)
            for group in optimiser.param_groups:
                group["lr"] = RATES[i]
            optimiser.step()
            seen.append({name: parameter.detach().double().numpy().copy() for name, parameter in parameters.items()})
        return seen

    def compare(self, config, reference, *, weight_decay=0.1, rtol=1e-10):
        """``reference(name, w, grads, rates, decay)`` yields a parameter's weights after each step."""
        ours = self.run(lambda p: config.build(p, learning_rate=1.0, weight_decay=weight_decay))
        for name, w in self.start.items():
            decay = weight_decay if w.ndim >= 2 else 0.0
            theirs = list(reference(name, w.copy(), self.grads[name], RATES, decay))
            for i in range(NUM_STEPS):
                np.testing.assert_allclose(ours[i][name], theirs[i], rtol=rtol, atol=rtol, err_msg=f"{name}, step {i}")

    def compare_torch(self, config, make, *, weight_decay=0.0, rtol=1e-10, names=tuple(SHAPES)):
        """``make`` builds torch's optimiser from a list of parameters."""
        chosen = Case()
        chosen.start = {name: self.start[name] for name in names}
        ours = chosen.run(lambda p: config.build(p, learning_rate=1.0, weight_decay=weight_decay))
        theirs = chosen.run(lambda p: make(list(p.values())))
        for i in range(NUM_STEPS):
            for name in names:
                np.testing.assert_allclose(ours[i][name], theirs[i][name], rtol=rtol, atol=rtol, err_msg=f"{name} {i}")


@pytest.fixture
def case():
    return Case()
