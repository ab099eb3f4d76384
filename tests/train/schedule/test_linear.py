"""The learning rate rises, then falls to zero."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.train.schedule import Moment
from tunesmith.train.schedule.linear import LinearConfig

SHARES = st.floats(0, 1)
WARMUPS = st.floats(0, 1, exclude_max=True)


def linear(share, *, warmup):
    return LinearConfig().factor(Moment(share, warmup))


@given(SHARES, WARMUPS)
def test_within_zero_and_one(share, warmup):
    assert 0 <= linear(share, warmup=warmup) <= 1


@given(WARMUPS)
def test_ends_and_peak(warmup):
    assert linear(1.0, warmup=warmup) == 0
    assert linear(warmup, warmup=warmup) == pytest.approx(1)
    assert linear(0.0, warmup=warmup) == (0 if warmup else 1)


@given(SHARES, SHARES, WARMUPS)
def test_up_then_down(a, b, warmup):
    a, b = sorted((a, b))
    if b <= warmup:
        assert linear(a, warmup=warmup) <= linear(b, warmup=warmup) + 1e-12
    if a >= warmup:
        assert linear(a, warmup=warmup) >= linear(b, warmup=warmup)


def test_values():
    assert linear(0.05, warmup=0.1) == pytest.approx(0.5)
    assert linear(0.55, warmup=0.1) == pytest.approx(0.5)
    assert linear(0.25, warmup=0.0) == 0.75
