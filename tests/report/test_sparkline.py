import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.report.sparkline import BLOCKS, sparkline

finite = st.floats(allow_nan=False, allow_infinity=False)


def test_levels_follow_the_values():
    assert sparkline(list(range(8)), 8) == BLOCKS
    assert sparkline([7, 0, 3.5, 7], 10) == "█▁▅█"


def test_equal_values_stand_at_half_height():
    assert sparkline([2.0, 2.0], 5) == "▄▄"
    assert sparkline([2.0], 5) == "▄"


@pytest.mark.parametrize(("values", "width"), [([], 5), ([1.0], 0), ([1.0, 2.0], -3)])
def test_nothing_to_show(values, width):
    assert sparkline(values, width) == ""


def test_values_that_were_not_measured_are_spaces():
    assert sparkline([1.0, None, float("nan"), float("inf"), 2.0], 5) == "▁   █"
    assert sparkline([None, float("nan")], 5) == "  "
    assert sparkline([1.0, None, 5.0, 9.0], 2) == "▁█"  # None has no part in the mean


def test_long_curves_are_means_of_neighbours():
    values = np.concatenate([np.full(40, level) for level in (9.0, 5.0, 1.0)]) + np.tile([0.5, -0.5], 60)
    assert sparkline(values.tolist(), 3) == "█▅▁"


@given(st.lists(st.none() | finite, max_size=60), st.integers(-2, 40))
def test_width_and_order(values, width):
    line = sparkline(values, width)
    assert len(line) == min(len(values), max(width, 0))
    assert set(line) <= set(BLOCKS) | {" "}
    if len(line) == len(values):
        known = [(value, BLOCKS.index(c)) for value, c in zip(values, line, strict=True) if value is not None]
        for value, level in known:
            assert all(level <= other for larger, other in known if larger >= value)
        if known and max(known)[0] - min(known)[0] > 1e-300 and math.isfinite(max(known)[0] - min(known)[0]):
            assert {min(known)[1], max(known)[1]} == {0, len(BLOCKS) - 1}


def test_the_smallest_and_the_largest_differences():
    assert sparkline([0.0, 5e-324], 2) == "▄▄"  # too close to divide by
    assert sparkline([-1.7e308, 1.7e308], 2) == "▁█"  # further apart than a float can say
