"""Half a cosine, beside torch's."""

import pytest
import torch

from tunesmith.train.schedule import Moment
from tunesmith.train.schedule.cosine import CosineConfig


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_torch(floor):
    """Torch counts steps from 0 to T_max."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=20, eta_min=floor)
    for step in range(21):
        ours = CosineConfig(floor=floor).factor(Moment(step / 20, 0.0))
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        theirs.step()


def test_values():
    config = CosineConfig(floor=0.2)
    assert config.factor(Moment(0.05, 0.1)) == pytest.approx(0.5)
    assert config.factor(Moment(0.55, 0.1)) == pytest.approx(0.6)
    assert config.factor(Moment(1.0, 0.1)) == pytest.approx(0.2)
