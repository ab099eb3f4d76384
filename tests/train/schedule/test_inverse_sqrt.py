"""One over the square root, beside the paper's formula in steps."""

import pytest

from tunesmith.base.errors import SettingError
from tunesmith.train.schedule import Moment
from tunesmith.train.schedule.inverse_sqrt import InverseSqrtConfig


def test_the_paper():
    """min(t^-0.5, t w^-1.5), as a share of its peak w^-0.5; in shares of 1000 steps."""
    warmup = 40
    for step in range(1, 1001, 7):
        paper = min(step**-0.5, step * warmup**-1.5) / warmup**-0.5
        assert InverseSqrtConfig().factor(Moment(step / 1000, warmup / 1000)) == pytest.approx(paper, rel=1e-12)


def test_landing():
    config = InverseSqrtConfig(landing="zero")
    assert config.factor(Moment(1.0, 0.04)) == 0
    assert config.factor(Moment(0.04, 0.04)) == pytest.approx(1)
    end = 0.04**0.5
    for share in (0.05, 0.3, 0.9):
        assert config.factor(Moment(share, 0.04)) == pytest.approx(((0.04 / share) ** 0.5 - end) / (1 - end))


def test_it_needs_a_warmup():
    with pytest.raises(SettingError, match=r"^train\.warmup: must be more than 0 with inverse_sqrt"):
        InverseSqrtConfig().factor(Moment(0.5, 0.0))
