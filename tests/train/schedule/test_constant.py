"""The peak stays."""

from tunesmith.train.schedule import Moment
from tunesmith.train.schedule.constant import ConstantConfig


def test_values():
    seen = [ConstantConfig().factor(Moment(share, 0.2)) for share in (0.0, 0.05, 0.2, 0.6, 1.0)]
    assert seen == [0.0, 0.25, 1.0, 1.0, 1.0]
