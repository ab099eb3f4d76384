"""Muon: hidden matrices by the quintic applied to singular values, all else by AdamW; torch's own for the former."""

import numpy as np
import pytest
import torch

from tunesmith.train.optim.muon import MuonConfig, is_hidden, orthogonalised

HIDDEN = (
    "encoder.blocks.0.attention.query.weight",
    "encoder.blocks.0.feedforward.up.weight",
    "encoder.blocks.0.zeros.weight",
)


def quintic(x):
    """The iteration on a matrix is the iteration on its singular values."""
    norm = np.linalg.norm(x)
    u, s, v = np.linalg.svd(x / max(norm, 1e-7), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ np.diag(s) @ v


@pytest.mark.parametrize("scale", ["adamw", "shape"])
def test_formula(case, scale):
    def reference(name, w, grads, rates, decay):
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
            if name in HIDDEN:
                m = 0.9 * m + 0.1 * g
                u = quintic(0.1 * g + 0.9 * m)
                a, b = w.shape
                length = 0.2 * np.sqrt(max(a, b)) if scale == "adamw" else np.sqrt(max(1, a / b))
                w = w - rate * decay * w - rate * length * u
            else:
                rate = 0.3 * rate
                m = 0.8 * m + 0.2 * g
                v = 0.95 * v + 0.05 * g * g
                w = w - rate * decay * w - rate * m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
            yield w

    config = MuonConfig(momentum=0.9, scale=scale, ratio=0.3, beta1=0.8, beta2=0.95)
    case.compare(config, reference, rtol=1e-9)  # the iteration grows rounding errors by up to 3.4^5


@pytest.mark.parametrize(("scale", "theirs"), [("adamw", "match_rms_adamw"), ("shape", "original")])
def test_torch(scale, theirs):
    """Torch's own iterates in bf16, so that it agrees to three digits."""
    draw = torch.Generator().manual_seed(0)
    start, results = torch.randn(24, 16, generator=draw), []
    for ours in (True, False):
        w = torch.nn.Parameter(start.clone())
        if ours:
            config = MuonConfig(scale=scale, precision="bf16")
            optimiser = config.build({"blocks.0.weight": w}, learning_rate=0.1, weight_decay=0.05)
        else:
            optimiser = torch.optim.Muon([w], lr=0.1, weight_decay=0.05, adjust_lr_fn=theirs)
        for i in range(5):
            w.grad = torch.randn(24, 16, generator=torch.Generator().manual_seed(i))
            optimiser.step()
        results.append(w.detach())
    assert float((results[0] - results[1]).norm()) < 0.01 * float((results[1] - start).norm())
    assert float((results[0] - start).norm()) > 1


@pytest.mark.parametrize(("shape", "dtype"), [((64, 32), torch.float32), ((32, 64), torch.bfloat16)])
def test_singular_values_come_near_one(shape, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(x, dtype=dtype).float())
    assert 0.6 < float(values.min())
    assert float(values.max()) < 1.3


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("model.encoder.blocks.3.attention.output.weight", True),
        ("networks.generator.encoder.blocks.0.feedforward.gate.weight", True),
        ("encoder.embeddings.project.weight", False),
        ("model.encoder.embeddings.tokens.weight", False),
        ("decoder.embeddings.position.weight", False),
        ("head.lm.dense.weight", False),
        ("head.table.weight", False),
        ("encoder.blocks.0.attention.position.key", False),
        ("encoder.blocks.0.attention.position.content_bias", False),
        ("encoder.blocks.0.attention.query.lora_A", False),
    ],
)
def test_names_tell(name, hidden):
    assert is_hidden(name, torch.zeros(4, 4)) is hidden
    assert is_hidden(name, torch.zeros(4)) is False
