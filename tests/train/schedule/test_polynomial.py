"""A power of what is left, beside torch's."""

import pytest
import torch

from tunesmith.train.schedule import Moment
from tunesmith.train.schedule.linear import LinearConfig
from tunesmith.train.schedule.polynomial import PolynomialConfig


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_torch(power):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=20, power=power)
    for step in range(21):
        ours = PolynomialConfig(power=power).factor(Moment(step / 20, 0.0))
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        theirs.step()


def test_a_power_of_one_is_linear():
    for share in (0.0, 0.05, 0.1, 0.4, 0.99, 1.0):
        moment = Moment(share, 0.1)
        assert PolynomialConfig().factor(moment) == pytest.approx(LinearConfig().factor(moment), abs=1e-15)


def test_floor():
    assert PolynomialConfig(power=2.0, floor=0.3).factor(Moment(1.0, 0.1)) == pytest.approx(0.3)
    assert PolynomialConfig(power=2.0, floor=0.3).factor(Moment(0.55, 0.1)) == pytest.approx(0.3 + 0.7 * 0.25)
