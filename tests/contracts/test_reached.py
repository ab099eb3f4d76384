"""Which parameters a loss has a gradient for, and how often it runs each block, depends on its phase alone.

Several processes look for such parameters once (DDP), and wait for each other at each run of a block (FSDP).
"""

from collections import Counter

import pytest
import torch
from learners import ALL, make_bare, make_drawn, make_learner
from made_samples import drawn

from tunesmith.nn.block import Block


def reached(trainee, samples, *, noise=None):
    """Parameters by phase."""
    batch = trainee.objective.prepare(samples, device=torch.device("cpu")).with_noise(noise)
    named = dict(trainee.named_parameters())
    found = {}
    for phase in trainee.objective.phases:
        loss = torch.stack(list(trainee(batch, phase.name).values())).sum()
        grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        found[phase.name] = {name for name, grad in zip(named, grads, strict=True) if grad is not None}
    return found


@pytest.mark.parametrize("name", ALL)
def test_every_batch_reaches_the_same(name):
    trainee = make_learner(name)
    whole = reached(trainee, make_drawn(name))
    assert all(len(names) > 10 for names in whole.values())
    for number in range(len(make_drawn(name))):
        assert reached(trainee, [make_drawn(name)[number]]) == whole


def runs(trainee, samples):
    """How often each block runs, by phase."""
    batch = trainee.objective.prepare(samples)
    blocks = {name: module for name, module in trainee.named_modules() if isinstance(module, Block)}
    found = {}
    for phase in trainee.objective.phases:
        counts = Counter()
        hooks = [
            block.register_forward_hook(lambda *ignored, name=name, counts=counts: counts.update([name]))
            for name, block in blocks.items()
        ]
        trainee(batch, phase.name)
        for hook in hooks:
            hook.remove()
        found[phase.name] = counts
    return found


@pytest.mark.parametrize("name", ALL)
def test_every_batch_runs_each_block_equally_often(name):
    trainee = make_learner(name)
    whole = runs(trainee, make_drawn(name))
    assert all(whole.values())
    for number in range(len(make_drawn(name))):
        assert runs(trainee, [make_drawn(name)[number]]) == whole


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
def test_a_batch_without_targets_reaches_them_too(name, dtype):
    trainee = make_learner(name, dropout=0.1, attention_dropout=0.1)
    trainee.model.compute_dtype = dtype
    whole = reached(trainee, make_drawn(name))
    for sample in make_bare(name):
        assert reached(trainee, drawn(sample), noise=torch.Generator().manual_seed(0)) == whole
