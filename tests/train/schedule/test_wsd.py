"""The peak until the decay begins, then one of three shapes."""

import pytest

from tunesmith.train.schedule import Moment
from tunesmith.train.schedule.wsd import WSDConfig


@pytest.mark.parametrize(("shape", "quarter"), [("linear", 0.75), ("sqrt", 0.5), ("cosine", 0.8535533905932737)])
def test_values(shape, quarter):
    config = WSDConfig(decay=0.2, shape=shape)
    assert config.factor(Moment(0.05, 0.1)) == pytest.approx(0.5)
    assert [config.factor(Moment(share, 0.1)) for share in (0.1, 0.5, 0.8)] == [1, 1, 1]
    assert config.factor(Moment(0.85, 0.1)) == pytest.approx(quarter)
    assert config.factor(Moment(1.0, 0.1)) == pytest.approx(0, abs=1e-15)


def test_a_decay_that_would_begin_in_the_warmup_begins_behind_it():
    config = WSDConfig(decay=0.9, shape="linear")
    assert config.factor(Moment(0.15, 0.3)) == pytest.approx(0.5)
    assert config.factor(Moment(0.3, 0.3)) == 1
    assert config.factor(Moment(0.65, 0.3)) == pytest.approx(0.5)
