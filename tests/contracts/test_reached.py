"""Which parameters a loss has a gradient for depends on its phase alone: several processes look once."""

import pytest
import torch
from learners import LEARNERS, make_drawn, make_learner


def reached(trainee, drawn):
    """Parameters by phase."""
    batch = trainee.objective.prepare(drawn, device=torch.device("cpu"))
    named = dict(trainee.named_parameters())
    found = {}
    for phase in trainee.objective.phases:
        loss = torch.stack(list(trainee(batch, phase.name).values())).sum()
        grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        found[phase.name] = {name for name, grad in zip(named, grads, strict=True) if grad is not None}
    return found


@pytest.mark.parametrize("name", LEARNERS)
def test_every_batch_reaches_the_same(name):
    trainee = make_learner(name)
    whole = reached(trainee, make_drawn(name))
    assert all(len(names) > 10 for names in whole.values())
    for number in range(len(make_drawn(name))):
        assert reached(trainee, [make_drawn(name)[number]]) == whole
